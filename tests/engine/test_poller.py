from __future__ import annotations

import asyncio
import logging

import anyio
import pytest
from virtual_service import FAILED, VIDEOS, Service, always, on, reply, run, session_for
from virtual_store import MemoryStore

from kling_async import (
    AmbiguousSubmitError,
    APIConnectionError,
    AuthenticationError,
    ClientClosedError,
    InvalidRequestError,
    Job,
    JobCancelledError,
    JobFailedError,
    JobStatus,
    KlingError,
    NotFoundError,
    PollingPolicy,
    ResultState,
    RetryPolicy,
    VideoRequest,
    WaitTimeoutError,
)
from kling_async._journal.journal import WriteAheadJournal
from kling_async.events import Finished, Notifier, PollFailed

PACE = PollingPolicy(poll_interval=1.0)


async def generate(service, notify=None, polling=PACE, **settings):
    session = session_for(service, polling=polling, **settings)
    job = await session.submit(VideoRequest("x"), Notifier())
    return await session.wait(job, Notifier(notify))


async def wait(service, request_id, polling=PACE):
    session = session_for(service, polling=polling)
    return await session.wait(Job(request_id=request_id, status=JobStatus.UNKNOWN), Notifier())


def final(status, **more):
    return reply(200, {"request_id": "job-0", "status": status, **more})


async def test_a_wait_ends_with_the_final_record():
    job = await generate(Service(run_time=60.0))
    assert job.video_url == f"{VIDEOS}/job-0.mp4"
    assert anyio.current_time() == pytest.approx(60.0, abs=1.1)


@pytest.mark.parametrize(
    "failure",
    [
        reply(500, b""),
        reply(503, b"<html>busy</html>"),
        reply(429, b"", {"retry-after": "5"}),
        reply(200, b"not json"),
        reply(200, {"request_id": "job-0"}),
        reply(401, {"error": "for a while"}),
        reply(404, {"error": "Request not found"}),
        APIConnectionError("reset"),
    ],
    ids=["500", "503", "429", "garbage", "no status", "401", "404", "reset"],
)
async def test_no_failed_poll_ends_a_wait(failure):
    events = []
    job = await generate(Service(run_time=60.0, before=[on("status", *[failure] * 12)]), events.append)
    assert job.is_success
    failed = [event for event in events if isinstance(event, PollFailed)]
    assert len(failed) == 12
    assert all(event.delay <= 30.0 for event in failed)
    assert isinstance(events[-1], Finished)


CLOSED = ClientClosedError("GET x: the client is closed.")


@pytest.mark.parametrize("kind, use_lists", [("status", "never"), ("list", "always")])
async def test_a_closed_client_ends_all_waits_and_the_log_names_the_jobs(kind, use_lists, caplog):
    service = Service(run_time=1e6)

    def close(request, service):
        return CLOSED if service.kind(request) == kind and anyio.current_time() > 100 else None

    service.before = [close]
    polling = PollingPolicy(use_lists=use_lists, wait_timeout=None)
    results = await run(service, ["a", "b", "c", "d", "e"], polling=polling, at_once=5)
    assert [result.state for result in results] == [ResultState.TIMED_OUT] * 5
    assert all("the client was closed" in result.error.message for result in results)
    assert all(isinstance(result.error.__cause__, ClientClosedError) for result in results)
    assert anyio.current_time() < 400
    [warning] = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert all(result.job.request_id in warning for result in results)


async def test_a_closed_client_sends_nothing_more_and_the_next_run_continues():
    service, journal = Service(run_time=200.0), WriteAheadJournal(MemoryStore())

    def close(request, service):
        return CLOSED if anyio.current_time() > 30 else None

    service.before = [close]
    first = await run(service, ["a", "b", "c"], at_once=2, journal=journal)
    states = sorted(result.state for result in first)
    assert states == [ResultState.NOT_SUBMITTED, ResultState.TIMED_OUT, ResultState.TIMED_OUT]
    service.before = []
    second = await run(service, ["a", "b", "c"], at_once=2, journal=journal)
    assert all(result.ok for result in second)
    assert len(service.jobs) == 3


