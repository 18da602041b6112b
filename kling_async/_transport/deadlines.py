"""Blocks that end in time, with one timer for all of them: what a call would pay for one of its own adds up."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType


class Deadlines:
    """The blocks of one event loop that must end in time. Made inside it, and used only there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: set[_Block] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def within(self, seconds: float) -> _Block:
        """A `with` block that is cancelled after so many seconds, and then raises `TimeoutError`."""
        return _Block(self, self._loop.time() + seconds)

    def close(self) -> None:
        """Ring no more."""
        if self._alarm is not None:
            self._alarm.cancel()

    def enter(self, block: _Block) -> None:
        """Watch a block from now on."""
        self._open.add(block)
        if block.ends_at < self._rings_at:
            self._set(block.ends_at)

    def leave(self, block: _Block) -> None:
        """Watch it no more. The alarm stays: it costs less to ring for nobody than to be set for everyone."""
        self._open.discard(block)

    def _set(self, moment: float) -> None:
        self.close()
        self._rings_at = moment
        self._alarm = self._loop.call_at(moment, self._ring)

    def _ring(self) -> None:
        now = self._loop.time()
        for block in [block for block in self._open if block.ends_at <= now]:
            self.leave(block)
            block.expire()
        self._rings_at = math.inf
        if self._open:
            self._set(min(block.ends_at for block in self._open))


class _Block:
    """One block of code in one task; cancels its task as `asyncio.timeout` does."""

    __slots__ = ("_cancelling", "_deadlines", "_is_expired", "_task", "ends_at")

    def __init__(self, deadlines: Deadlines, ends_at: float) -> None:
        self.ends_at = ends_at
        self._deadlines = deadlines
        self._is_expired = False

    def expire(self) -> None:
        self._is_expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "only a task can be cancelled"
        self._task = task
        self._cancelling = task.cancelling()
        self._deadlines.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deadlines.leave(self)
        if self._is_expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
