from __future__ import annotations

import gc
import weakref
from traceback import TracebackException

import anyio
import pytest
from virtual_service import Service, on, reply, session_for

from kling_async import (
    APIConnectionError,
    APIResponseError,
    InternalServerError,
    NotFoundError,
    RetryPolicy,
    VideoRequest,
)
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import SUBMIT
from kling_async._wire.payloads import submit_body
from kling_async.emulator import JobScript
from kling_async.events import Notifier, Retrying

BUSY = reply(503, b"<html>busy</html>")


async def job_and_session(service, **settings):
    session = session_for(service, **settings)
    return await session.submit(VideoRequest("x"), Notifier()), session


UUID = "550e8400-e29b-41d4-a716-446655440000"


async def test_a_safe_call_is_retried_until_it_succeeds():
    events = []
    service = Service(before=[on("status", BUSY, APIConnectionError("reset"), reply(200, b"garbage"))])
    job, session = await job_and_session(service)
    assert (await session.get_job(job.request_id, Notifier(events.append))).request_id == job.request_id
    assert [(type(event), event.call, event.attempt) for event in events] == [
        (Retrying, "status", 1),
        (Retrying, "status", 2),
        (Retrying, "status", 3),
    ]
    assert anyio.current_time() > 0


async def test_no_call_obeys_the_service_for_longer_than_the_setting_allows():
    late = reply(503, b"", {"retry-after": "86400"})
    job, session = await job_and_session(
        Service(before=[on("status", late)]), retry=RetryPolicy(max_retry_after=60)
    )
    await session.get_job(job.request_id, Notifier())
    assert anyio.current_time() == pytest.approx(60.0)


async def test_who_keeps_the_error_of_a_reply_does_not_keep_the_reply():
    replies = []

    def answer(request, service):
        if service.kind(request) == "status":
            garbage = reply(200, b"[" + b"x" * 10**6)
            replies.append(weakref.ref(garbage))
            return garbage
        return None

    _, session = await job_and_session(Service(before=[answer]), retry=RetryPolicy(max_retries=0))
    with pytest.raises(APIResponseError) as caught:
        await session.get_job("job-0", Notifier())
    gc.collect()
    assert [found() for found in replies] == [None]
    frames = TracebackException.from_exception(caught.value, capture_locals=True)
    assert "x" * 1000 not in "".join(frames.format())


async def test_retries_need_no_listener():
    job, session = await job_and_session(Service(before=[on("status", BUSY)]))
    assert (await session.get_job(job.request_id, Notifier())).request_id == job.request_id


async def test_the_last_error_is_raised():
    service = Service(before=[on("status", *[BUSY] * 3)])
    job, session = await job_and_session(service, retry=RetryPolicy(max_retries=2))
    with pytest.raises(InternalServerError, match="busy"):
        await session.get_job(job.request_id, Notifier())
    assert service.calls["status"] == 3


async def test_a_refusal_is_not_retried():
    service = Service()
    with pytest.raises(NotFoundError):
        await session_for(service).get_job("unknown", Notifier())
    assert service.calls["status"] == 1


async def test_a_call_is_retried_after_an_answer_about_another_job():
    other_job = reply(200, {"request_id": "job-7", "status": "success"})
    upper_case = reply(200, {"request_id": "JOB-0", "status": "queued"})
    job, session = await job_and_session(Service(before=[on("status", other_job, upper_case)]))
    assert (await session.get_job(job.request_id, Notifier())).request_id == "job-0"


async def test_a_uuid_in_upper_case_is_the_same_job():
    upper_case = reply(200, {"request_id": UUID.upper(), "status": "queued"})
    service = Service(script=lambda _: JobScript(request_id=UUID), before=[on("status", upper_case)])
    _, session = await job_and_session(service)
    assert (await session.get_job(UUID, Notifier())).request_id == UUID.upper()
    assert service.calls["status"] == 1


async def test_the_error_names_the_other_job_if_every_answer_is_about_it():
    other_job = reply(200, {"request_id": "job-7", "status": "success"})
    job, session = await job_and_session(
        Service(before=[on("status", *[other_job] * 3)]), retry=RetryPolicy(max_retries=2)
    )
    with pytest.raises(APIResponseError, match=r"job job-0: .* another job, 'job-7'"):
        await session.get_job(job.request_id, Notifier())


async def test_a_call_that_may_be_paid_for_is_never_repeated():
    service = Service(before=[on("submit", BUSY)])
    api = session_for(service).api
    body = submit_body("kling-v2-6", {"prompt": "x"})
    with pytest.raises(InternalServerError):
        await api.send_with_retries(SUBMIT, structure_job, emit=api.emitter(Notifier()), body=body)
    assert service.posts == 1
