from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.service_clock import ServiceClock

NOON = 1_800_000_000.0
FAR = "Fri, 31 Dec 9999 23:59:59 GMT"


def learn(clock, at, *, ahead, latency=0.2):
    """One answer of a service whose clock is ahead."""
    date = formatdate(int(at + latency / 2 + ahead), usegmt=True)
    clock.learn(date, sent_at=at, received_at=at + latency)


def test_a_clock_that_no_answer_has_shown_is_unknown_and_taken_for_ours():
    now = ServiceClock().read(wall=NOON, monotonic=0.0)
    assert (now.offset, now.time) == (None, NOON)


@given(st.floats(-1e6, 1e6), st.floats(0, 5), st.floats(0, 1))
def test_one_answer_shows_the_offset_to_the_second_and_its_latency(ahead, latency, fraction):
    clock = ServiceClock()
    learn(clock, NOON + fraction, ahead=ahead, latency=latency)
    assert clock.offset == pytest.approx(ahead, abs=1 + latency)
    assert clock.read(wall=NOON, monotonic=0.0).time == NOON + clock.offset


def test_answers_that_agree_narrow_the_offset():
    clock = ServiceClock()
    for step in range(20):
        learn(clock, NOON + 20.35 * step, ahead=600.0)
    assert clock.offset == pytest.approx(600.0, abs=0.2)


@pytest.mark.parametrize("ahead", [0.0, -3600.0])
def test_a_clock_that_was_set_is_learned_again(ahead):
    clock = ServiceClock()
    learn(clock, NOON, ahead=600.0)
    learn(clock, NOON + 60, ahead=ahead)
    assert clock.offset == pytest.approx(ahead, abs=1.2)


@pytest.mark.parametrize("date", [None, "", "yesterday", "Thu, 99 Nov 2026 00:00:00 GMT", "9" * 400, FAR])
def test_a_date_that_cannot_be_read_changes_nothing(date):
    clock = ServiceClock()
    learn(clock, NOON, ahead=600.0)
    before = clock.offset
    clock.learn(date, sent_at=NOON, received_at=NOON)
    assert clock.offset == before


@pytest.mark.parametrize("latency", [21.0, 968.0])
def test_an_answer_of_a_call_in_which_the_process_may_have_stood_still_shows_no_clock(latency):
    clock = ServiceClock()
    learn(clock, NOON, ahead=600.0, latency=latency)
    assert clock.offset is None

    learn(clock, NOON + 2 * latency, ahead=600.0)
    before = clock.offset
    learn(clock, NOON + 3 * latency, ahead=900.0, latency=latency)
    assert clock.offset == before == pytest.approx(600.0, abs=1.2)


def test_a_date_without_a_zone_is_one_in_utc():
    clock = ServiceClock()
    clock.learn("Thu, 26 Nov 2026 12:00:00", sent_at=1795694400.0, received_at=1795694400.0)
    assert clock.offset == pytest.approx(0.5)


def test_a_clock_of_ours_that_goes_back_during_a_call_gives_an_offset_all_the_same():
    clock = ServiceClock()
    clock.learn(formatdate(NOON, usegmt=True), sent_at=NOON + 100, received_at=NOON)
    assert clock.offset == 0.0


def test_only_a_success_is_read_and_not_each_one():
    clock = ServiceClock()
    assert clock.wants(200, wall=NOON)
    assert not any(clock.wants(status, wall=NOON) for status in (302, 404, 502))
    learn(clock, NOON, ahead=0.0)
    assert [clock.wants(200, wall=NOON + after) for after in (1, 11, -60)] == [False, True, True]


@pytest.mark.parametrize("step", [-300.0, -5.1, 5.1, 300.0, 1e9])
def test_the_offset_is_unknown_once_the_clock_of_the_machine_was_set_or_the_machine_slept(step):
    clock = ServiceClock()
    learn(clock, NOON, ahead=600.0)
    before = clock.read(wall=NOON, monotonic=100.0)
    after = clock.read(wall=NOON + 10.0 + step, monotonic=110.0)
    assert (before.offset is None, after.offset, after.clock_changes) == (
        False,
        None,
        before.clock_changes + 1,
    )
    learn(clock, NOON + 10.0 + step, ahead=600.0 - step)
    again = clock.read(wall=NOON + 20.0 + step, monotonic=120.0)
    assert again.offset == pytest.approx(600.0 - step, abs=1.2)
    assert again.clock_changes == after.clock_changes


@pytest.mark.parametrize("step", [-5.0, 0.0, 5.0])
def test_two_clocks_of_a_machine_drift_apart_by_a_little(step):
    clock = ServiceClock()
    learn(clock, NOON, ahead=600.0)
    before = clock.read(wall=NOON, monotonic=100.0)
    after = clock.read(wall=NOON + 1000.0 + step, monotonic=1100.0)
    assert (after.offset, after.clock_changes) == (before.offset, before.clock_changes)


def test_a_call_for_the_time_is_made_while_the_time_is_unknown_and_once_after_each_clock_change():
    clock = ServiceClock()
    before = clock.read(wall=NOON, monotonic=100.0)
    assert clock.wants_call(before)
    clock.record_call(before)  # its answer had no `Date`
    assert not clock.wants_call(clock.read(wall=NOON + 1.0, monotonic=101.0))
    after = clock.read(wall=NOON + 300.0, monotonic=102.0)
    assert clock.wants_call(after)
    learn(clock, NOON + 301.0, ahead=0.0)
    assert not clock.wants_call(clock.read(wall=NOON + 302.0, monotonic=104.0))


def test_a_clock_change_during_the_call_for_the_time_makes_a_further_call():
    clock = ServiceClock()
    began = clock.read(wall=NOON, monotonic=100.0)
    ended = clock.read(wall=NOON + 300.0, monotonic=101.0)
    clock.record_call(began)
    assert clock.wants_call(ended)
