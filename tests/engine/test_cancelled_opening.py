"""A call that is cancelled while a thread opens or closes a file leaves the file to the next call."""

from __future__ import annotations

import asyncio
import errno
import gc
import random
import threading

import anyio.to_thread
import pytest

from kling_async._engine.batch.batch import use_journal
from kling_async._engine.clock import Clock
from kling_async._engine.download.file_lock import open_locked
from kling_async._engine.download.partial_file import AdaptiveWriter, open_partial
from kling_async._engine.threads import open_in_thread
from kling_async._journal.open_journal import open_journal
from kling_async.journal import Journal

pytestmark = [pytest.mark.unmeasured, pytest.mark.anyio]


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Opening:
    """Something that a thread opens and closes; each waits until the test lets it go on."""

    def __init__(self):
        self.steps = []
        self.begins = {step: threading.Event() for step in ("open", "close")}
        self.may_end = {step: threading.Event() for step in ("open", "close")}

    def _run(self, step):
        self.begins[step].set()
        assert self.may_end[step].wait(10)
        self.steps.append(step)

    def make(self):
        self._run("open")
        return self

    def close(self):
        self._run("close")

    async def use(self):
        async with open_in_thread(self.make, Opening.close):
            self.steps.append("block")


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("step,steps", [("open", ["open", "close"]), ("close", ["open", "block", "close"])])
async def test_what_a_thread_opens_is_closed_once_at_any_moment_of_a_cancellation(step, steps, times):
    opening = Opening()
    opening.may_end["close" if step == "open" else "open"].set()
    task = asyncio.ensure_future(opening.use())
    await anyio.to_thread.run_sync(opening.begins[step].wait)

    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.001)
    assert not task.done()
    opening.may_end[step].set()

    await asyncio.wait({task})
    assert task.cancelled()
    assert opening.steps == steps


async def test_what_cannot_be_opened_is_not_closed():
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        async with open_in_thread(fail, pytest.fail):
            pass


async def test_a_cancellation_ends_a_wait_for_a_descriptor():
    has_tried = threading.Event()

    def fail():
        has_tried.set()
        raise OSError(errno.EMFILE, "Too many open files")

    async def use():
        async with open_in_thread(fail, pytest.fail):
            pass

    task = asyncio.ensure_future(use())
    await anyio.to_thread.run_sync(has_tried.wait)
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()


async def use_batch_journal(path):
    async with use_journal(str(path)):
        await asyncio.sleep(0.001)


async def register(path):
    await Journal(path).register(["a boat at dawn", "a boat at dusk"])


async def open_video(path):
    async with open_partial(path, request_id="job", writer=AdaptiveWriter(Clock())):
        await asyncio.sleep(0.001)


def open_journal_again(path):
    open_journal(path).close()


def open_video_again(path):
    locked_file = open_locked(path)
    try:
        assert (locked_file.path.name, locked_file.is_locked) == ("file.part", True)
    finally:
        locked_file.file.close()


@pytest.fixture
def no_collector():
    """The garbage collector, which would close what nothing uses any more, does not run."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize(
    "use,use_again",
    [(use_batch_journal, open_journal_again), (register, open_journal_again), (open_video, open_video_again)],
)
async def test_a_call_that_is_cancelled_at_any_moment_leaves_its_file_to_the_next_one(
    tmp_path, use, use_again, times
):
    moments = random.Random(times)  # noqa: S311 - no secret
    for _ in range(40):
        task = asyncio.ensure_future(use(tmp_path / "file"))
        await asyncio.sleep(moments.uniform(0, 0.02))
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(moments.uniform(0, 0.002))
        await asyncio.wait({task})
        assert task.cancelled() or task.exception() is None
        use_again(tmp_path / "file")
