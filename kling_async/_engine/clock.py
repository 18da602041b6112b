"""The engine's only source of time, so that a test can bring its own."""

from __future__ import annotations

import asyncio
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
        """Wait for an event, but no longer than so many seconds."""
        with anyio.move_on_after(seconds):
            await event.wait()
