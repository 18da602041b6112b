"""Ctrl-C in an event loop that continues later, as that of a terminal of IPython: nothing more is submitted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading

import pytest

from kling_async import KlingClient, KlingError, PollingPolicy
from kling_async._interrupts import interruptible
from kling_async.types import Reply


class SlowService:
    """Answers each POST after a moment; its jobs succeed when the test says so."""

    def __init__(self):
        self.posts = []
        self.status = "queued"

    async def send(self, request):
        await asyncio.sleep(0.001)
        if request.method == "POST":
            self.posts.append(json.loads(request.body)["payload"]["prompt"])
        id_ = f"job-{len(self.posts)}" if request.method == "POST" else request.url.rpartition("/")[2]
        return Reply(200, {}, json.dumps({"request_id": id_, "status": self.status}).encode())


@pytest.fixture
def loop(interruptible):
    loop = asyncio.new_event_loop()
    yield loop
    while tasks := asyncio.all_tasks(loop):
        loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def service():
    return SlowService()


@pytest.fixture
def client(service):
    polling = PollingPolicy(poll_interval=0.001, use_lists="never")
    return KlingClient("a-key-of-the-tests", transport=service, polling=polling)


async def press_ctrl_c(when, times):
    # Of the service and of the handler, which tell nothing.
    while not when() or signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # noqa: ASYNC110
        await asyncio.sleep(0)
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)
    await asyncio.Event().wait()


def interrupt(loop, work, when, *, times=1):
    """Run work in the loop, as a cell of a terminal, until Ctrl-C is pressed once, or twice in a row."""
    pressing = loop.create_task(press_ctrl_c(when, times))
    with pytest.raises(asyncio.CancelledError if times == 1 else KeyboardInterrupt):
        loop.run_until_complete(work)
    pressing.cancel()
    loop.run_until_complete(asyncio.wait({pressing}))


async def drain(stream):
    async with stream as results:
        async for _ in results:
            pass


PROMPTS = [f"an eagle, number {number}" for number in range(20)]
CALLS = {
    "generate_many": lambda client, **options: client.generate_many(PROMPTS, progress=False, **options),
    "stream_many": lambda client, **options: drain(client.stream_many(PROMPTS, progress=False, **options)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_batch_that_is_interrupted_sends_nothing_more_in_the_next_cell(call, loop, service, client):
    interrupt(loop, call(client, max_concurrency=2), lambda: service.posts)
    assert set(service.posts) <= set(PROMPTS[:2])
    service.status = "success"

    loop.run_until_complete(client.generate("a comet", progress=False))
    assert set(service.posts) <= {*PROMPTS[:2], "a comet"}


@pytest.mark.parametrize("times", [1, 2])
def test_the_same_cell_continues_at_once_and_sends_each_item_once(loop, service, client, tmp_path, times):
    call = CALLS["generate_many"]
    work = call(client, max_concurrency=2, journal=tmp_path / "run.db")
    interrupt(loop, work, lambda: service.posts, times=times)
    service.status = "success"

    batch = loop.run_until_complete(call(client, journal=tmp_path / "run.db"))
    assert [result.ok for result in batch] == [True] * 20
    assert sorted(service.posts) == sorted(PROMPTS)
    assert batch is client.last_batch


def test_a_submit_that_waits_is_interrupted_before_it_is_sent(loop, service, client):
    async def throttle(request):
        service.posts.append(request.method)
        return Reply(429, {"retry-after": "0.01"}, b"")

    service.send = throttle
    interrupt(loop, client.submit("an eagle"), lambda: service.posts)
    sent = len(service.posts)
    with pytest.raises(KlingError):
        loop.run_until_complete(client.get_job("job-1"))
    assert service.posts[:sent] == ["POST"] * sent
    assert "POST" not in service.posts[sent:]


def test_a_listener_that_raises_an_interrupt_cancels_the_calls_too(loop, service, client):
    def listen(event):
        raise KeyboardInterrupt

    view = client.with_options(on_event=listen)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(CALLS["generate_many"](view, max_concurrency=2))
    service.status = "success"
    loop.run_until_complete(client.generate("a comet", progress=False))
    assert set(service.posts) <= {*PROMPTS[:2], "a comet"}


def test_the_first_interrupt_cancels_the_task_that_runs_and_a_second_one_is_raised(loop):
    heard = []

    async def work():
        with interruptible():
            os.kill(os.getpid(), signal.SIGINT)
            heard.append(asyncio.current_task().cancelling())
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                heard.append("cancelled")
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(work())
    assert heard == [1, "cancelled"]


def test_an_interrupt_wakes_a_loop_that_waits_for_its_sockets(loop, service, client):
    pressing = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    pressing.start()
    view = client.with_options(polling=PollingPolicy(poll_interval=60.0, use_lists="never"))
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(view.wait("job-1"))
    pressing.join()


def test_an_interrupt_while_no_loop_runs_leaves_the_calls_alone(loop, service, client):
    waiting = loop.create_task(client.wait("job-1"))
    loop.run_until_complete(asyncio.sleep(0))
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    service.status = "success"
    assert loop.run_until_complete(waiting).is_success


def test_the_handler_of_the_program_stays(loop, service, client):
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(service.status))
    service.status = "success"
    loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
    assert loop.run_until_complete(client.generate("an eagle", progress=False)).is_success
    assert heard == ["success"]
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_call_in_another_thread_is_not_interrupted(loop, service, client):
    results = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(client.wait("job-1"))))
    thread.start()
    interrupt(loop, client.wait("job-2"), lambda: not results)
    service.status = "success"
    thread.join()
    assert results[0].is_success


def test_without_a_task_a_block_does_nothing():
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_block_that_ends_in_another_thread_does_no_harm(loop):
    async def enter(block):
        block.__enter__()

    block = interruptible()
    loop.run_until_complete(enter(block))
    errors = []
    leave = threading.Thread(target=lambda: errors.append(block.__exit__(None, None, None)))
    leave.start()
    leave.join()
    assert errors == [False]
    signal.signal(signal.SIGINT, signal.default_int_handler)
