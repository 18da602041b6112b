from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.run_times import RunTimes


def learn_from(*runs, expected=200.0, unfinished=()):
    """What is known after these run times."""
    times = RunTimes(expected)
    for run in runs:
        times.add(run)
    times.fit(unfinished)
    return times


def draws(count, median=60.0, sigma=0.35):
    rng = random.Random(1)  # noqa: S311 - samples, no secret
    return [median * math.exp(rng.gauss(0, sigma)) for _ in range(count)]


def spread_over(times):
    """How many times longer than the usual run time one job in six runs at least."""
    return math.exp(times.normal.stdev)


@pytest.mark.parametrize("expected", [2.0, 60.0, 900.0])
def test_before_any_job_ended_the_expected_run_time_stands_and_is_uncertain(expected):
    times = RunTimes(expected)
    assert times.median == pytest.approx(expected)
    assert spread_over(times) > 1.6


def test_one_end_tells_as_much_as_the_expectation():
    assert learn_from(20.0, expected=200.0).median == pytest.approx(math.sqrt(20.0 * 200.0))


@pytest.mark.parametrize("median, sigma", [(120.0, 0.2), (60.0, 0.35), (90.0, 0.6)])
def test_two_hundred_ends_tell_the_usual_run_time_and_its_spread(median, sigma):
    times = learn_from(*draws(200, median, sigma))
    assert times.median == pytest.approx(median, rel=0.1)
    assert times.normal.stdev == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("age", [300.0, 1000.0, 3000.0])
def test_jobs_that_have_not_ended_at_an_age_are_expected_to_run_longer(age):
    times = learn_from(unfinished=[(age, 200.0)], expected=60.0)
    assert age < times.median < 15 * age


def test_an_expectation_a_hundred_times_too_long_is_forgotten():
    assert learn_from(*draws(200, median=2.0)).median == pytest.approx(2.0, rel=0.1)


def test_young_jobs_say_nothing():
    assert learn_from(unfinished=[(0.0, 100.0), (1.0, 100.0)]).median == pytest.approx(200.0, rel=1e-3)


def test_the_first_ends_of_a_crowd_are_known_to_be_its_quickest():
    runs = sorted(draws(200))
    seen, at = runs[:4], runs[3]
    assert learn_from(*seen).median < 40.0
    assert 45.0 < learn_from(*seen, unfinished=[(at, 196.0)]).median < 120.0


def test_a_job_that_never_ends_does_not_move_what_a_hundred_ends_told():
    runs = draws(100)
    stuck = learn_from(*runs, unfinished=[(1e6, 1.0)])
    assert stuck.median == pytest.approx(learn_from(*runs).median, rel=0.05)


def test_a_service_that_has_become_three_times_slower_is_believed():
    times = learn_from(*draws(600), *draws(600, median=180.0))
    assert times.median > 100.0
    assert learn_from(*draws(600), *draws(2000, median=180.0)).median == pytest.approx(180.0, rel=0.15)


def test_the_unit_of_time_does_not_matter():
    runs, ages = draws(20), [(40.0, 5.0), (90.0, 2.0)]
    seconds = learn_from(*runs, unfinished=ages)
    tenths = learn_from(
        *(10 * run for run in runs), expected=2000.0, unfinished=[(10 * age, count) for age, count in ages]
    )
    assert tenths.median == pytest.approx(10 * seconds.median)
    assert tenths.normal.stdev == pytest.approx(seconds.normal.stdev)


@given(
    st.floats(0.1, 1e5),
    st.lists(st.floats(-1e3, 1e12), max_size=40),
    st.lists(st.tuples(st.floats(-1e3, 1e12), st.floats(0.0, 1e6)), max_size=24),
)
def test_any_ages_and_ends_give_a_distribution(expected, runs, unfinished):
    times = learn_from(*runs, expected=expected, unfinished=unfinished)
    assert math.isfinite(times.normal.mean)
    assert 0.05 < times.normal.stdev < 50
    assert 0 < times.median < math.inf


@given(st.lists(st.floats(1.0, 1e4), min_size=1, max_size=30))
def test_the_usual_run_time_lies_among_the_ends_and_the_expectation(runs):
    times = learn_from(*runs)
    assert min(*runs, 200.0) * 0.99 <= times.median <= max(*runs, 200.0) * 1.01
