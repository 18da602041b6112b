"""Timeouts for many blocks of code with one timer, because a timer for each request costs too much."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType


class SharedTimeouts:
    """The timeouts of one event loop. Make it inside that loop and use it only there."""

    def __init__(self) -> None:
        self.blocks: set[_Block] = set()
        """The blocks that run now. A block adds and removes itself: a method for that would cost as much again."""
        self.fires_at = math.inf
        """When the timer fires. It stays when a block ends: one that finds no block costs less than one for each block."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def limit(self, seconds: float) -> _Block:
        """A `with` block that is cancelled after so many seconds and then raises `TimeoutError`."""
        return _Block(self, self._loop.time() + seconds)

    def close(self) -> None:
        """Stop the timer: no block times out from now on."""
        if self._timer is not None:
            self._timer.cancel()

    def fire_at(self, time: float) -> None:
        """Set the timer."""
        self.close()
        self.fires_at = time
        self._timer = self._loop.call_at(time, self._fire)

    def _fire(self) -> None:
        now = self._loop.time()
        for block in [block for block in self.blocks if block.ends_at <= now]:
            self.blocks.discard(block)
            block.expire()
        self.fires_at = math.inf
        if self.blocks:
            self.fire_at(min(block.ends_at for block in self.blocks))


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
        timeouts = self._timeouts
        timeouts.blocks.add(self)
        if self.ends_at < timeouts.fires_at:
            timeouts.fire_at(self.ends_at)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timeouts.blocks.discard(self)
        if self._is_expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
