"""One session under several options."""

from __future__ import annotations

import anyio
import pytest
from virtual_service import Service, on, reply, run, session_for

from kling_async import Limits, PollingPolicy, RetryPolicy, VideoRequest, WaitTimeoutError
from kling_async._journal.open_journal import open_journal
from kling_async._policy.lost_submit import CLOCK_SKEW
from kling_async.events import Notifier

POLLING, RETRY = PollingPolicy(), RetryPolicy()


def view_of(session, *, timeout=60.0, retry=RETRY, polling=POLLING):
    return session.with_options(timeout=timeout, retry=retry, polling=polling)


async def test_a_view_shares_the_pause_after_a_429():
    service = Service(before=[on("submit", reply(429, b"", {"retry-after": "30"}))])
    session = session_for(service)
    began = session.api.clock.now()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(view_of(session).submit, VideoRequest("a"), Notifier())
        await session.api.clock.sleep(1)
        await session.submit(VideoRequest("b"), Notifier())
    assert session.api.clock.now() - began >= 30


async def test_a_view_shares_the_slots_for_submits():
    service = Service(latency=5.0)
    session = session_for(service, limits=Limits(max_concurrent_submits=1, max_polls_per_second=1e6))
    began = session.api.clock.now()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.submit, VideoRequest("a"), Notifier())
        tasks.start_soon(view_of(session).submit, VideoRequest("b"), Notifier())
    assert session.api.clock.now() - began >= 10


async def test_a_view_calls_with_its_own_timeout_and_retries():
    service = Service(before=[on("status", *[reply(503, b"")] * 3)])
    session = session_for(service)
    job = await session.submit(VideoRequest("a"), Notifier())
    view = view_of(session, timeout=3.0, retry=RetryPolicy(max_retries=3))
    assert (await view.get_job(job.request_id, Notifier())).request_id == job.request_id
    parts = (view, view.submitter, view.downloader)
    assert {part.api.timeout for part in parts} == {3.0}
    assert session.api.timeout == session.submitter.api.timeout == 60.0


async def test_a_view_with_a_longer_timeout_makes_the_session_remember_job_ids_for_longer():
    session = session_for(Service())
    view_of(session, timeout=300.0)
    view_of(session, timeout=10.0)
    assert session.shared.job_owners.span == 300.0 + 2 * CLOCK_SKEW


async def test_views_with_other_deadlines_share_the_poller():
    session = session_for(Service(run_time=60.0))
    hasty = PollingPolicy(wait_timeout=5, use_lists="never")
    job = await session.submit(VideoRequest("a"), Notifier())
    with pytest.raises(WaitTimeoutError):
        await view_of(session, polling=hasty).wait(job, Notifier())
    assert (await session.wait(job, Notifier())).is_success
    assert view_of(session, polling=hasty).poller is session.poller


async def test_a_view_makes_no_further_call_for_a_time_that_no_answer_shows(tmp_path):
    service, polling = Service(ahead=None), PollingPolicy(use_lists="never")
    session = session_for(service)
    with open_journal(tmp_path / "run.db") as journal:
        for prompt in ("a", "b"):
            await run(service, [prompt], session=view_of(session, polling=polling), journal=journal)
    assert (service.calls["submit"], service.calls["list"]) == (2, 1)
