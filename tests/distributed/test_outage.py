"""How long an outage is ridden out, and when a shard is tried again."""

from __future__ import annotations

import pytest

from kling_async._distributed.outage import (
    MAX_OUTAGE,
    TRANSIENT_DELAY,
    Contact,
    Outage,
    delay_of_shard,
    next_outage,
)

TROUBLED, REACHED, BOTH = Contact(is_troubled=True), Contact(is_reached=True), Contact(True, True)


def ride_out(*, run_time, starts=1):
    """When an item ends that can never be submitted, and how often it was tried, with workers that start again and again."""
    outage, now, tries = None, 0.0, 0
    while outage is None or not outage.is_too_long(now=now):
        for _ in range(starts):
            outage, tries = next_outage(outage, TROUBLED, now=now), tries + 1
        now += outage.delay + run_time
    return now, tries


@pytest.mark.parametrize("run_time", [0.0, 12.0, 300.0])
@pytest.mark.parametrize("starts", [1, 50])
def test_an_outage_is_bound_by_time_and_not_by_how_often_shards_are_given_back(run_time, starts):
    now, tries = ride_out(run_time=run_time, starts=starts)

    assert MAX_OUTAGE < now <= MAX_OUTAGE + 600 + run_time
    assert tries / starts <= 15


def test_a_short_outage_is_over_for_the_batch_soon_after_it_is_over():
    outage = None
    for now in (0.0, 15.0, 45.0, 90.0):
        outage = next_outage(outage, TROUBLED, now=now)
        assert 15.0 <= outage.delay <= max(15.0, now)


def test_a_job_that_ends_begins_a_new_outage():
    long = Outage(0.0, MAX_OUTAGE)

    assert next_outage(long, REACHED, now=MAX_OUTAGE + 1) is None
    assert next_outage(long, BOTH, now=MAX_OUTAGE + 1) == Outage(MAX_OUTAGE + 1, MAX_OUTAGE + 1)
    assert next_outage(long, Contact(), now=MAX_OUTAGE + 1) is long
    assert next_outage(None, Contact(), now=1.0) is None


def test_a_time_without_a_try_is_no_part_of_an_outage():
    tried_in_the_morning = Outage(0.0, 60.0)

    assert not tried_in_the_morning.is_too_long(now=30_000.0)
    assert next_outage(tried_in_the_morning, TROUBLED, now=30_000.0) == Outage(30_000.0, 30_000.0)


LONG = Outage(0.0, 120.0)


@pytest.mark.parametrize(
    "shard, delay",
    [
        ({}, None),
        ({"pause": -5.0}, None),
        ({"pause": 7.5}, 7.5),
        ({"is_refused": True}, TRANSIENT_DELAY),
        ({"is_refused": True, "pause": 300.0}, TRANSIENT_DELAY),
        ({"is_refused": True, "is_stopping": True}, 0.0),
        ({"pause": 7.5, "is_stopping": True}, 0.0),
        ({"left": 0}, None),
        ({"left": 0, "outage": LONG, "is_stopping": True}, None),
        ({"left": 3}, TRANSIENT_DELAY),
        ({"left": 3, "outage": Outage(0.0, 0.0)}, 15.0),
        ({"left": 3, "outage": LONG}, 120.0),
        ({"left": 3, "outage": Outage(0.0, 3000.0)}, 600.0),
        ({"left": 3, "outage": LONG, "is_stopping": True}, 0.0),
    ],
)
def test_a_shard_is_tried_again_after_what_keeps_its_worker_from_it(shard, delay):
    assert delay_of_shard(**shard) == delay
