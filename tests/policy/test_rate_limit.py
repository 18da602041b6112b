from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.rate_limit import Limits, TokenBucket


def turns_of(bucket, steps):
    """The times at which callers get their turns; each arrives so many seconds after the one before."""
    now, turns = 0.0, []
    for step in steps:
        now += step
        turns.append(now + bucket.take(now))
    return turns


RATES = st.floats(0.001, 1000)
STEPS = st.lists(st.one_of(st.just(0.0), st.floats(0, 100)), min_size=2, max_size=40)


@given(rate=RATES, burst=st.integers(1, 20), steps=STEPS)
def test_no_interval_has_more_turns_than_the_rate_and_one_burst(rate, burst, steps):
    turns = turns_of(TokenBucket(rate=rate, burst=burst), steps)
    for first, begin in enumerate(turns):
        for last in range(first, len(turns)):
            assert last - first + 1 <= burst + rate * (turns[last] - begin) * (1 + 1e-9) + 1e-6


@given(rate=RATES, burst=st.integers(1, 20), steps=STEPS)
def test_turns_come_in_the_order_of_the_calls(rate, burst, steps):
    turns = turns_of(TokenBucket(rate=rate, burst=burst), steps)
    assert all(later >= earlier - 1e-9 * max(1.0, earlier) for earlier, later in pairwise(turns))


@given(rate=RATES, burst=st.integers(1, 20))
def test_a_full_bucket_gives_its_burst_at_once_and_then_the_rate(rate, burst):
    bucket = TokenBucket(rate=rate, burst=burst)
    waits = [bucket.take(0.0) for _ in range(burst + 3)]
    assert waits == pytest.approx([0.0] * burst + [1 / rate, 2 / rate, 3 / rate], abs=1e-9)


def test_an_idle_bucket_fills_up_to_its_burst_and_no_further():
    bucket = TokenBucket(rate=1.0, burst=2)
    assert [bucket.take(0.0), bucket.take(0.0), bucket.take(0.0)] == [0.0, 0.0, 1.0]
    assert [bucket.take(1000.0), bucket.take(1000.0), bucket.take(1000.0)] == [0.0, 0.0, 1.0]


def test_calls_slower_than_the_rate_never_wait():
    bucket = TokenBucket(rate=10.0, burst=1)
    assert [bucket.take(n * 0.11) for n in range(50)] == [0.0] * 50


def test_an_unlimited_rate_never_waits():
    bucket = TokenBucket(rate=math.inf, burst=math.inf)
    assert [bucket.take(0.0) for _ in range(1000)] == [0.0] * 1000


@given(rate=RATES, burst=st.integers(1, 20), steps=STEPS)
def test_a_look_says_how_long_the_next_turn_takes_and_takes_none(rate, burst, steps):
    bucket, now = TokenBucket(rate=rate, burst=burst), 0.0
    for step in steps:
        now += step
        waits = [bucket.wait(now), bucket.wait(now), bucket.take(now)]
        assert waits == [waits[0]] * 3


@given(burst=st.integers(1, 20), steps=STEPS)
def test_turns_that_are_put_back_are_there_for_others_and_fill_no_bucket_beyond_its_burst(burst, steps):
    bucket, now = TokenBucket(rate=1.0, burst=burst), 0.0
    for step in steps:
        now += step
        if bucket.wait(now) == 0:
            bucket.take(now)
            bucket.put_back()
    assert sum(bucket.take(now) < 1e-9 for _ in range(burst + 3)) == burst


@pytest.mark.parametrize("taken", [0, 1])
def test_an_unlimited_rate_takes_turns_back(taken):
    bucket = TokenBucket(rate=math.inf, burst=1.0)
    for _ in range(taken):
        bucket.take(0.0)
    bucket.put_back()
    assert bucket.wait(0.0) == 0.0


def test_limits_can_be_none_or_infinite():
    limits = Limits(max_polls_per_second=math.inf, max_submits_per_hour=None)
    assert limits == Limits(max_polls_per_second=math.inf)