async def test_a_lost_submit_of_a_closed_client_stays_ambiguous():
    service = Service(before=[always("list", CLOSED)], after=[on("submit", APIConnectionError("lost"))])
    with pytest.raises(AmbiguousSubmitError, match="the client is closed"):
        await session_for(service).submit(VideoRequest("x"), Notifier())
    assert service.posts == 1
    assert anyio.current_time() < 5


async def test_no_poll_is_put_off_for_longer_than_the_setting_allows():
    events = []
    refused = reply(503, b"", {"retry-after": "86400"})
    service = Service(run_time=60.0, before=[on("status", refused)])
    assert (await generate(service, events.append, retry=RetryPolicy(max_retry_after=90.0))).is_success
    [failed] = [event for event in events if isinstance(event, PollFailed)]
    assert failed.delay == 90.0


async def test_an_unknown_status_does_not_end_a_wait():
    job = await generate(Service(before=[on("status", final("moderating"), final("moderating"))]))
    assert job.is_success


async def test_the_deadline_ends_a_wait_and_the_error_names_the_next_call():
    with pytest.raises(WaitTimeoutError, match=r"client\.wait\('job-0'\)") as caught:
        await generate(Service(run_time=1e6), polling=PollingPolicy(wait_timeout=100, poll_interval=7))
    assert anyio.current_time() == pytest.approx(100)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.request_id, caught.value.job.status) == ("job-0", JobStatus.PROCESSING)


async def test_the_deadline_holds_while_every_poll_fails():
    service = Service(before=[always("status", reply(500, b""))])
    with pytest.raises(
        WaitTimeoutError, match=r"was processing when last seen, and calls .* fail .*\(HTTP 500"
    ):
        await generate(service, polling=PollingPolicy(wait_timeout=100))
    assert anyio.current_time() == pytest.approx(100)


async def test_a_wait_ends_after_the_stall_timeout_without_a_change():
    service = Service(queue_time=50.0, run_time=1e6)
    with pytest.raises(WaitTimeoutError):
        await generate(service, polling=PollingPolicy(stall_timeout=80, poll_interval=1, wait_timeout=None))
    assert anyio.current_time() == pytest.approx(50 + 80, abs=1.1)


@pytest.mark.parametrize(
    "status, times, expected",
    [(404, 2, 0), (404, 12, 1), (401, 12, 1), (403, 12, 1), (500, 12, 0), (429, 12, 0)],
)
async def test_jobs_that_the_service_refuses_to_show_are_logged_once(caplog, status, times, expected):
    refused = [reply(status, {"error": "no"})] * times
    service = Service(run_time=60.0, before=[on("status", *refused * 2)])
    session = session_for(service, polling=PACE)
    jobs = [await session.submit(VideoRequest(prompt), Notifier()) for prompt in "xy"]
    ended = await asyncio.gather(*(session.wait(job, Notifier()) for job in jobs))
    assert all(job.is_success for job in ended)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == expected
    assert all("the wait goes on" in text and "check that the key is" in text for text in warnings)


async def test_each_unknown_status_is_logged_once(caplog):
    statuses = ["polishing", "processing", "polishing", "processing", "finished"]
    await generate(Service(before=[on("status", *map(final, statuses))]))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.split("'")[1] for text in warnings] == ["polishing", "finished"]


async def test_the_error_of_a_failed_job_has_the_services_reason():
    service = Service(before=[on("status", final("failed", outcome={"error": {"message": "rejected"}}))])
    with pytest.raises(JobFailedError, match="rejected") as caught:
        await generate(service)
    assert caught.value.job.failure_reason == "rejected"


async def test_a_cancelled_job_raises():
    with pytest.raises(JobCancelledError, match="no reason given"):
        await generate(Service(before=[on("status", final("canceled"))]))


async def test_a_job_that_is_final_in_the_answer_of_its_submit_is_not_polled():
    done = final("success", outcome={"video_url": "https://storage.example/x.mp4"})
    service = Service(before=[on("submit", done)])
    job = await generate(service)
    assert job.video_url == "https://storage.example/x.mp4"
    assert service.calls["status"] == 0


