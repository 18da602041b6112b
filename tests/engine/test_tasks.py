from __future__ import annotations

import asyncio

import anyio
import pytest

from kling_async._engine.tasks import raise_if_cancelled, run_cancellable, run_to_end


class Work:
    """A coroutine that takes a second, and notes its end and its cancellations."""

    def __init__(self, *, error=None, ends_after_cancel=0.0):
        self.log = []
        self._error = error
        self._ends_after_cancel = ends_after_cancel

    async def run(self):
        try:
            await anyio.sleep(1)
        except asyncio.CancelledError:
            self.log.append(("cancelled", anyio.current_time()))
            await anyio.sleep(self._ends_after_cancel)
            raise
        if self._error is not None:
            raise self._error
        self.log.append(("ended", anyio.current_time()))
        return "result"


RUNS = pytest.mark.parametrize("run", [run_to_end, run_cancellable])


@RUNS
async def test_without_a_cancellation_the_result_is_returned(run):
    assert await run(Work().run()) == "result"


@RUNS
async def test_without_a_cancellation_the_error_is_raised(run):
    with pytest.raises(KeyError, match="of the work"):
        await run(Work(error=KeyError("of the work")).run())


async def cancel_by_task(call, *, times):
    task = asyncio.ensure_future(call)
    for _ in range(times):
        await anyio.sleep(0.1)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def cancel_by_scope(call, *, times):
    del times
    with anyio.move_on_after(0.1) as scope:
        await call
    assert scope.cancelled_caught


CANCELLATIONS = pytest.mark.parametrize(
    "cancel, times", [(cancel_by_task, 1), (cancel_by_task, 2), (cancel_by_scope, 1)]
)


@CANCELLATIONS
async def test_a_cancelled_caller_waits_until_the_work_ends(cancel, times):
    work = Work()
    await cancel(run_to_end(work.run()), times=times)
    assert work.log == [("ended", 1.0)]
    assert anyio.current_time() == 1.0


@CANCELLATIONS
async def test_work_that_can_be_cancelled_is_cancelled_once_and_can_take_its_time(cancel, times):
    work = Work(ends_after_cancel=5.0)
    await cancel(run_cancellable(work.run()), times=times)
    assert work.log == [("cancelled", pytest.approx(0.1))]
    assert anyio.current_time() == pytest.approx(5.1)


async def test_the_error_of_the_work_replaces_the_cancellation():
    task = asyncio.ensure_future(run_to_end(Work(error=KeyError("of the work")).run()))
    await anyio.sleep(0.1)
    task.cancel()
    with pytest.raises(KeyError, match="of the work"):
        await task


async def test_a_task_that_is_cancelled_after_its_scope_ends_cancelled():
    """The scope takes its own cancellation only: the second one is of the whole task."""
    log = []

    async def call():
        with anyio.move_on_after(0.1):
            await run_to_end(Work().run())
        log.append("went on")
        await anyio.sleep(1)

    task = asyncio.ensure_future(call())
    await anyio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == []
    assert anyio.current_time() == 1.0


async def test_without_a_cancellation_nothing_is_raised_and_no_other_task_runs():
    log = []
    asyncio.get_running_loop().call_soon(log.append, "other")
    await raise_if_cancelled()
    assert log == []


async def test_a_task_that_cancels_itself_learns_of_it():
    async def call():
        asyncio.current_task().cancel()
        await raise_if_cancelled()
        pytest.fail("the cancellation was not raised")

    task = asyncio.ensure_future(call())
    await asyncio.wait({task})
    assert task.cancelled()


async def test_a_task_that_cancels_its_scope_learns_of_it():
    with anyio.CancelScope() as scope:
        scope.cancel()
        await raise_if_cancelled()
        pytest.fail("the cancellation was not raised")
    assert scope.cancelled_caught
