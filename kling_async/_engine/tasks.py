"""Runs coroutines that a cancellation of the caller does not interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

T = TypeVar("T")


async def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a task of its own and return its result.

    A cancellation of the caller, by a cancel scope or by `Task.cancel()`, does not reach the coroutine: the caller
    waits until the coroutine ends, and raises the cancellation then.
    """
    return await _join(asyncio.ensure_future(work), cancels=False)


async def run_cancellable(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a task of its own and return its result; a cancellation of the caller cancels it once.

    A cancel scope cancels its tasks again and again until they end. The coroutine and the tasks that it starts get one
    cancellation each, and can take their time to end.
    """
    return await _join(asyncio.ensure_future(work), cancels=True)


async def raise_if_cancelled() -> None:
    """Raise a cancellation that was requested and not delivered yet; it suspends the task only if there is one.

    A running task gets a cancellation at its next suspension only, such as a task that calls a listener which cancels
    the batch.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()
    if is_cancelled():
        await asyncio.sleep(0)


def first_error(error: Exception) -> Exception:
    """The first error of the groups that task groups raise, which says more to a user than the groups; else the error itself."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def is_cancelled() -> bool:
    """Whether a cancellation of the running task was requested, so that a `CancelledError` in it is no other code's."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling() > 0


async def _join(task: asyncio.Task[T], *, cancels: bool) -> T:
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as error:
        cancellation = error
    # Out of the block, so that no later cancellation refers to this one: a scope takes what refers to its own cancellation.
    if cancels:
        task.cancel()
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancellation = error  # not of a scope, but of the whole task
    try:
        if not task.cancelled():
            task.result()  # an error of the work matters more than the cancellation
        raise cancellation
    finally:
        del cancellation  # with its traceback it refers to this frame