async def test_a_success_without_its_video_is_polled_once_more():
    service = Service(run_time=0.0, before=[on("submit", final("success")), on("status", final("success"))])
    job = await generate(service)
    assert job.video_url is None
    assert service.calls["status"] == 1


async def test_a_job_of_an_earlier_process_can_be_waited_for():
    service = Service(run_time=30.0)
    await session_for(service).submit(VideoRequest("x"), Notifier())
    assert (await wait(service, "job-0")).is_success


async def test_an_unknown_id_is_an_error_after_three_polls():
    service = Service()
    with pytest.raises(NotFoundError):
        await wait(service, "unknown")
    assert service.calls["status"] == 3


async def test_a_refused_key_ends_the_wait_for_a_job_that_no_poll_has_shown():
    service = Service(before=[always("status", reply(401, {"error": "bad key"}))])
    with pytest.raises(AuthenticationError):
        await wait(service, "job-0")
    assert service.calls["status"] == 1


@pytest.mark.parametrize("id_", ["", " ", ".."])
async def test_an_impossible_id_is_an_error_without_a_poll(id_):
    service = Service()
    with pytest.raises(InvalidRequestError, match="cannot be an id of the service"):
        await wait(service, id_)
    assert service.calls["status"] == 0


async def test_cancelling_a_wait_leaves_the_job_alone():
    service = Service(run_time=60.0)
    with anyio.move_on_after(10):
        await generate(service)
    polls = service.calls["status"]
    await anyio.sleep(1000)
    assert service.calls["status"] == polls
    assert (await wait(service, "job-0")).is_success


async def test_deadlines_hold_while_all_polls_hang():
    service = Service(run_time=1e6, before=[lambda request, service: None])
    service.latency = 0.0
    session = session_for(service, polling=PollingPolicy(wait_timeout=20, poll_interval=1, use_lists="never"))
    jobs = [await session.submit(VideoRequest(f"prompt {number}"), Notifier()) for number in range(150)]
    service.latency = 45.0
    ended = []

    async def wait(job):
        try:
            await session.wait(job, Notifier())
        except KlingError as error:
            ended.append((anyio.current_time(), type(error)))

    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(wait, job)
        await anyio.sleep(100)
        tasks.cancel_scope.cancel()
    assert {kind for _, kind in ended} == {WaitTimeoutError}
    assert max(at for at, _ in ended) <= 23


@pytest.mark.unmeasured
async def test_shorter_run_times_bring_polls_forward():
    service = Service(run_time=lambda number: 600.0 if number == 0 else 2.0)
    session = session_for(service, polling=PollingPolicy(use_lists="never"))
    slow = await session.submit(VideoRequest("slow"), Notifier())
    ended = []

    async def wait(job, name):
        await session.wait(job, Notifier())
        ended.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, slow, "slow")
        for number in range(80):
            job = await session.submit(VideoRequest(f"prompt {number}"), Notifier())
            tasks.start_soon(wait, job, "quick")
            await anyio.sleep(0.3)
        await anyio.sleep(700)
        tasks.cancel_scope.cancel()
    assert ended[-1] == "slow"
    assert len(ended) == 81


async def test_run_times_seen_by_one_wait_serve_all_waits_of_the_client():
    service = Service(run_time=lambda number: 1.0 + number / 10)
    session = session_for(service)
    jobs = [await session.submit(VideoRequest(f"prompt {number}"), Notifier()) for number in range(12)]
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(session.wait, job, Notifier())
    assert anyio.current_time() - began < 5
    assert service.calls["list"] + service.calls["status"] < 5 * 12


async def test_an_answer_after_the_deadline_changes_nothing():
    events = []
    service = Service(run_time=1.0)
    session = session_for(service, polling=PollingPolicy(wait_timeout=5, poll_interval=1, use_lists="never"))
    job = await session.submit(VideoRequest("x"), Notifier())
    service.latency = 20.0
    with pytest.raises(WaitTimeoutError):
        await session.wait(job, Notifier(events.append))
    assert [type(event) for event in events] == [Finished]
    await anyio.sleep(100)
    assert service.calls["status"] == 1
    assert [type(event) for event in events] == [Finished]


