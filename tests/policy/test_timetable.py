from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.ages import BINS, EDGES, bin_of
from kling_async._policy.timetable import Pressure, mean_root, median, press, timetable

rates = st.lists(st.floats(0.0, 100.0), min_size=1, max_size=30).map(lambda part: (part * BINS)[:BINS])
positive = st.floats(0.01, 1e4)


@given(st.floats(0.01, 10.0))
def test_a_steady_rate_gives_its_inverse(rate):
    table = timetable([rate] * BINS, Pressure(longest=1e5))
    assert len(table) == BINS + 1
    for i in range(0, BINS - 60, 10):
        assert table[i] == pytest.approx(1 / rate, rel=1e-6)


def test_a_rate_that_rises_soon_is_met_in_time():
    rises = bin_of(60.0)
    table = timetable([0.0] * rises + [10.0] * (BINS - rises), Pressure(longest=1000.0))
    assert EDGES[rises] <= 30.0 + table[bin_of(30.0)] <= EDGES[rises] + 3.0


def test_where_nothing_is_worth_a_call_the_longest_interval_holds():
    assert set(timetable([0.0] * BINS, Pressure(longest=30.0))) == {30.0}


@given(rates, st.floats(0.0, 1.0), st.floats(0.0, 1.0), positive)
def test_no_interval_is_negative_or_above_the_longest(some, share, base, longest):
    table = timetable(some, Pressure(share=share, base=base, longest=longest))
    assert all(0 < interval <= longest for interval in table)


@given(rates, st.floats(0.01, 0.99))
def test_a_smaller_share_never_asks_sooner(some, share):
    free = timetable(some, Pressure(longest=1e4))
    pressed = timetable(some, Pressure(share=share, longest=1e4))
    assert all(later >= sooner * (1 - 1e-6) - 1e-9 for sooner, later in zip(free, pressed, strict=True))


@given(positive, positive, st.integers(1, 10**6), positive)
def test_pressure_never_asks_for_more_than_jobs_are_worth_together(demand, budget, jobs, longest):
    pressure = press(demand=demand, budget=budget, jobs=jobs, longest=longest)
    if demand <= budget:
        assert pressure == Pressure(longest=longest)
        return
    assert 0 < pressure.share < 1
    assert pressure.base >= 0
    assert pressure.longest >= longest * (1 - 1e-9)
    assert pressure.base * jobs <= 0.25 * budget * (1 + 1e-9)


def test_a_tight_budget_leaves_each_job_its_longest_interval_while_it_can():
    assert press(demand=50.0, budget=10.0, jobs=30, longest=30.0).longest == pytest.approx(30.0)
    assert press(demand=50.0, budget=10.0, jobs=3000, longest=30.0).longest == pytest.approx(1200.0)


def test_the_median_of_a_steady_hazard_is_its_half_life():
    assert median([0.01] * BINS) == pytest.approx(math.log(2) / 0.01)


def test_where_fewer_than_half_ever_end_the_median_is_the_end_of_the_grid():
    assert median([0.0] * BINS) == EDGES[-1]


def test_the_mean_root_of_a_steady_hazard_leaves_out_the_slowest():
    assert mean_root([0.01] * BINS) == pytest.approx(10.0, rel=0.04)
    assert mean_root([0.0] * BINS) == 0.0
