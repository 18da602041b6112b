"""The engine's only source of time, so that a test can bring its own."""

from __future__ import annotations

import asyncio
import math
import time

import anyio


class Clock:
    """The event loop's clock for waiting, and the machine's for what is written down."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time
        """Seconds of a clock that never goes back; only differences mean something."""

    def wall(self) -> float:
        """Unix seconds, as comparable with the service's own as the two machines' clocks are."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait; zero and less only let others run."""
        await anyio.sleep(max(seconds, 0.0))

    async def wait(self, event: anyio.Event, seconds: float) -> None:
        """Wait for an event, which is set by itself after so many seconds.

        Cheaper than to cancel the wait, and the watcher waits for every next job.
        """
        if seconds == math.inf:
            await event.wait()
            return
        alarm = asyncio.get_running_loop().call_later(max(seconds, 0.0), event.set)
        try:
            await event.wait()
        finally:
            alarm.cancel()