async def test_a_wait_that_is_cancelled_at_its_deadline_ends_cancelled():
    session = session_for(Service(run_time=1e6), polling=PollingPolicy(wait_timeout=10))
    job = await session.submit(VideoRequest("x"), Notifier())
    wait = asyncio.create_task(session.wait(job, Notifier()))
    asyncio.get_running_loop().call_at(10.0 - 1e-10, wait.cancel)
    with pytest.raises(asyncio.CancelledError):
        await wait


async def test_two_waits_for_one_job_both_end():
    service = Service(run_time=60.0)
    session = session_for(service)
    job = await session.submit(VideoRequest("x"), Notifier())
    ended = []

    async def wait(seconds):
        await anyio.sleep(seconds)
        ended.append((await session.wait(job, Notifier())).is_success)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, 0.0)
        tasks.start_soon(wait, 10.0)
    assert ended == [True, True]


@pytest.mark.parametrize("in_batch", [False, True])
async def test_the_log_has_the_submit_and_the_end_of_each_job(in_batch, caplog):
    caplog.set_level("DEBUG", logger="kling_async")
    service = Service(run_time=60.0, script=lambda _: FAILED)
    if in_batch:
        await run(service, ["an eagle"])
    else:
        session = session_for(service)
        with pytest.raises(JobFailedError):
            await session.wait(await session.submit(VideoRequest("an eagle"), Notifier()), Notifier())
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("INFO", "submitted job job-0 (kling-v2-6)"),
        ("DEBUG", "job job-0 ended: failed"),
    ]


async def test_an_error_of_the_poller_ends_every_wait(caplog):
    session = session_for(Service(run_time=60.0, before=[always("status", LookupError("no such thing"))]))
    jobs = [await session.submit(VideoRequest(f"prompt {number}"), Notifier()) for number in range(3)]
    errors = []

    async def wait(job):
        try:
            await session.wait(job, Notifier())
        except LookupError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(wait, job)
    assert len(errors) == 3
    assert "the polls of 3 jobs ended by an error" in caplog.text


async def test_no_task_is_left_when_the_last_wait_has_ended():
    before = asyncio.all_tasks()
    await generate(Service(run_time=60.0))
    assert asyncio.all_tasks() == before


async def test_waits_end_cancelled_if_the_polling_task_is_cancelled():
    session = session_for(Service(run_time=60.0))
    job = await session.submit(VideoRequest("x"), Notifier())
    wait = asyncio.create_task(session.wait(job, Notifier()))
    await anyio.sleep(1)
    session.poller._task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait
    assert (await session.wait(job, Notifier())).is_success


async def test_twelve_separate_waits_of_one_client_share_their_list_scans():
    service = Service(run_time=lambda number: 50.0 + 2 * number)
    session = session_for(service)
    jobs = [await session.submit(VideoRequest(f"prompt {number}"), Notifier()) for number in range(12)]
    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(session.wait, job, Notifier())
    assert service.calls["list"] + service.calls["status"] <= 12 * 10
    assert sum(service.lags()) <= 12 * 1.5


async def test_one_cold_job_of_four_minutes_costs_at_most_sixty_calls():
    service = Service(run_time=240.0)
    await generate(service, polling=PollingPolicy())
    assert service.calls["status"] <= 60
    assert sum(service.lags()) <= 10


async def test_an_error_of_the_polls_after_the_last_wait_is_logged(caplog):
    class FailsLate(Service):
        async def send(self, request):
            try:
                return await super().send(request)
            except asyncio.CancelledError:
                raise LookupError("too late") from None

    service = FailsLate(latency=0.0, run_time=60.0)
    session = session_for(service, polling=PollingPolicy(wait_timeout=10, poll_interval=1))
    job = await session.submit(VideoRequest("x"), Notifier())
    service.latency = 100.0
    with anyio.move_on_after(5):
        await session.wait(job, Notifier())
    assert "the polls ended by an error after the last wait" in caplog.text


