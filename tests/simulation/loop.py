"""The event loop of one simulated world."""

from __future__ import annotations

import asyncio
import selectors
from contextvars import copy_context

from virtual_service import VirtualLoop

from .gate import GATE, Turn

_MAX_TURNS = 400_000


class _Jumping(selectors.DefaultSelector):
    """Does not ask the machine for input: in a world only timers make something happen."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0

    def select(self, timeout=None):
        self.turns += 1
        if self.turns > _MAX_TURNS:
            raise RuntimeError(f"the world still runs at {self.now:.3f} s after {_MAX_TURNS:,} turns")
        if timeout is None:
            raise RuntimeError(f"no event can happen any more at {self.now:.3f} s")
        if timeout > 0:
            self.now += timeout
        return []


class _Task(asyncio.Task):
    """A task that hashes by its number, so that sets of tasks have the same order in every run."""

    def __init__(self, *args, number, **settings) -> None:
        self._number = number
        super().__init__(*args, **settings)

    def __hash__(self) -> int:
        return self._number


class WorldLoop(VirtualLoop):
    """A virtual loop that runs the same way each time, and raises an error instead of an endless wait."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        asyncio.SelectorEventLoop.__init__(self, self._jumping)
        self._tasks_made = 0
        self.set_task_factory(self._make)

    def _make(self, loop, coroutine, **settings):
        self._tasks_made += 1
        return _Task(coroutine, loop=loop, number=self._tasks_made, **settings)

    # A callback of a process passes the gate of that process. The context of the callback tells which process that is.

    def call_soon(self, callback, *args, context=None):
        turn = self._make_turn(callback, args, context)
        if turn is None:
            return super().call_soon(callback, *args, context=context)
        turn.handle = super().call_soon(turn, context=turn.context)
        return turn.handle

    def call_at(self, when, callback, *args, context=None):
        turn = self._make_turn(callback, args, context)
        if turn is None:
            return super().call_at(when, callback, *args, context=context)
        turn.handle = super().call_at(when, turn, context=turn.context)
        return turn.handle

    def call_soon_threadsafe(self, callback, *args, context=None):
        return self.call_soon(callback, *args, context=context)  # a world has one thread

    @staticmethod
    def _make_turn(callback, args, context):
        gate = GATE.get() if context is None else context.get(GATE)
        return None if gate is None else Turn(gate, callback, args, context or copy_context())
