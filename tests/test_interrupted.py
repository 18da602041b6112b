"""What an interrupted call says about the paid jobs that it leaves: in the log, in a note, and in `last_batch`."""

from __future__ import annotations

import asyncio
import logging
import traceback
from pathlib import Path

import anyio
import pytest
from virtual_service import VIDEOS, Service, Stream, VirtualLoop, always, batch_of, on, reply
from virtual_store import MemoryStore

from kling_async import (
    APIConnectionError,
    BatchInterruptedError,
    KlingClient,
    PollingPolicy,
    ResultState,
    WaitTimeoutError,
)
from kling_async._engine.interrupted import describe_batch
from kling_async._journal.journal import WriteAheadJournal
from kling_async.emulator import RATE_LIMITED, JobScript
from kling_async.jobs import Job, JobStatus
from kling_async.results import Result

LOST = APIConnectionError("the connection was lost")


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def warnings(caplog):
    """The lines that Python shows without any setting of the log."""
    return lambda: [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def client_of(service):
    return KlingClient("key-of-the-tests", transport=service)


async def interrupt(call, *, after):
    """The cancellation that a timeout around a call raises, with its notes."""
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(after):
            await call
    cancelled = caught.value.__cause__
    assert isinstance(cancelled, asyncio.CancelledError)
    return cancelled


@pytest.mark.parametrize("after", [1, 3, 40], ids=["during the POST", "after the POST", "during the wait"])
async def test_a_timeout_around_generate_says_which_job_continues(warnings, after):
    service = Service(latency=2.0)
    error = await interrupt(client_of(service).generate("a cat"), after=after)
    [text] = warnings()
    assert text.startswith("generate() was cancelled, and job job-0 continues at the service and is charged")
    assert "`await client.wait('job-0')`" in text
    assert error.__notes__ == [text]


async def test_a_timeout_around_submit_says_which_job_continues(warnings):
    error = await interrupt(client_of(Service(latency=2.0)).submit("a cat"), after=1)
    [text] = warnings()
    assert text.startswith("submit() was cancelled, and job job-0 continues")
    assert error.__notes__ == [text]


async def test_a_cancelled_task_says_which_job_continues(warnings):
    task = asyncio.create_task(client_of(Service(latency=2.0)).generate("a cat"))
    await anyio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__notes__ == warnings()


async def test_a_submit_without_an_answer_says_where_to_look(warnings):
    service = Service(latency=1.0, before=[always("submit", LOST)])
    error = await interrupt(client_of(service).submit("a cat"), after=10)
    [text] = warnings()
    assert "`client.list_jobs('kling-v2-6')` before you submit the request again" in text
    assert error.__notes__ == [text]


async def test_a_call_that_has_not_sent_its_post_says_nothing(warnings):
    service = Service(before=[always("submit", reply(429, {"error": "slow down"}, {"retry-after": "60"}))])
    error = await interrupt(client_of(service).generate("a cat"), after=10)
    assert warnings() == []
    assert not hasattr(error, "__notes__")


async def test_a_wait_that_is_cancelled_leaves_nothing_that_its_caller_does_not_know(warnings):
    client = client_of(Service())
    job = await client.submit("a cat")
    await interrupt(client.wait(job), after=10)
    assert warnings() == []


async def test_an_interrupted_batch_leaves_its_results_within_reach(warnings):
    service = Service(run_time=lambda number: 10.0 if number < 2 else 500.0)
    client = client_of(service)
    assert client.last_batch is None
    error = await interrupt(client.generate_many(["a", "b", "c", "d"], progress=False), after=60)
    batch = client.last_batch
    assert [result.state for result in batch] == [ResultState.SUCCEEDED] * 2 + [ResultState.TIMED_OUT] * 2
    assert [result.job.request_id for result in batch] == ["job-0", "job-1", "job-2", "job-3"]
    assert isinstance(batch[2].error, WaitTimeoutError)
    assert "`await client.wait('job-2')` waits for it." in str(batch[2].error)
    [text] = warnings()
    assert "left 2 jobs to run and to be charged (job-2, job-3)" in text
    assert error.__notes__ == [text, "The results so far (4) are in `client.last_batch`."]
    assert (await client.wait(batch[2].job)).is_success


async def test_the_traceback_of_an_interrupted_batch_is_short():
    client = client_of(Service())
    error = await interrupt(client.generate_many(["a"], progress=False), after=10)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "kling_async" in frame.filename]
    assert len(frames) <= 2
    assert error.__suppress_context__


