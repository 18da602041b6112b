"""What tests of many machines look at: the shards in the database, and conditions that another task makes true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
from postgres_server import run

from kling_async.emulator import EmulatorSettings, LogNormal

SLOW = EmulatorSettings(
    time_scale=1.0, queue_time=LogNormal(0.0), dispatch_time=0.0, run_time=LogNormal(60.0)
)
"""A service whose jobs run for a minute."""


async def until(condition: Callable[[], object]) -> None:
    """Return when a condition holds that another task, thread or process makes true."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def change(url: str, statement: str) -> psycopg.Cursor:
    """The result of a statement over another connection than those of kling_async."""
    return run(url, statement)


def shards(url: str) -> list[tuple[str, int]]:
    """The state and the attempts of each shard."""
    try:
        return change(url, "SELECT status, attempts FROM procrastinate_jobs ORDER BY id").fetchall()
    except psycopg.errors.UndefinedTable:
        return []


async def end(call: asyncio.Task) -> str:
    """Cancel a call; its note."""
    call.cancel()
    try:
        await call
    except asyncio.CancelledError as error:
        return error.__notes__[0]
    raise AssertionError("the call was not cancelled")
