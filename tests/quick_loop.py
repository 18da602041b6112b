"""An event loop with real sockets in which ten seconds pass in one: for tests that wait until the engine asks again."""

from __future__ import annotations

import asyncio
import selectors

SPEED = 10.0
"""Seconds of the loop's clock in a second."""


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