async def test_a_call_that_hangs_holds_no_wait_without_a_deadline_up():
    service = Service(run_time=60.0)
    session = session_for(service, polling=PollingPolicy(wait_timeout=None, poll_interval=1))
    job = await session.submit(VideoRequest("x"), Notifier())
    service.latency = 40.0
    assert (await session.wait(job, Notifier())).is_success


async def test_the_scans_of_a_list_end_with_the_last_wait_for_its_model():
    service = Service(run_time=1e6)
    session = session_for(service)

    async def wait(model, seconds):
        job = await session.submit(VideoRequest("x", model=model), Notifier())
        polling = PollingPolicy(use_lists="always", poll_interval=10.0, wait_timeout=seconds)
        with pytest.raises(WaitTimeoutError):
            await session.wait(job, Notifier(), polling=polling)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, "kling-v2-6", 35.0)
        tasks.start_soon(wait, "Kling-Text2Video-V2.1-Master", 100.0)
    first = [one for one in service.requests if "model_id=kling-v2-6" in one.url]
    assert 2 <= len(first) <= 4


async def test_an_error_of_the_poller_leaves_a_wait_that_has_just_ended_its_job(caplog):
    session = session_for(Service(run_time=60.0, before=[always("status", LookupError("no such thing"))]))
    jobs = [await session.submit(VideoRequest(f"prompt {number}"), Notifier()) for number in range(2)]
    done = Job(request_id="job-0", status=JobStatus.SUCCESS)
    results = {}

    def end_one_wait(record):
        if "ended by an error" in record.getMessage():
            session.poller._jobs["job-0"].final.set_result(done)
        return True

    async def wait(job):
        try:
            results[job.request_id] = await session.wait(job, Notifier())
        except LookupError as error:
            results[job.request_id] = error

    caplog.handler.addFilter(end_one_wait)
    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(wait, job)
    caplog.handler.removeFilter(end_one_wait)
    assert results["job-0"].is_success
    assert isinstance(results["job-1"], LookupError)


@pytest.mark.parametrize("is_lost", [False, True])
async def test_calls_that_hang_past_the_deadlines_of_their_jobs_change_nothing(is_lost):
    def lose(request, service):
        is_early = service.kind(request) == "status" and service.now < 100
        return APIConnectionError("reset") if is_lost and is_early else None

    brief = PollingPolicy(wait_timeout=20, poll_interval=1, use_lists="never")
    service = Service(run_time=300.0, before=[lose])
    session = session_for(service, polling=PollingPolicy(poll_interval=1, use_lists="never"))
    jobs = [await session.submit(VideoRequest(f"prompt {number}"), Notifier()) for number in range(200)]
    service.latency = 45.0
    events, patient = [], []

    async def give_up(job):
        with pytest.raises(WaitTimeoutError):
            await session.wait(job, Notifier(events.append), polling=brief)

    async def wait(job):
        patient.append((await session.wait(job, Notifier())).is_success)

    async with anyio.create_task_group() as tasks:
        for job in jobs[1:]:
            tasks.start_soon(give_up, job)
        tasks.start_soon(wait, jobs[0])
    assert patient == [True]
    assert [type(event) for event in events if not isinstance(event, PollFailed)] == [Finished] * 199


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_status_reply_that_comes_after_a_list_showed_the_end_changes_nothing(is_lost):
    class SlowStatus(Service):
        async def send(self, request):
            if self.kind(request) == "status" and self.calls["status"] < 10:
                answer = await super().send(request)
                await anyio.sleep(30.0)
                if is_lost:
                    raise APIConnectionError("reset")
                return answer
            return await super().send(request)

    service = SlowStatus(run_time=lambda number: 200.0 if number == 0 else 5.0)
    session = session_for(service, polling=PollingPolicy(poll_interval=1, use_lists="always"))
    jobs = [await session.submit(VideoRequest(f"prompt {number}"), Notifier()) for number in range(10)]
    ended = []

    async def wait(job):
        await session.wait(job, Notifier())
        ended.append(anyio.current_time())

    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(wait, job)
    assert len(ended) == 10
    assert sorted(ended)[8] < 15
    assert sorted(ended)[9] < 205
