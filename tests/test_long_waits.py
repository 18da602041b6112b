"""Long waits show something: progress, files and prompts of single jobs, and many waits in one call."""

from __future__ import annotations

import asyncio
import io
import json
import sys

import pytest
from virtual_service import Service, reply

from kling_async import (
    ConfigurationError,
    DownloadError,
    InvalidRequestError,
    Job,
    JobStatus,
    KlingClient,
    NotFoundError,
    PollingPolicy,
    Result,
    ResultState,
    VideoRequest,
    WaitTimeoutError,
)
from kling_async.emulator import JobScript
from kling_async.events import Downloaded, Finished, Resumed
from kling_async.notebook import render_html
from kling_async.report import report_html


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drop_payload(request, service):
    """The answer to a submit or a poll without the parameters that the service may echo."""
    kind = service.kind(request)
    if kind not in {"submit", "status"}:
        return None
    answer = service.answer(kind, request)
    return reply(answer.status, {**json.loads(answer.body), "payload": {}})


def client_of(service, **settings):
    settings = {"polling": PollingPolicy(poll_interval=0.001, use_lists="never"), **settings}
    return KlingClient("key", transport=service, **settings)


async def test_a_job_shows_its_prompt_also_if_the_service_echoes_no_parameters():
    service = Service(run_time=0.01, before=[drop_payload])
    async with client_of(service) as client:
        submitted = await client.submit("A paper boat", duration=5)
        finished = await client.wait(submitted)
        by_id = await client.wait(submitted.request_id)
    assert submitted.payload == finished.payload == {"prompt": "A paper boat", "duration": "5"}
    assert "A paper boat" in render_html(submitted)
    assert by_id.prompt is None


async def test_generate_saves_to_a_folder_or_a_file_and_tells_it(tmp_path):
    events = []
    async with client_of(Service(run_time=0.01), on_event=events.append) as client:
        assert (await client.generate("A paper boat", output=tmp_path / "clips")).is_success
        await client.generate("A kettle", output=tmp_path / "kettle.mp4")
    saved = [event.path for event in events if isinstance(event, Downloaded)]
    assert saved == [tmp_path / "clips" / saved[0].name, tmp_path / "kettle.mp4"]
    assert saved[0].name.startswith("kling-a-paper-boat-")
    assert all(path.read_bytes().startswith(b"video of ") for path in saved)


@pytest.mark.parametrize("options", [{"output": "/dev/null/clips"}, {"output": 5}, {"progress": "often"}])
async def test_a_wrong_option_of_generate_is_refused_before_anything_is_paid_for(options):
    service = Service(run_time=0.01)
    async with client_of(service) as client:
        with pytest.raises(ConfigurationError, match=r"^generate\(\): "):
            await client.generate("A paper boat", **options)
    assert service.posts == 0


async def test_a_video_of_generate_that_cannot_be_saved_is_an_error_with_its_job(tmp_path):
    service = Service(run_time=0.01)

    def fill_disk(event):
        if isinstance(event, Finished):
            service.media[event.job.video_url] = OSError("no space left")

    async with client_of(service, on_event=fill_disk) as client:
        with pytest.raises(
            DownloadError, match=r"^generate\(\): The video of job job-0 was not saved"
        ) as caught:
            await client.generate("A paper boat", output=tmp_path)
    assert caught.value.job.is_success


@pytest.mark.parametrize("progress, is_drawn", [("auto", True), (True, True), (False, False)])
async def test_single_calls_draw_their_progress_as_a_batch_does(monkeypatch, progress, is_drawn):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    async with client_of(Service(run_time=0.01)) as client:
        job = await client.generate("A paper boat", progress=progress)
        await client.wait_many([job], progress=progress)
    assert (sys.stderr.getvalue().count("1 of 1") >= 2) is is_drawn


