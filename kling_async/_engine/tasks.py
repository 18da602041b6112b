"""Work that outlives the cancellation of its caller, for as long as it must."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")


async def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a task of its own and return its result.

    Cancelling the caller, by a cancel scope or by `Task.cancel()`, does not reach the work: the caller waits for its
    end and raises the cancellation then.
    """
    return await _join(asyncio.ensure_future(work), cancels=False)


async def run_cancellable(work: Coroutine[Any, Any, T]) -> T:
    """The same for work that a cancellation of the caller cancels once, and then waits for.

    A cancel scope cancels its tasks again and again until they end. The tasks that the work starts meet one
    cancellation each, and may take their time to end.
    """
    return await _join(asyncio.ensure_future(work), cancels=True)


async def raise_if_cancelled() -> None:
    """Raise a cancellation that was requested and not delivered yet; costs next to nothing where there is none.

    A listener that cancels its own batch is called by a task that runs, and such a task meets the cancellation at its
    next suspension only.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()
    task = asyncio.current_task()
    assert task is not None
    if task.cancelling():
        await asyncio.sleep(0)


async def _join(task: asyncio.Task[T], *, cancels: bool) -> T:
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if cancels:
            task.cancel()
        with anyio.CancelScope(shield=True):
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
        task.result()  # an error of the work matters more than the cancellation
        raise
