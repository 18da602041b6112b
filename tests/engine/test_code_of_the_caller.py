"""Listeners, log handlers, iterables, prices and transports of the caller raise and cancel; no paid job is lost by it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, closing, contextmanager

import anyio
import attrs
import pytest
from errors_of_the_caller import FINAL, HARMLESS, raiser
from virtual_service import KEY, Service, VirtualLoop, on, prompts, run

from kling_async import (
    APIConnectionError,
    BatchInterruptedError,
    ConfigurationError,
    KlingClient,
    KlingError,
    ResultState,
    VideoRequest,
)
from kling_async._journal.open_journal import open_journal
from kling_async._policy.budget import Budget
from kling_async._transport.caller_transport import CallerTransport
from kling_async.events import Finished, PollFailed, Spent, Submitted


def client_of(service, **options):
    return KlingClient(KEY, transport=service, **options)


def make(client, requests, **options):
    return client.generate_many(requests, progress=False, **options)


def cancel_current_task(_event):
    asyncio.current_task().cancel()


def run_an_event_loop(_):
    work = asyncio.sleep(0)
    with closing(work):
        asyncio.run(work)


LISTENERS = {
    **{kind.__name__: raiser(kind) for kind in HARMLESS},
    "cancels the current task": cancel_current_task,
    "runs an event loop": run_an_event_loop,
}


@contextmanager
def log_filter(handle):
    log = logging.getLogger("kling_async")
    former = log.level
    log.setLevel(logging.DEBUG)
    log.addFilter(handle)  # a filter, for `logging` lets the errors of a filter through
    try:
        yield
    finally:
        log.removeFilter(handle)
        log.setLevel(former)


@pytest.mark.parametrize("listener", LISTENERS.values(), ids=LISTENERS)
@pytest.mark.parametrize("place", ["listener", "log"])
async def test_no_paid_result_is_lost_by_a_listener_or_a_log_filter(listener, place):
    service = Service(queue_time=5.0)
    client = client_of(service, on_event=listener if place == "listener" else None)
    with log_filter(listener if place == "log" else lambda _: True):
        assert (await client.submit("an eagle")).request_id == "job-0"
        assert (await client.generate("an eagle")).request_id == "job-1"
        batch = await make(client, prompts(3))
    assert [result.ok for result in batch] == [True, True, True]
    assert service.posts == 5


async def test_a_listener_can_call_back_into_the_client():
    service, seen, tasks = Service(), [], []

    def hear(event):
        if isinstance(event, Submitted) and len(tasks) < 2:
            tasks.append(asyncio.get_running_loop().create_task(client.wait(event.job)))
            tasks.append(asyncio.get_running_loop().create_task(client.submit("another")))
        seen.append(client.with_options(timeout=5.0))

    client = client_of(service, on_event=hear)
    batch = await make(client, prompts(2))
    first, another = await asyncio.gather(*tasks)
    assert [result.ok for result in batch] == [True, True]
    assert first.is_success
    assert another.request_id in service.jobs
    assert service.posts == 3


async def test_a_listener_can_hand_events_to_tasks_of_the_caller():
    queue, heard = asyncio.Queue(), []
    send, receive = anyio.create_memory_object_stream(100)
    finished = anyio.Event()

    def hear(event):
        queue.put_nowait(event)
        send.send_nowait(event)
        if isinstance(event, Finished):
            finished.set()
            send.close()

    async def receive_all():
        async with receive:
            async for event in receive:
                heard.append(event)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(receive_all())
        waiter = tasks.create_task(finished.wait())
        await asyncio.sleep(0)
        await client_of(Service(), on_event=hear).generate("an eagle")
    assert waiter.done()
    assert [type(event) for event in heard] == [type(queue.get_nowait()) for _ in heard]
    assert heard


async def test_an_item_whose_task_alone_is_cancelled_has_a_result():
    def cancel_items(event):
        if isinstance(event, Submitted):
            for task in asyncio.all_tasks():
                if task.get_name() == "item":
                    task.cancel()

    batch = await make(client_of(Service()), ["a", "b"], on_event=cancel_items)
    assert [result.state for result in batch] == [ResultState.TIMED_OUT] * 2
    assert [result.job.request_id for result in batch] == ["job-0", "job-1"]


async def test_listeners_and_log_filters_come_after_the_record_of_the_job(tmp_path):
    steps = []
    with open_journal(tmp_path / "run.db") as journal:

        def note(step):
            entries = [entry.request_id for entry in journal.entries()]
            steps.append((step.msg if isinstance(step, logging.LogRecord) else type(step), entries))

        with log_filter(note):
            await run(Service(), ["a"], journal=journal, notify=note, budget=Budget({"kling-v2-6": 1}))
    after_post = [entries for step, entries in steps if step in {Spent, Submitted, "submitted job %s (%s)"}]
    assert after_post == [["job-0"]] * 3


@pytest.mark.parametrize("kind", FINAL)
@pytest.mark.parametrize("place", ["listener", "log", "input", "transport"])
def test_code_that_ends_the_program_leaves_each_id_in_the_journal(kind, place, tmp_path):
    @attrs.define(eq=False)
    class Leaving(Service):
        async def send(self, request):
            answer = await super().send(request)
            if place == "transport" and self.kind(request) == "submit":
                raise left.pop()
            return answer

    async def leave_late():
        for prompt in prompts(3):
            yield prompt
        if place == "input":
            await asyncio.sleep(7)  # the first list call has ended, and the submits are in flight
            raise kind

    left = [kind]

    def leave_once(_):
        if left:
            raise left.pop()
        return True

    service = Leaving(latency=5.0)
    client = client_of(service, on_event=raiser(kind) if place == "listener" else None)
    with (
        log_filter(leave_once if place == "log" else lambda _: True),
        pytest.raises(kind),
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
    ):
        runner.run(make(client, leave_late(), journal=tmp_path / "run.db"))
    with open_journal(tmp_path / "run.db") as journal:
        entries = list(journal.entries())
    recorded = {entry.request_id for entry in entries if entry.request_id}
    unknown = [entry for entry in entries if entry.request_id is None]
    assert len(entries) == 3
    assert recorded <= set(service.jobs)
    assert len(service.jobs) <= len(recorded) + len(unknown)
    assert recorded or place in {"input", "transport"}


async def stop_late(kind):
    for prompt in prompts(2):
        yield prompt
        await asyncio.sleep(1)
    raise kind("of the caller")


class Stopping:
    def __init__(self, kind, left=2):
        self.kind, self.left = kind, left

    def __iter__(self):
        return self

    def __next__(self):
        self.left -= 1
        if self.left < 0:
            raise self.kind("of the caller")
        return f"prompt {self.left}"


@pytest.mark.parametrize(
    "kind", [each for each in HARMLESS if not issubclass(each, StopIteration | StopAsyncIteration)]
)
@pytest.mark.parametrize("source", [Stopping, stop_late], ids=["iterator", "generator"])
async def test_an_input_that_raises_anything_ends_the_batch_with_all_results(kind, source):
    service = Service()
    with pytest.raises(BatchInterruptedError, match=kind.__name__) as caught:
        await make(client_of(service), source(kind))
    assert [result.ok for result in caught.value.batch] == [True, True]
    cause = caught.value.__cause__
    assert type(cause) is kind or type(cause.__cause__) is kind
    assert isinstance(cause, Exception)


async def test_the_cleanup_of_an_input_that_raises_anything_leaves_the_results():
    def cleanup():
        try:
            yield from prompts(100)
        finally:
            raise asyncio.CancelledError

    seen = []
    async with client_of(Service()).stream_many(cleanup(), max_concurrency=2, progress=False) as results:
        async for result in results:
            seen.append(result.ok)
            if len(seen) == 2:
                break
    assert seen == [True, True]


def fail(*_):
    raise ZeroDivisionError


class Unspeakable(str):
    """A text of a class of the caller, none of whose methods works."""

    __slots__ = ()
    __str__ = __repr__ = __format__ = __eq__ = fail
    __hash__ = str.__hash__


@pytest.mark.parametrize(
    "request_of_the_caller",
    [
        Unspeakable("an eagle"),
        {"prompt": Unspeakable("an eagle"), "duration": Unspeakable("5"), "model": Unspeakable("kling-v2-6")},
        VideoRequest("an eagle", key=Unspeakable("one"), extra={"style": Unspeakable("noir")}),
        VideoRequest(
            "an eagle", extra={"duration": Unspeakable("5"), "deep": [{"sound": Unspeakable("on")}]}
        ),
    ],
    ids=["prompt", "row", "extra", "deep"],
)
@pytest.mark.parametrize("is_lost", [False, True], ids=["answered", "lost"])
async def test_values_of_the_callers_classes_are_sent_as_plain_json(request_of_the_caller, is_lost, tmp_path):
    lost = APIConnectionError("the connection was lost")
    service = Service(ahead=0.0, after=[on("submit", lost, lost)] if is_lost else [])
    items = iter(["a dog", request_of_the_caller, "a cat"])
    batch = await make(client_of(service), items, journal=tmp_path / "run.db", output=tmp_path)
    assert [result.state.value for result in batch] == ["succeeded"] * 3
    assert service.posts == 3


class UnspeakableError(Exception):
    def __str__(self):
        raise TimeoutError


async def test_an_error_without_a_text_ends_the_batch_with_all_results():
    with pytest.raises(BatchInterruptedError, match=r"by UnspeakableError\. Nothing") as caught:
        await make(client_of(Service()), Stopping(UnspeakableError))
    assert len(caught.value.batch) == 2


@pytest.mark.parametrize("kind", [*HARMLESS, UnspeakableError])
async def test_prices_that_raise_leave_the_item_unsent_and_the_others_alone(kind):
    def price(request):
        if request.prompt == "prompt 1":
            raise kind("of the caller")
        return 1

    service = Service()
    batch = await make(client_of(service), iter(prompts(3)), prices=price)
    assert [result.state.value for result in batch] == ["succeeded", "not_submitted", "succeeded"]
    assert isinstance(batch[1].error, ConfigurationError)
    assert kind.__name__ in str(batch[1].error)
    assert service.posts == 2


@pytest.mark.parametrize("taken", [0, 1])
async def test_results_that_are_read_after_their_block_end_with_an_error(taken):
    client = client_of(service := Service(run_time=lambda number: 1.0 + 100 * number))
    async with client.stream_many(prompts(2), progress=False) as results:
        for _ in range(taken):
            assert (await anext(results)).ok
        while service.posts < 2:  # noqa: ASYNC110
            await anyio.sleep(0.1)
    left = []
    with pytest.raises(KlingError, match="read the results inside the `async with`"):
        async for result in results:
            left.append(result.state)
    assert left == [ResultState.TIMED_OUT] * (2 - taken)


async def test_results_that_were_read_to_their_end_stay_ended():
    async with client_of(Service()).stream_many(prompts(2), progress=False) as results:
        assert len([result async for result in results]) == 2
    assert [result async for result in results] == []


class FailingTransport(Service):
    """A transport of the caller whose first calls of each kind raise, also a download in its middle."""

    def __attrs_post_init__(self):
        super().__attrs_post_init__()
        self.left = {"status": 3, "list": 1, "media": 1, "body": 1}

    def fail(self, kind):
        self.left[kind] = self.left.get(kind, 0) - 1
        if self.left[kind] >= 0:
            raise LookupError("of the caller")

    async def send(self, request):
        self.fail(self.kind(request))
        return await super().send(request)

    @asynccontextmanager
    async def stream(self, request):
        self.fail("media")
        async with super().stream(request) as reply:
            yield FailingReply(reply, self)


@attrs.frozen
class FailingReply:
    reply: object
    service: FailingTransport

    @property
    def status(self):
        return self.reply.status

    @property
    def headers(self):
        return self.reply.headers

    async def pipe_to(self, sink):
        self.service.fail("body")
        return await self.reply.pipe_to(sink)


async def test_a_transport_that_raises_anything_ends_neither_a_wait_nor_a_download(tmp_path):
    service, heard = FailingTransport(), []
    batch = await make(client_of(service, on_event=heard.append), prompts(8), output=tmp_path)
    assert [result.path.read_bytes()[:5] for result in batch] == [b"video"] * 8
    assert service.posts == 8
    assert all(left < 0 for left in service.left.values())
    (error,) = {str(event.error) for event in heard if isinstance(event, PollFailed)}
    assert error == "the transport raised LookupError before the answer came"
    assert {type(event.error.__cause__) for event in heard if isinstance(event, PollFailed)} == {LookupError}


class FailingAtTheEnd(Service):
    """A transport of the caller that raises at the end of each of the first streams."""

    failures = 1

    @asynccontextmanager
    async def stream(self, request):
        async with super().stream(request) as reply:
            yield reply
        if self.failures > 0:
            self.failures -= 1
            raise self.kind_of_error("of the caller")


@pytest.mark.parametrize("kind", [RuntimeError, LookupError, OSError, asyncio.CancelledError])
@pytest.mark.parametrize("failures", [1, 1000])
async def test_a_transport_that_raises_at_the_end_of_a_stream_ends_no_batch(tmp_path, kind, failures):
    service = FailingAtTheEnd()
    service.failures, service.kind_of_error = failures, kind
    batch = await make(client_of(service), prompts(3), output=tmp_path)
    assert [result.job.request_id for result in batch] == ["job-0", "job-1", "job-2"]
    if failures == 1:
        assert [result.path.read_bytes()[:5] for result in batch] == [b"video"] * 3
    else:
        said = f"the transport raised {kind.__name__} at the end of the answer"
        assert [said in str(result.error) for result in batch] == [True] * 3


@pytest.mark.parametrize("kind", [OSError, LookupError, APIConnectionError, asyncio.CancelledError])
async def test_an_error_of_the_block_of_a_stream_stays_as_it_is(kind):
    class Passing(Service):
        """Its streams raise the error of their block themselves."""

        def stream(self, _request):
            return self

        async def __aenter__(self):
            return self

        async def __aexit__(self, _kind, error, _traceback):
            raise error

    with pytest.raises(kind, match="of the block"):
        async with CallerTransport(Passing()).stream(None):
            raise kind("of the block")


async def test_a_cancellation_by_the_transport_alone_ends_no_wait():
    class Cancelling(Service):
        left = 3

        async def send(self, request):
            if self.kind(request) == "status" and self.left > 0:
                self.left -= 1
                raise asyncio.CancelledError("of a shared connection")
            return await super().send(request)

    service, heard = Cancelling(), []
    client = client_of(service, on_event=heard.append)
    batch = await make(client, prompts(3))
    assert [result.ok for result in batch] == [True] * 3
    assert {str(event.error) for event in heard if isinstance(event, PollFailed)} == {
        "the transport raised CancelledError before the answer came"
    }
    service.left = 1
    assert (await client.wait(batch[0].job.request_id)).video_url
    assert service.left == 0


async def test_a_transport_that_raises_for_a_cancellation_holds_no_call_up():
    class Swallowing(Service):
        async def send(self, request):
            try:
                return await super().send(request)
            except asyncio.CancelledError:
                raise LookupError("too late") from None

    client, before = client_of(service := Swallowing()), asyncio.all_tasks()
    job = await client.submit("a")
    service.latency = 100.0
    with anyio.move_on_after(5) as scope:
        await client.wait(job)
    assert scope.cancelled_caught
    assert asyncio.all_tasks() == before
    await client.aclose()
    assert service.closed == 0
    await CallerTransport(service).aclose()
    assert service.closed == 1


@pytest.mark.parametrize("kind", [each for each in HARMLESS if each is not StopIteration])
async def test_a_transport_that_raises_anything_after_a_post_leaves_a_lost_submit(kind):
    @attrs.define(eq=False)
    class Raising(Service):
        async def send(self, request):
            answer = await super().send(request)
            if self.kind(request) == "submit":
                raise kind("of the caller")
            return answer

    service = Raising(ahead=0.0)
    batch = await make(client_of(service), ["a", "b"])
    assert [(result.ok, result.job.request_id) for result in batch] == [(True, "job-0"), (True, "job-1")]
    assert service.posts == 2

    service = Raising(shows=lambda _: False)
    with pytest.raises(KlingError, match=f"the transport raised {kind.__name__} before the answer came"):
        await client_of(service).submit("a")
    assert service.posts == 1
