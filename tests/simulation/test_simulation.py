from __future__ import annotations

import pytest

from .world import simulate

pytestmark = pytest.mark.unmeasured

CHUNK = 25


@pytest.mark.parametrize("first", range(0, 200, CHUNK))
def test_every_rule_holds_in_every_world(first, silent_logs):
    verdicts = [simulate(seed) for seed in range(first, first + CHUNK)]

    assert [verdict.summary() for verdict in verdicts if verdict.violations] == []
