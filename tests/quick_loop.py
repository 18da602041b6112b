"""Event loops with real sockets and another clock, for tests that would wait for the clock of the machine."""

from __future__ import annotations

import asyncio
import selectors

SPEED = 10.0
"""Seconds of the clock of a `QuickLoop` in a second."""


class _QuickSelector(selectors.DefaultSelector):
    """Waits for a tenth of the time that it is told to wait."""

    def select(self, timeout=None):
        return super().select(timeout and timeout / SPEED)


class QuickLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is fast; every timeout and every delay of what runs in it is by this clock."""

    def __init__(self) -> None:
        super().__init__(_QuickSelector())

    def time(self) -> float:
        return super().time() * SPEED


class AdjustableLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test can put forward, so that a timeout is over at once however long it is."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead

    def put_forward(self, seconds: float) -> None:
        self.ahead += seconds
