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
def test_the_window_stays_between_one_and_the_callers_bound(limit, events):
    window, now = ConcurrencyLimit(limit), 0.0
    for event in events:
        if event is None:
            window.accepted()
        else:
            step, pause, alive = event
            now += step
            window.throttled(now=now, pause=pause, alive=alive)
        assert 1 <= window.room <= limit
        assert 1 <= window.size <= limit


def test_a_batch_starts_with_all_that_the_caller_allows():
    assert ConcurrencyLimit(50).room == 50


def test_a_refusal_halves_the_window_once_for_each_pause():
    window = ConcurrencyLimit(64)
    for late in (0.0, 1.0, 9.9):
        window.throttled(now=100.0 + late, pause=10.0, alive=64)
        assert window.room == 32
    window.throttled(now=119.9, pause=10.0, alive=32)
    assert window.room == 16


def test_a_window_wider_than_what_is_alive_is_no_evidence_of_room():
    window = ConcurrencyLimit(64)
    window.throttled(now=0.0, pause=1.0, alive=10)
    assert window.room == 5


@pytest.mark.parametrize("alive", [0, 1])
def test_one_job_may_always_be_alive(alive):
    window = ConcurrencyLimit(64)
    window.throttled(now=0.0, pause=1.0, alive=alive)
    assert window.room == 1


def test_every_full_window_of_accepted_submits_lets_it_grow_by_one():
    window = ConcurrencyLimit(64)
    window.throttled(now=0.0, pause=1.0, alive=20)
    for room in range(10, 14):
        assert window.room == room
        for _ in range(room + 1):
            window.accepted()


@given(limit=st.integers(1, 60))
def test_the_window_grows_back_to_the_callers_bound(limit):
    window = ConcurrencyLimit(limit)
    window.throttled(now=0.0, pause=1.0, alive=0)
    for _ in range(limit * limit):
        window.accepted()
    assert window.room == limit
