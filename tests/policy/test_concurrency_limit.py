from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.concurrency_limit import ConcurrencyLimit

EVENTS = st.lists(
    st.one_of(
        st.just(None),
        st.tuples(st.floats(0, 100), st.floats(0, 100), st.integers(0, 200)),
    ),
    max_size=60,
)


@given(limit=st.integers(1, 200), events=EVENTS)
def test_the_limit_stays_between_one_and_the_callers_bound(limit, events):
    current_limit, now = ConcurrencyLimit(limit), 0.0
    for event in events:
        if event is None:
            current_limit.grow()
        else:
            step, pause, in_flight = event
            now += step
            current_limit.in_flight = in_flight
            current_limit.shrink(now=now, pause=pause)
        assert 1 <= current_limit.current <= limit
        assert 1 <= current_limit._size <= limit


def test_a_batch_starts_with_the_callers_limit():
    assert ConcurrencyLimit(50).current == 50


def test_a_throttle_halves_the_limit_once_for_each_pause():
    current_limit = ConcurrencyLimit(64)
    for seconds in (0.0, 1.0, 9.9):
        current_limit.in_flight = 64
        current_limit.shrink(now=100.0 + seconds, pause=10.0)
        assert current_limit.current == 32
    current_limit.in_flight = 32
    current_limit.shrink(now=119.9, pause=10.0)
    assert current_limit.current == 16


def test_an_unused_limit_shrinks_to_half_of_the_jobs_in_flight():
    current_limit = ConcurrencyLimit(64)
    current_limit.in_flight = 10
    current_limit.shrink(now=0.0, pause=1.0)
    assert current_limit.current == 5


@pytest.mark.parametrize("in_flight", [0, 1])
def test_one_job_can_always_be_in_flight(in_flight):
    current_limit = ConcurrencyLimit(64)
    current_limit.in_flight = in_flight
    current_limit.shrink(now=0.0, pause=1.0)
    assert current_limit.current == 1


def test_as_many_accepted_submits_as_the_limit_let_it_grow_by_one():
    current_limit = ConcurrencyLimit(64)
    current_limit.in_flight = 20
    current_limit.shrink(now=0.0, pause=1.0)
    for size in range(10, 14):
        assert current_limit.current == size
        for _ in range(size + 1):
            current_limit.grow()


@given(limit=st.integers(1, 60))
def test_the_limit_grows_back_to_the_callers_bound(limit):
    current_limit = ConcurrencyLimit(limit)
    current_limit.in_flight = 0
    current_limit.shrink(now=0.0, pause=1.0)
    for _ in range(limit * limit):
        current_limit.grow()
    assert current_limit.current == limit


def test_a_slot_is_in_use_from_when_it_is_taken_until_it_is_free_again():
    limit = ConcurrencyLimit(2)
    limit.take_slot()
    assert limit.has_slot
    limit.take_slot()
    assert not limit.has_slot
    limit.free_slot()
    assert (limit.has_slot, limit.in_flight) == (True, 1)
