from __future__ import annotations

from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.list_evidence import closes_at
from kling_async._policy.lost_submit import LostSubmit
from kling_async._policy.scan_delays import proof_delays, scan_delays
from kling_async._policy.service_clock import Instant

LOST = LostSubmit(payload={"prompt": "a cat"}, since=40.0, until=160.0)
CLOSED = closes_at(LOST)


def by_the_service(time, *, ahead=0.0, clock_changes=0):
    return Instant(wall=time - ahead, monotonic=0.0, offset=ahead, clock_changes=clock_changes)


@given(st.floats(min_value=0, max_value=1e9))
def test_every_lost_submit_gets_two_scans_at_least_and_not_at_once(age):
    delays = scan_delays(age)
    assert len(delays) >= 2
    assert all(delay >= 0 for delay in delays)
    assert sum(delays) >= 2 or age + sum(delays) >= 30


def test_the_scans_for_a_fresh_lost_submit_grow_rarer_over_half_a_minute():
    delays = scan_delays(0)
    assert sum(delays) == 30
    assert all(before <= after for before, after in pairwise(delays[1:]))


@given(st.floats(min_value=0, max_value=100), st.floats(min_value=0, max_value=100))
def test_the_scans_last_until_another_process_waits_no_longer_for_the_answer(age, search_until_age):
    delays = scan_delays(age, search_until_age=search_until_age)
    assert age + sum(delays) >= search_until_age - 1e-6
    assert delays[: len(scan_delays(age))] == list(scan_delays(age))


def test_the_list_is_read_once_for_a_proof_if_the_window_has_closed():
    assert list(proof_delays(LOST, now=by_the_service(CLOSED), may_wait=False)) == [0.0]
    assert list(proof_delays(LOST, now=by_the_service(CLOSED - 1), may_wait=False)) == []


def test_a_caller_that_wants_the_proof_waits_until_the_window_closes_and_for_a_later_job():
    assert list(proof_delays(LOST, now=by_the_service(CLOSED - 30), may_wait=True)) == [30.0, 20.0, 40.0]
    assert list(proof_delays(LOST, now=by_the_service(CLOSED + 30), may_wait=True)) == [0.0, 20.0, 40.0]


def test_the_window_closes_by_the_service_clock():
    lost = attrs.evolve(LOST, is_service_time=False)
    now = by_the_service(CLOSED + 600.0 - 30, ahead=600.0)
    assert list(proof_delays(lost, now=now, may_wait=True)) == [30.0, 20.0, 40.0]


@pytest.mark.parametrize(
    "lost, now",
    [
        (LOST, Instant(wall=CLOSED, monotonic=0.0, offset=None, clock_changes=0)),
        (LOST, by_the_service(CLOSED, clock_changes=1)),
        (attrs.evolve(LOST, may_have_other_clock=True), by_the_service(CLOSED)),
    ],
    ids=["the service's clock is unknown", "a clock was set", "the time is by another clock"],
)
def test_the_list_is_not_read_for_a_proof_that_the_times_cannot_give(lost, now):
    assert list(proof_delays(lost, now=now, may_wait=True)) == []
