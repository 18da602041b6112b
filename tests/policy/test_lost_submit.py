from __future__ import annotations

import pytest

from kling_async._policy.lost_submit import LostSubmit, is_fresh_intent, lost_submit, recorded_submit
from kling_async._policy.scan_delays import scan_delays
from kling_async._policy.service_clock import Instant

CAT = {"prompt": "a cat"}


@pytest.mark.parametrize(
    "sent, given_up",
    [
        ((0.0, None, 0), (60.0, None, 0)),
        ((0.0, None, 0), (60.0, 0.0, 0)),
        ((0.0, 0.0, 0), (60.0, 0.0, 0)),
        ((-600.0, 600.0, 0), (-540.0, 600.0, 0)),
        ((0.0, 0.0, 0), (-240.0, None, 1)),
        ((0.0, 0.0, 0), (-240.0, 300.0, 1)),
        ((0.0, 0.0, 0), (360.0, None, 1)),
        ((0.0, 0.0, 0), (360.0, -300.0, 1)),
        ((300.0, -300.0, 0), (60.0, 0.0, 1)),
        ((0.0, None, 0), (-240.0, 300.0, 1)),
    ],
    ids=[
        "clocks agree",
        "an answer came meanwhile",
        "service time",
        "clock of the machine is behind",
        "set back and not learned again",
        "set back",
        "set forward and not learned again",
        "set forward",
        "set right",
        "set back, and unknown before",
    ],
)
def test_the_window_of_a_lost_submit_is_by_the_service_clock_though_the_clock_of_the_machine_was_set(
    sent, given_up
):
    (sent_wall, sent_offset, sets_before), (wall, offset, sets) = sent, given_up
    lost = lost_submit(
        CAT,
        sent=Instant(wall=100.0 + sent_wall, monotonic=7.0, offset=sent_offset, clock_changes=sets_before),
        given_up=Instant(wall=100.0 + wall, monotonic=67.0, offset=offset, clock_changes=sets),
    )
    assert (lost.since, lost.until) == (40.0, 220.0)
    assert lost.is_service_time is (sent_offset is not None or offset is not None)


@pytest.mark.parametrize("offset", [None, 0.0])
def test_the_window_of_a_submit_during_which_the_machine_slept_begins_before_the_post(offset):
    sent = Instant(wall=100.0, monotonic=7.0, offset=offset, clock_changes=0)
    given_up = Instant(wall=3_760.0, monotonic=67.0, offset=0.0, clock_changes=1)
    lost = lost_submit(CAT, sent=sent, given_up=given_up)
    assert (lost.since, lost.until) == (40.0, 3_820.0)


def instant(wall, *, offset=None, clock_changes=0):
    return Instant(wall=wall, monotonic=0.0, offset=offset, clock_changes=clock_changes)


@pytest.mark.parametrize(
    "is_service_time, now, expected",
    [
        (True, instant(100.0, offset=600.0), 600.0),
        (True, instant(130.0, offset=0.0, clock_changes=1), 30.0),
        (True, instant(90.0, offset=0.0), 0.0),
        (True, instant(700.0), None),
        (False, instant(130.0), 30.0),
        (False, instant(130.0, offset=600.0), 30.0),
        (False, instant(730.0, clock_changes=1), None),
    ],
)
def test_the_age_of_a_submit_is_by_one_clock_or_unknown(is_service_time, now, expected):
    lost = LostSubmit(payload=CAT, since=40.0, until=160.0, is_service_time=is_service_time)
    assert lost.age(now) == expected


def test_the_age_of_a_submit_by_the_clock_of_an_earlier_process_is_unknown():
    lost = recorded_submit(CAT, sent_at=100.0, timeout=60.0, is_service_time=False, clock_changes=0)
    assert lost.age(instant(130.0, offset=600.0)) is None


@pytest.mark.parametrize("timeout, last", [(10.0, 175.0), (60.0, 225.0), (300.0, 465.0)])
def test_the_window_of_a_recorded_submit_ends_with_the_timeout_of_its_sender(timeout, last):
    recorded = recorded_submit(CAT, sent_at=100.0, timeout=timeout, is_service_time=True, clock_changes=0)
    assert (recorded.since, recorded.until) == (40.0, last)
    # It covers an answer that comes at the last moment, and is searched for until then.
    assert recorded.max_answer_age < recorded.until - 100.0
    assert sum(scan_delays(0.0, search_until_age=recorded.max_answer_age)) >= timeout + 5.0


@pytest.mark.parametrize(
    "seconds, is_fresh", [(0.0, True), (5.0, True), (5.1, False), (-5.0, True), (-5.1, False)]
)
def test_a_post_begins_only_around_the_recorded_time_of_its_intent(seconds, is_fresh):
    assert is_fresh_intent(instant(100.0, offset=0.0), now=instant(100.0 + seconds)) is is_fresh