async def test_many_waits_lose_no_failure_and_keep_their_order():
    service = Service(
        run_time=lambda number: 0.05 - number / 100,
        script=lambda number: JobScript(ending="failed" if number == 1 else "success"),
    )
    async with client_of(service) as client:
        jobs = [await client.submit(f"prompt {number}") for number in range(3)]
        events = []
        view = client.with_options(on_event=events.append)
        batch = await view.wait_many([jobs[0], "job-1", jobs[2], "nope"])
    assert [(result.index, result.state) for result in batch] == [
        (0, ResultState.SUCCEEDED),
        (1, ResultState.FAILED),
        (2, ResultState.SUCCEEDED),
        (3, ResultState.FAILED),
    ]
    assert [result.prompt for result in batch] == ["prompt 0", "prompt 1", "prompt 2", None]
    assert isinstance(batch[3].error, NotFoundError)
    assert batch.history.times_of(0).finished is not None
    assert {event.index for event in events if isinstance(event, Resumed)} == {0, 1, 2, 3}
    assert {event.index for event in events if isinstance(event, Finished)} == {0, 1, 2, 3}
    assert service.posts == 3


async def test_each_of_many_waits_has_the_deadline_of_the_call():
    async with client_of(Service(run_time=60)) as client:
        job = await client.submit("A glacier")
        [result] = await client.wait_many([job], wait_timeout=0.01)
    assert result.state is ResultState.TIMED_OUT
    assert isinstance(result.error, WaitTimeoutError)
    assert result.job.prompt == "A glacier"


async def test_the_same_job_can_be_waited_for_twice_and_no_job_at_all():
    async with client_of(Service(run_time=0.01)) as client:
        job = await client.submit("A paper boat")
        batch = await client.wait_many(iter([job, job.request_id]))
        assert [result.state.value for result in batch] == ["succeeded", "succeeded"]
        assert len(await client.wait_many([])) == 0


@pytest.mark.parametrize(
    "jobs, said",
    [
        ("job-0", "not one str; put it into a list, or use wait"),
        (Job(request_id="a", status=JobStatus.QUEUED), "not one Job"),
        (5, "not one int"),
        (["job-0", 5], "Item 1 is a job or the id of one, not 5"),
    ],
)
async def test_what_is_no_list_of_jobs_is_refused_before_the_first_poll(jobs, said):
    service = Service()
    async with client_of(service) as client:
        with pytest.raises(InvalidRequestError, match=said):
            await client.wait_many(jobs)
    assert service.calls == {}


async def test_cancelling_many_waits_leaves_the_jobs_alone():
    service = Service(run_time=0.05)
    async with client_of(service) as client:
        job = await client.submit("A paper boat")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.wait_many([job])
        assert (await client.wait(job)).is_success


def test_a_job_is_one_short_line_with_its_prompt():
    prompt = "A paper boat\n\x1b[31m\u202eleaves the harbour, and the long afternoon goes on and on"
    job = Job(request_id="412767a6", status=JobStatus.PROCESSING, payload={"prompt": prompt}, raw={"a": "b"})
    assert repr(job).startswith("<Job 412767a6 processing 'A paper boat \\x1b[31m\\u202eleaves the harbour,")
    assert repr(job).endswith("…'>")
    assert len(repr(job)) < 120
    assert repr(Job(request_id="a\nb", status=JobStatus.QUEUED)) == "<Job 'a\\nb' queued>"


def test_a_result_is_one_line_with_its_prompt_its_file_or_its_error(tmp_path):
    job = Job(request_id="a", status=JobStatus.FAILED, payload={"prompt": "A kettle"})
    made = Result(
        index=0, request=VideoRequest("A boat"), state=ResultState.SUCCEEDED, path=tmp_path / "a.mp4"
    )
    lost = Result(
        index=1, request=None, state=ResultState.FAILED, job=job, error=NotFoundError("no such job")
    )
    nothing = Result(index=2, request=None, state=ResultState.NOT_SUBMITTED)
    assert repr(made) == f"<Result 0 succeeded 'A boat' {str(tmp_path / 'a.mp4')!r}>"
    assert repr(lost) == "<Result 1 failed 'A kettle': no such job>"
    assert repr(nothing) == "<Result 2 not submitted>"


def test_a_report_shows_the_prompt_of_a_job_that_another_call_submitted(tmp_path):
    job = Job(request_id="a", status=JobStatus.SUCCESS, payload={"prompt": "A kettle begins to sing"})
    result = Result(index=0, request=None, state=ResultState.SUCCEEDED, job=job)
    assert "A kettle begins to sing" in report_html([result], beside=tmp_path)
