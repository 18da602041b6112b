from __future__ import annotations

import pytest

from .world import simulate

CHUNK = 25


@pytest.mark.parametrize("first", range(0, 200, CHUNK))
def test_nothing_is_bought_twice_lost_or_left_open_whatever_goes_wrong(first, quiet):
    verdicts = [simulate(seed) for seed in range(first, first + CHUNK)]

    assert [verdict.summary() for verdict in verdicts if verdict.violations] == []
