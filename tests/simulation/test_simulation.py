from __future__ import annotations

import pytest

from .shared_world import simulate_shared
from .world import simulate

pytestmark = pytest.mark.unmeasured

CHUNK = 25


@pytest.mark.parametrize("first", range(0, 200, CHUNK))
def test_every_rule_holds_in_every_world(first, silent_logs):
    verdicts = [simulate(seed) for seed in range(first, first + CHUNK)]

    assert [verdict.summary() for verdict in verdicts if verdict.violations] == []


@pytest.mark.parametrize("first", range(0, 60, 15))
def test_every_rule_holds_where_processes_share_a_journal(first, silent_logs):
    verdicts = [simulate_shared(seed) for seed in range(first, first + 15)]

    assert [verdict.summary() for verdict in verdicts if verdict.violations] == []


@pytest.mark.parametrize("seed", [930, 959])
def test_a_job_that_another_process_took_before_its_id_was_recorded_has_one_owner(seed, silent_logs):
    assert simulate_shared(seed).violations == []
