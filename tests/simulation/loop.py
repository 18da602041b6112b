"""The event loop of one simulated world."""

from __future__ import annotations

import asyncio
import selectors

from virtual_service import VirtualLoop

_MOST_TURNS = 400_000


class _Jumping(selectors.DefaultSelector):
    """Never asks the machine for anything: in a world nothing happens but by timers."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0

    def select(self, timeout=None):
        self.turns += 1
        if self.turns > _MOST_TURNS:
            raise RuntimeError(f"the world still spins at {self.now:.3f} s after {_MOST_TURNS:,} turns")
        if timeout is None:
            raise RuntimeError(f"nothing can happen any more at {self.now:.3f} s")
        if timeout > 0:
            self.now += timeout
        return []


class _Task(asyncio.Task):
    """A task with a number: in sets of tasks it stands at the same place in every run."""

    def __init__(self, *args, number, **settings) -> None:
        self._number = number
        super().__init__(*args, **settings)

    def __hash__(self) -> int:
        return self._number


class WorldLoop(VirtualLoop):
    """A virtual loop that runs alike each time, and complains where it would wait without end."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        asyncio.SelectorEventLoop.__init__(self, self._jumping)
        self._tasks_made = 0
        self.set_task_factory(self._make)

    def _make(self, loop, coroutine, **settings):
        self._tasks_made += 1
        return _Task(coroutine, loop=loop, number=self._tasks_made, **settings)
