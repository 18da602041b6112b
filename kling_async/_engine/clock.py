"""The engine's only source of time; a test can replace it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import anyio


class Clock:
    """The event loop's clock for waits, and the machine's clock for recorded times."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        """Seconds of a monotonic clock; only differences have a meaning.

        Each call asks the loop for the time: a test that freezes the time can change how the loop tells it.
        """
        return self._loop.time()

    def wall(self) -> float:
        """Unix seconds by the clock of this machine, which can differ from the service's clock."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait; zero and less only let other tasks run."""
        await anyio.sleep(max(seconds, 0.0))

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """A handle that cancels the call of a function at a time of `now`."""
        return asyncio.get_running_loop().call_at(when, callback)

    async def wait(self, event: anyio.Event, seconds: float) -> None:
        """Wait until an event is set; after so many seconds this call sets the event itself.

        That is cheaper than to cancel the wait, and the poller waits once for every poll.
        """
        if seconds == math.inf:
            await event.wait()
            return
        alarm = asyncio.get_running_loop().call_later(max(seconds, 0.0), event.set)
        try:
            await event.wait()
        finally:
            alarm.cancel()
