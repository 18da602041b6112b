from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.listing import list_burden, list_cost, list_delay, stands_for
from kling_async._policy.runtimes import RunTimes
from kling_async._policy.stage import Stage


@pytest.fixture(scope="module")
def stage():
    stage = Stage(RunTimes(expected=60.0), 30.0)
    dice = random.Random(1)  # noqa: S311 - samples, no secret
    for _ in range(300):
        run = 60.0 * math.exp(dice.gauss(0, 0.35))
        stage.times.began()
        stage.times.finished(run, before=0.0, exact=run)
    stage.learn(0.0)
    stage.plan(lag=1.0)
    return stage


crowds = st.lists(st.tuples(st.floats(0.0, 1e5), st.integers(1, 10**5)), max_size=10)


def test_rows_cost_less_than_calls():
    assert list_cost(calls=2, rows=0) == 2
    assert 2 < list_cost(calls=2, rows=20) < list_burden(calls=2, rows=20) < 22


def test_a_list_stands_for_as_many_calls_as_there_are_jobs_of_one_age(stage):
    assert stands_for([(stage, 60.0, 200)], longest=30.0) == pytest.approx(200)


def test_jobs_that_will_not_end_soon_hardly_count(stage):
    assert stands_for([(stage, 60.0, 10), (stage, 1.0, 3)], longest=1e6) == pytest.approx(10, rel=0.1)


def test_no_jobs_need_no_list(stage):
    assert stands_for([], longest=30.0) == 0.0
    assert list_delay([], burden=10.0, shortest=0.2, longest=30.0) == 30.0


def test_the_next_list_comes_when_jobs_are_likely_to_have_ended(stage):
    young = list_delay([(stage, 0.5, 200)], burden=10.0, shortest=0.2, longest=30.0)
    ripe = list_delay([(stage, 60.0, 200)], burden=10.0, shortest=0.2, longest=30.0)
    assert ripe < 2.0 < young


def test_twice_the_jobs_at_twice_the_burden_keep_the_pace(stage):
    one = list_delay([(stage, 60.0, 100)], burden=10.0, shortest=0.01, longest=30.0)
    two = list_delay([(stage, 60.0, 200)], burden=20.0, shortest=0.01, longest=30.0)
    assert two == pytest.approx(one)


@given(crowds, st.floats(0.1, 1e4), st.floats(0.01, 5.0), st.floats(0.02, 100.0))
def test_the_delay_keeps_its_bounds(stage, crowd, burden, shortest, longest):
    delay = list_delay(
        [(stage, age, count) for age, count in crowd], burden=burden, shortest=shortest, longest=longest
    )
    assert shortest <= delay <= max(shortest, longest)


@given(crowds.filter(bool), st.floats(0.1, 1e3), st.floats(1.0, 10.0))
def test_a_heavier_list_is_never_asked_for_sooner(stage, crowd, burden, factor):
    jobs = [(stage, age, count) for age, count in crowd]
    light = list_delay(jobs, burden=burden, shortest=0.2, longest=30.0)
    heavy = list_delay(jobs, burden=burden * factor, shortest=0.2, longest=30.0)
    assert heavy >= light - 1e-9


@given(crowds)
def test_a_list_never_stands_for_more_jobs_than_there_are(stage, crowd):
    worth = stands_for([(stage, age, count) for age, count in crowd], longest=30.0)
    assert math.isfinite(worth)
    assert 0 <= worth <= sum(count for _, count in crowd) * (1 + 1e-9)
