"""Runs blocking work in threads, and waits for it even if the caller is cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio.to_thread

from kling_async._engine.descriptors import retry_for_descriptor
from kling_async._engine.tasks import run_to_end

T = TypeVar("T")


async def run_in_thread(work: Callable[[], T]) -> T:
    """The result of blocking work that can be repeated; see `retry_for_descriptor`.

    A cancellation waits for the thread, so that no work goes on when its files are closed; it comes before an error.
    """

    async def run() -> T | Exception:
        try:
            return await anyio.to_thread.run_sync(work)
        except Exception as error:  # noqa: BLE001 - raised below
            return error

    async def run_or_raise() -> T:
        outcome = await run_to_end(run())
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return await retry_for_descriptor(run_or_raise)


@asynccontextmanager
async def open_in_thread(make: Callable[[], T], close: Callable[[T], None]) -> AsyncIterator[T]:
    """What a thread makes, such as an open file; a thread closes it at the end of the block.

    A cancellation waits for the thread: else nothing would close what the thread makes after the cancellation.

    Args:
        make: Blocking work that can be repeated.
        close: Closes what was made.
    """
    made: list[T] = []
    try:
        await run_in_thread(lambda: made.append(make()))
        yield made[0]
    finally:
        for resource in made:
            await run_to_end(anyio.to_thread.run_sync(close, resource))
