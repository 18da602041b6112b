"""A client keeps its rates, its pauses and the owners of jobs when its event loop ends and another one begins."""

from __future__ import annotations

import asyncio

import anyio
import attrs
import pytest
from virtual_service import Service, always, on, reply, session_for

from kling_async import AmbiguousSubmitError, APIConnectionError, Limits, VideoRequest
from kling_async._engine.session import LoopSession
from kling_async.events import Notifier

LOST = APIConnectionError("the connection was lost")
REQUEST = VideoRequest("an eagle", model="kling-v2-6")


def next_loop(session):
    """The session of the same client in its next event loop."""
    return LoopSession.open(session.api, session.shared)


async def test_the_hourly_rate_holds_over_event_loops():
    service = Service()
    session = session_for(service, limits=Limits(max_submits_per_hour=60, max_concurrent_submits=1))
    await session.submit(REQUEST, Notifier())
    await next_loop(session).submit(REQUEST, Notifier())
    assert anyio.current_time() == pytest.approx(60, abs=1)


async def test_a_pause_holds_over_event_loops():
    service = Service(before=[on("submit", reply(429, headers={"retry-after": "40"}))])
    session = session_for(service)
    with anyio.move_on_after(5):
        await session.submit(REQUEST, Notifier())
    await next_loop(session).submit(REQUEST, Notifier())
    assert anyio.current_time() >= 40


async def test_a_job_of_an_earlier_event_loop_is_not_matched():
    service = Service(before=[on("submit", None, LOST)])
    session = session_for(service)
    await session.submit(REQUEST, Notifier())
    with pytest.raises(AmbiguousSubmitError):
        await next_loop(session).submit(REQUEST, Notifier())


async def test_the_job_of_a_post_that_the_end_of_an_event_loop_cut_off_is_not_matched_to_another_submit():
    service = Service(latency=1.0)
    session = session_for(service)
    others = asyncio.all_tasks()
    submit = asyncio.ensure_future(session.submit(attrs.evolve(REQUEST, duration=10), Notifier()))
    await anyio.sleep(0.5)
    for task in asyncio.all_tasks() - others:  # as asyncio.run does
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submit
    service.answer("submit", service.requests[-1])  # the service has taken it all the same
    service.before.append(always("submit", LOST))
    with pytest.raises(AmbiguousSubmitError):
        await next_loop(session).submit(REQUEST, Notifier())
