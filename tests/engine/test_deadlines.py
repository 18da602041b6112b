from __future__ import annotations

import asyncio
import random

import anyio
import pytest

from kling_async import JobStatus, PollingPolicy, WaitTimeoutError
from kling_async._engine.clock import Clock
from kling_async._engine.poll.deadlines import Deadlines
from kling_async._engine.poll.tracked_job import TrackedJob

MODEL = "kling-v2-6"


def begin(clock, **policy):
    """A wait that begins now."""
    return TrackedJob(
        request_id="job-0",
        model=MODEL,
        index=None,
        api=None,
        emit=None,
        policy=PollingPolicy(**policy),
        final=asyncio.get_running_loop().create_future(),
        paced=None,
        waits_since=clock.now(),
        status=JobStatus.QUEUED,
        is_known=True,
    )


async def test_each_wait_ends_at_its_own_deadline_in_whatever_order_it_begins():
    clock, rng = Clock(), random.Random(1)  # noqa: S311 - a test
    deadlines, ended = Deadlines(clock), {}
    waits = [rng.choice([5.0, 20.0, 60.0, rng.uniform(1, 90)]) for _ in range(200)]
    for number, seconds in enumerate(waits):
        job = begin(clock, wait_timeout=seconds)
        job.final.add_done_callback(lambda _, number=number: ended.update({number: clock.now()}))
        deadlines.move(job)
    await anyio.sleep(100)
    assert ended == {number: pytest.approx(seconds, abs=1e-6) for number, seconds in enumerate(waits)}


async def test_the_error_says_how_long_the_wait_was():
    clock = Clock()
    job = begin(clock, wait_timeout=30)
    Deadlines(clock).move(job)
    with pytest.raises(WaitTimeoutError, match="after 30 s"):
        await job.final


async def test_a_change_of_the_status_puts_the_end_off_but_not_past_the_deadline():
    clock = Clock()
    deadlines, job = Deadlines(clock), begin(clock, wait_timeout=25, stall_timeout=10)
    deadlines.move(job)
    await anyio.sleep(8)
    deadlines.move(job)
    await anyio.sleep(9)
    assert not job.is_over
    deadlines.move(job)
    assert job.ends_at == pytest.approx(25)
    await anyio.sleep(8.1)
    assert job.is_over


async def test_a_wait_without_a_deadline_does_not_end():
    clock = Clock()
    deadlines, job = Deadlines(clock), begin(clock, wait_timeout=None)
    deadlines.move(job)
    deadlines.drop(job)
    await anyio.sleep(80_000)
    assert not job.is_over


async def test_a_job_that_is_dropped_does_not_time_out_and_the_others_do():
    clock = Clock()
    deadlines = Deadlines(clock)
    jobs = [begin(clock, wait_timeout=seconds) for seconds in (10, 20, 30)]
    for job in jobs:
        deadlines.move(job)
    deadlines.drop(jobs[0])
    await anyio.sleep(25)
    assert [job.is_over for job in jobs] == [False, True, False]
    deadlines.drop(jobs[1])
    await anyio.sleep(10)
    assert [job.is_over for job in jobs] == [False, True, True]


async def test_jobs_that_come_and_go_leave_nothing_behind():
    clock = Clock()
    deadlines, in_flight = Deadlines(clock), []
    for _ in range(3000):
        in_flight.append(begin(clock, wait_timeout=3600))
        deadlines.move(in_flight[-1])
        if len(in_flight) > 20:
            deadlines.drop(in_flight.pop(0))
        assert len(deadlines._queue._heap) <= 2 * len(in_flight) + 1
        await anyio.sleep(0.1)
    for job in in_flight:
        deadlines.drop(job)
    assert not deadlines._queue._heap
    assert deadlines._timer is None


async def test_a_wait_that_is_over_at_its_deadline_keeps_its_record():
    clock = Clock()
    job = begin(clock, wait_timeout=30)
    Deadlines(clock).move(job)
    job.final.set_result("the record")
    await anyio.sleep(40)
    assert job.final.result() == "the record"
