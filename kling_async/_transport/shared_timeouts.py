"""Timeouts for many blocks of code with one timer, because a timer for each request costs too much."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType


class SharedTimeouts:
    """The timeouts of one event loop. Make it inside that loop and use it only there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._blocks: set[_Block] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf

    def limit(self, seconds: float) -> _Block:
        """A `with` block that is cancelled after so many seconds and then raises `TimeoutError`."""
        return _Block(self, self._loop.time() + seconds)

    def close(self) -> None:
        """Stop the timer: no block times out from now on."""
        if self._timer is not None:
            self._timer.cancel()

    def add(self, block: _Block) -> None:
        """Start the timeout of a block."""
        self._blocks.add(block)
        if block.ends_at < self._fires_at:
            self._schedule(block.ends_at)

    def remove(self, block: _Block) -> None:
        """End the timeout of a block."""
        # The timer stays: one that finds no block costs less than setting one again for each block.
        self._blocks.discard(block)

    def _schedule(self, at: float) -> None:
        self.close()
        self._fires_at = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        now = self._loop.time()
        for block in [block for block in self._blocks if block.ends_at <= now]:
            self.remove(block)
            block.expire()
        self._fires_at = math.inf
        if self._blocks:
            self._schedule(min(block.ends_at for block in self._blocks))


class _Block:
    """The timeout of one block of code; it cancels the task of that block as `asyncio.timeout` does."""

    __slots__ = ("_cancelling", "_is_expired", "_task", "_timeouts", "ends_at")

    def __init__(self, timeouts: SharedTimeouts, ends_at: float) -> None:
        self.ends_at = ends_at
        self._timeouts = timeouts
        self._is_expired = False

    def expire(self) -> None:
        self._is_expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "only a task can be cancelled"
        self._task = task
        self._cancelling = task.cancelling()
        self._timeouts.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timeouts.remove(self)
        if self._is_expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
