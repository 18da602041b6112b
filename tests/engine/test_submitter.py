from __future__ import annotations

import asyncio
import logging

import anyio
import pytest
from virtual_service import Service, always, on, reply, session_for

from kling_async import (
    AmbiguousSubmitError,
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    JobStatus,
    Limits,
    RateLimitError,
    RetryPolicy,
    VideoRequest,
)
from kling_async.events import Notifier, Retrying, Submitted, Throttled

REQUEST = VideoRequest("an eagle", model="kling-v2-6", duration=10, sound=True)


async def submit(service, notify=None, **settings):
    return await session_for(service, **settings).submit(REQUEST, Notifier(notify))


async def test_a_submit_is_one_post_with_the_payload_of_the_request():
    service = Service()
    job = await submit(service)
    assert service.posts == 1
    assert (job.request_id, job.status) == ("job-0", JobStatus.PROCESSING)
    assert service.jobs["job-0"].payload == {"prompt": "an eagle", "sound": "on", "duration": "10"}


@pytest.mark.parametrize(
    "lost",
    [
        reply(500, {"error": "Backend error (400). Please try again."}),
        reply(502, b"<html>Bad Gateway</html>"),
        reply(408, {"error": "timeout"}),
        reply(200, b"{half a js"),
        reply(200, {"status": "queued"}),
        reply(200, []),
        APIConnectionError("the connection was lost"),
        APITimeoutError("no answer"),
    ],
    ids=["500", "502 page", "408", "half", "no id", "list", "dropped", "stalled"],
)
async def test_a_post_of_unknown_fate_is_never_sent_again(lost):
    service = Service(before=[always("submit", lost)])
    with pytest.raises(AmbiguousSubmitError) as caught:
        await submit(service)
    assert service.posts == 1
    assert caught.value.status_code == getattr(lost, "status", None)
    assert "not sent again" in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [{"request_id": "job-0"}, {"request_id": "job-0", "status": 7}, {"request_id": "job-0", "status": None}],
)
async def test_an_odd_answer_that_names_an_id_is_a_job(answer):
    job = await submit(Service(after=[on("submit", reply(200, answer))]))
    assert (job.request_id, job.status, job.model) == ("job-0", JobStatus.UNKNOWN, "kling-v2-6")


async def test_a_post_that_never_connected_is_sent_again_after_a_growing_pause():
    refused = APIConnectionError("refused", was_sent=False)
    events = []
    service = Service(before=[on("submit", refused, refused)])
    await submit(service, events.append)
    assert service.posts == 3
    assert [type(event) for event in events] == [Retrying, Retrying, Submitted]
    assert events[0].delay < events[1].delay


async def test_a_service_that_cannot_be_reached_ends_the_submit_with_its_error():
    refused = APIConnectionError("refused", was_sent=False)
    service = Service(before=[always("submit", refused)])
    with pytest.raises(APIConnectionError):
        await submit(service, retry=RetryPolicy(max_retries=2))
    assert service.posts == 3


async def test_a_refusal_is_raised_as_it_is():
    service = Service(before=[always("submit", reply(400, {"error": "missing prompt"}))])
    with pytest.raises(BadRequestError, match="missing prompt"):
        await submit(service)
    assert service.posts == 1


async def test_the_services_wish_is_the_pause_after_a_429():
    events = []
    service = Service(before=[on("submit", reply(429, {"error": "slow"}, {"retry-after": "7"}))])
    await submit(service, events.append)
    assert anyio.current_time() == pytest.approx(7.0)
    assert [type(event) for event in events] == [Throttled, Submitted]


async def test_429_without_a_wish_pauses_longer_each_time_and_is_raised_in_the_end():
    events = []
    service = Service(before=[always("submit", reply(429, b""))])
    with pytest.raises(RateLimitError):
        await submit(service, events.append, retry=RetryPolicy(max_retries=3))
    delays = [event.delay for event in events]
    assert len(delays) == 3
    assert delays[0] < delays[-1]
    assert min(delays) >= 1.0


async def test_one_sign_of_throttling_holds_back_all_submits_of_the_client():
    service = Service(before=[on("submit", reply(429, b"", {"retry-after": "30"}))])
    session = session_for(service)
    sent_at = []

    async def one():
        await session.submit(REQUEST, Notifier(lambda _: sent_at.append(anyio.current_time())))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        await anyio.sleep(1)
        tasks.start_soon(one)
    assert min(sent_at[1:]) >= 30


async def test_submits_at_once_are_bounded():
    service = Service(latency=1.0)
    session = session_for(service, limits=Limits(max_concurrent_submits=3))
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(session.submit, REQUEST, Notifier())
    assert service.most_at_once["submit"] == 3
    assert anyio.current_time() == pytest.approx(4.0)


async def test_submits_an_hour_are_bounded():
    service = Service()
    session = session_for(service, limits=Limits(max_concurrent_submits=4, max_submits_per_hour=60))
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(session.submit, REQUEST, Notifier())
    assert anyio.current_time() == pytest.approx(6 * 60)


@pytest.mark.parametrize("how", ["timeout", "task", "scope"])
async def test_cancelling_a_post_in_flight_keeps_its_id(how, caplog):
    caplog.set_level(logging.INFO, "kling_async")
    events = []
    session = session_for(Service(latency=5.0))

    async def call():
        await session.submit(REQUEST, Notifier(events.append))

    if how == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await call()
    elif how == "task":
        task = asyncio.ensure_future(call())
        await anyio.sleep(1)
        task.cancel()
        await anyio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with anyio.move_on_after(1) as scope:
            await call()
        assert scope.cancelled_caught
    assert anyio.current_time() == pytest.approx(5.0)
    assert [event.request_id for event in events] == ["job-0"]
    assert "job-0" in caplog.text


async def test_cancelling_before_the_post_sends_nothing():
    service = Service(before=[on("submit", reply(429, b"", {"retry-after": "60"}))])
    with anyio.move_on_after(10):
        await submit(service)
    assert service.posts == 1
    assert service.jobs == {}
