"""The gate of a simulated process: while the process stands still, none of its tasks, timers or answers has a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

import attrs

GATE: ContextVar[Gate | None] = ContextVar("GATE", default=None)
"""The gate of the process whose code runs; every task and timer that the process starts inherits it."""


def outside() -> Context:
    """A context of no process: what runs there has its turn while processes stand still."""
    return Context()


@attrs.define(eq=False)
class Turn:
    """A callback of a process; it waits at the gate while that is closed, as for a process that gets SIGSTOP."""

    gate: Gate
    callback: Callable[..., Any]
    arguments: tuple[Any, ...]
    context: Context
    handle: asyncio.Handle | None = None

    def __call__(self) -> None:
        if self.gate.is_closed:
            self.gate.waiting.append(self)
        elif self.handle is None or not self.handle.cancelled():
            self.callback(*self.arguments)


@attrs.define(eq=False)
class Gate:
    """Lets the callbacks of one process through, or holds them back in their order."""

    is_closed: bool = False
    waiting: list[Turn] = attrs.field(factory=list)

    def open(self) -> None:
        """Let the process go on: what has waited comes first, in its order."""
        self.is_closed, turns, self.waiting = False, self.waiting, []
        loop = asyncio.get_running_loop()
        for turn in turns:
            asyncio.SelectorEventLoop.call_soon(loop, turn, context=turn.context)
