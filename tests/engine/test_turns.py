"""Turns of the hourly limit and of an outage belong to the POSTs that leave: who sends nothing uses none up."""

from __future__ import annotations

import random
from decimal import Decimal

import anyio
import pytest
from virtual_journal import journal_at
from virtual_service import Service, always, on, prompts, reply, run, session_for

from kling_async import APIConnectionError, Limits, ResultState, VideoRequest
from kling_async._policy.budget import Budget
from kling_async.events import Notifier

LOST = reply(502, {"error": "bad gateway"})
REFUSED = APIConnectionError("refused", was_sent=False)
ONE_A_MINUTE = Limits(max_submits_per_hour=60, max_concurrent_submits=1)


async def submit(session, prompt):
    return await session.submit(VideoRequest(prompt, model="kling-v2-6"), Notifier())


async def session_in_an_outage(service):
    """A client that has just lost ten submits and more."""
    service.before.append(always("submit", LOST))
    session = session_for(service)
    await run(service, prompts(40), session=session)
    service.before.clear()
    await anyio.sleep(60)
    return session


@pytest.mark.parametrize("seed", range(3))
async def test_look_alikes_of_a_lost_submit_use_no_turn_of_an_outage_up(seed):
    service = Service(run_time=10.0)
    session = await session_in_an_outage(service)
    service.before += [on("submit", LOST), always("list", LOST)]
    began, times = anyio.current_time(), []

    async def submit_later():
        await anyio.sleep(0.3 * (seed + 1))
        await submit(session, "another one")
        times.append(anyio.current_time() - began)
        scope.cancel()

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(submit, session, "rain")
            tasks.start_soon(submit_later)

    assert times == [pytest.approx(30.0, abs=1.0)]


async def test_a_post_that_no_connection_was_made_for_uses_no_turn_of_an_outage_up():
    service = Service(run_time=10.0)
    session = await session_in_an_outage(service)
    service.before.append(on("submit", REFUSED, REFUSED))
    began = anyio.current_time()
    await submit(session, "rain")
    assert anyio.current_time() - began < 5


@pytest.mark.parametrize("refusals", [1, 5])
async def test_a_post_that_no_connection_was_made_for_uses_no_hourly_turn_up(refusals):
    service = Service(before=[on("submit", *[REFUSED] * refusals)])
    session = session_for(service, limits=ONE_A_MINUTE)
    await submit(session, "rain")
    assert anyio.current_time() < 30
    await submit(session, "snow")
    assert service.posts == refusals + 2
    assert 60 <= anyio.current_time() < 90


async def test_a_retry_with_a_journal_uses_no_second_hourly_turn_up(tmp_path):
    service = Service(run_time=1.0, before=[on("submit", REFUSED, REFUSED)])
    with journal_at(tmp_path / "run.db") as journal:
        results = await run(service, ["rain", "snow"], journal=journal, limits=ONE_A_MINUTE)
    assert all(result.ok for result in results)
    assert 60 <= anyio.current_time() < 90


@pytest.mark.parametrize("seed", range(3))
async def test_submits_leave_in_the_order_in_which_they_came(seed):
    service = Service(run_time=5.0, latency=0.3)
    session = session_for(service, limits=Limits(max_submits_per_hour=60, max_concurrent_submits=16))
    moments = random.Random(seed)  # noqa: S311 - no secret
    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(submit, session, f"prompt {number:02}")
            await anyio.sleep(moments.uniform(0, 0.7))
    sent = [job.payload["prompt"] for job in service.jobs.values()]
    assert sent == sorted(sent)
    assert anyio.current_time() == pytest.approx((30 - 16) * 60, abs=60)  # 16 of them leave at once


async def test_who_is_cancelled_in_the_line_holds_no_other_one_back():
    service = Service(run_time=5.0)
    session = session_for(service, limits=Limits(max_submits_per_hour=60, max_concurrent_submits=4))
    async with anyio.create_task_group() as tasks:
        for number in range(4):  # as many as leave at once
            tasks.start_soon(submit, session, f"prompt {number}")
        await anyio.sleep(1)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as cancelled:
                cancelled.start_soon(submit, session, "cancelled as the first")
                await anyio.sleep(1)
                tasks.start_soon(submit, session, "next")
                await anyio.sleep(1)
                cancelled.start_soon(submit, session, "cancelled as the last")
                await anyio.sleep(1)
                scope.cancel()
        tasks.start_soon(submit, session, "last")
    sent = [job.payload["prompt"] for job in service.jobs.values()]
    assert sent[4:] == ["next", "last"]
    assert 120 <= anyio.current_time() < 130


async def test_an_item_above_the_cap_uses_no_hourly_turn_up():
    service = Service(run_time=10.0)
    session = session_for(service, limits=ONE_A_MINUTE)
    [result] = await run(service, ["rain"], session=session, budget=Budget({"kling-v2-6": Decimal(2)}, 1))
    assert result.state is ResultState.NOT_SUBMITTED
    await submit(session, "snow")
    assert anyio.current_time() < 1


async def test_a_batch_that_has_stopped_waits_for_no_pause():
    """The first answer is a long pause, in which the second one stops the batch."""

    def slow_down(request, service):
        service.latency += 1.0

    throttled, stopping = reply(429, {"error": "no"}, {"retry-after": "600"}), reply(402, {"error": "no"})
    service = Service(before=[slow_down, on("submit", throttled, *[stopping] * 20)])
    results = await run(service, prompts(2), at_once=2)
    assert {result.state for result in results} == {ResultState.NOT_SUBMITTED}
    assert (service.posts, anyio.current_time() < 10) == (2, True)


async def test_a_batch_that_has_stopped_waits_for_no_hourly_turn():
    service = Service(latency=5.0, before=[always("submit", reply(402, {"error": "no credits"}))])
    limits = Limits(max_submits_per_hour=2, max_concurrent_submits=4)
    results = await run(service, prompts(4), at_once=4, limits=limits)
    assert {result.state for result in results} == {ResultState.NOT_SUBMITTED}
    assert (service.posts, anyio.current_time() < 10) == (2, True)