async def test_a_batch_that_is_interrupted_during_its_posts_has_their_jobs(warnings):
    service = Service(latency=5.0)
    client = client_of(service)
    await interrupt(client.generate_many(["a", "b"], max_concurrency=2, progress=False), after=1)
    assert {result.job.request_id for result in client.last_batch} == {"job-0", "job-1"}
    assert "(job-0, job-1)" in warnings()[0]


async def test_a_batch_that_is_interrupted_while_it_reconciles_has_an_ambiguous_item(warnings):
    service = Service(before=[always("submit", LOST)])
    client = client_of(service)
    await interrupt(client.generate_many(["a", "b"], max_concurrency=1, progress=False), after=10)
    [result] = client.last_batch
    assert (result.index, result.state) == (0, ResultState.AMBIGUOUS)
    assert "left 1 submit without an answer" in warnings()[0]


async def test_a_batch_that_is_interrupted_before_its_first_post_has_no_results(warnings):
    client = client_of(Service(before=[always("submit", reply(429, {"error": "no"}, {"retry-after": "60"}))]))
    await interrupt(client.generate_many(["a"], progress=False), after=10)
    assert len(client.last_batch) == 0
    assert warnings() == []


async def test_a_batch_whose_journal_cannot_be_opened_in_time_has_no_results(monkeypatch, tmp_path):
    client = client_of(Service())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await client.generate_many(["a"], journal=tmp_path / "run.db", progress=False)
    assert len(client.last_batch) == 0


async def test_a_batch_with_a_journal_says_how_to_continue(warnings):
    journal = WriteAheadJournal(MemoryStore(), run_sync=write_at_once)
    async with batch_of(Service(), ["a"], journal=journal):
        await anyio.sleep(30)
    assert warnings()[0].endswith("make the same call with journal='memory.db' again to get the videos.")


async def write_at_once(write, changes):
    """Commit without a thread: the virtual clock would jump while a thread works."""
    write(changes)


def make_hanging_video(begin):
    """A video of which no byte comes; `begin` is called when it is fetched."""

    class Hanging(Stream):
        async def body(self):
            begin()
            await anyio.sleep_forever()
            yield b""

    return Hanging(200, [])


async def test_a_video_that_is_being_saved_is_made_and_not_saved(tmp_path, warnings):
    begun = []

    def begin():
        begun.append(True)
        if len(begun) == 2:
            task.cancel()

    stuck = JobScript(ending="stuck_processing")
    service = Service(run_time=10.0, script=lambda number: stuck if number == 2 else JobScript())
    for number in range(2):
        service.media[f"{VIDEOS}/job-{number}.mp4"] = make_hanging_video(begin)
    client = KlingClient("key-of-the-tests", transport=service, polling=PollingPolicy(wait_timeout=None))
    call = client.generate_many(["a", "b", "c"], output=tmp_path, progress=False)
    task = asyncio.create_task(call)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(result.state, result.path) for result in client.last_batch] == [
        (ResultState.SUCCEEDED, None),
        (ResultState.SUCCEEDED, None),
        (ResultState.TIMED_OUT, None),
    ]
    assert warnings()[0] == (
        "The batch ended early and left 1 job to run and to be charged (job-2) and 2 videos made and not saved (job-0, job-1): "
        "`await client.wait(...)` waits for a job, `await client.download(...)` saves a video and `client.list_jobs()` "
        "shows all jobs."
    )


async def test_a_cancelled_generate_says_that_its_video_is_made_and_not_saved(tmp_path, warnings):
    def begin():
        task.cancel()

    service = Service(run_time=10.0)
    service.media[f"{VIDEOS}/job-0.mp4"] = make_hanging_video(begin)
    task = asyncio.create_task(client_of(service).generate("a cat", output=tmp_path / "a.mp4"))
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    [text] = warnings()
    assert text == (
        "generate() was cancelled, and the video of job job-0 is made and not saved: "
        "`await client.download('job-0', ...)` saves it."
    )
    assert caught.value.__notes__ == [text]


def test_each_kind_of_item_that_a_batch_leaves_is_counted_apart():
    def left(index, state, path=None):
        job = Job(request_id=f"job-{index}", status=JobStatus.UNKNOWN)
        return Result(index=index, request=None, state=state, job=job, path=path)

    saved = [
        left(0, ResultState.SUCCEEDED, path=Path("a.mp4")),
        left(1, ResultState.FAILED),
        left(2, ResultState.CANCELLED),
    ]
    assert describe_batch(saved) is None
    others = [
        left(6, ResultState.TIMED_OUT),
        left(3, ResultState.TIMED_OUT),
        left(4, ResultState.SUCCEEDED),
        Result(index=5, request=None, state=ResultState.AMBIGUOUS),
    ]
    assert describe_batch([*others, *saved], next_step="call again") == (
        "The batch ended early and left 2 jobs to run and to be charged (job-3, job-6), 1 video made and not saved (job-4) "
        "and 1 submit without an answer: call again."
    )


async def test_a_stream_that_is_left_early_says_what_it_leaves(warnings):
    client = client_of(Service(run_time=lambda number: 10.0 if number < 2 else 500.0))
    async with client.stream_many(["a", "b", "c"], progress=False) as results:
        async for _ in results:
            break
        await anyio.sleep(30)
    assert (
        "left 1 job to run and to be charged (job-2) and 1 video made and not saved (job-1): "
        in warnings()[0]
    )


async def test_the_error_that_leaves_a_stream_has_the_note(warnings):
    client = client_of(Service(run_time=500.0))
    with pytest.raises(LookupError) as caught:
        async with client.stream_many(["a"], progress=False):
            await anyio.sleep(30)
            raise LookupError
    assert caught.value.__notes__ == warnings()
    assert "left 1 job to run" in warnings()[0]


async def test_a_job_that_failed_for_a_rate_limit_is_not_left_to_run_and_is_a_result(warnings):
    service = Service(script=lambda _: JobScript(ending="failed", error=RATE_LIMITED))
    service.before.append(on("submit", None, *[reply(429, {"error": "no"}, {"retry-after": "600"})] * 9))
    client = client_of(service)
    await interrupt(client.generate_many(["a"], progress=False), after=300)
    [result] = client.last_batch
    assert (result.state, result.job.request_id) == (ResultState.FAILED, "job-0")
    assert warnings() == []


async def test_the_last_batch_is_that_of_the_last_call_and_of_all_views():
    client = client_of(Service())
    view = client.with_options(timeout=30)
    batch = await view.generate_many(["a"], progress=False)
    assert client.last_batch is view.last_batch is batch

    def fail_midway():
        yield "a"
        raise LookupError

    with pytest.raises(BatchInterruptedError) as caught:
        await client.generate_many(fail_midway(), progress=False)
    assert client.last_batch is caught.value.batch


async def test_a_batch_whose_journal_is_deleted_has_its_results_within_reach(tmp_path, warnings):
    path, service = tmp_path / "run.db", Service(run_time=40.0)

    def delete(request, service):
        if service.kind(request) == "submit" and service.posts >= 2:
            path.unlink(missing_ok=True)

    service.before.append(delete)
    client = client_of(service)
    with pytest.raises(BatchInterruptedError, match=r"run\.db' was moved or deleted") as caught:
        await client.generate_many(["a", "b", "c", "d", "e"], max_concurrency=1, journal=path, progress=False)
    assert client.last_batch is caught.value.batch
    ids = [result.job.request_id for result in client.last_batch if result.job is not None]
    assert len(ids) == service.posts == 2
    assert ids[-1] in "".join(warnings())
