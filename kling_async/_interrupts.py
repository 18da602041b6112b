"""Interrupts of an event loop that continues later: the calls in the loop are cancelled, so that they submit nothing more.

`asyncio.run` cancels its task at Ctrl-C. `run_until_complete`, which a terminal of IPython calls for each cell, raises the
`KeyboardInterrupt` and leaves the task as it is: the task would continue at the next cell that awaits.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import attrs


@attrs.define(eq=False)
class _Call:
    """A call that runs in a task."""

    task: asyncio.Task[object]
    is_interrupted: bool = False
    has_ended: asyncio.Event = attrs.field(init=False, factory=asyncio.Event)


_calls: set[_Call] = set()


@contextmanager
def interruptible() -> Iterator[None]:
    """A block of a call, which an interrupt of the event loop cancels."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # in no event loop of asyncio, as the call itself says
        task = None
    if (
        task is None or threading.current_thread() is not threading.main_thread()
    ):  # Python interrupts no other
        yield
        return
    call = _Call(task)
    _calls.add(call)
    _replace_handler(signal.default_int_handler, _handle_ctrl_c)
    try:
        yield
    finally:
        _calls.discard(call)
        call.has_ended.set()
        if not _calls:
            _replace_handler(_handle_ctrl_c, signal.default_int_handler)


def cancel_calls(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the calls in an event loop that an exception is about to end; the running task gets the exception itself."""
    running = asyncio.current_task(loop)
    tasks = set()
    for call in list(_calls):
        if call.task is not running and call.task.get_loop() is loop:
            call.is_interrupted = True
            tasks.add(call.task)
    for task in tasks:
        task.cancel()


async def wait_for_interrupted() -> None:
    """Wait until the interrupted calls of this event loop have ended: they can have the same journal open."""
    loop, mine = asyncio.get_running_loop(), asyncio.current_task()
    for call in list(_calls):
        if call.is_interrupted and call.task is not mine and call.task.get_loop() is loop:
            await call.has_ended.wait()


def _handle_ctrl_c(number: int, frame: FrameType | None) -> None:
    with suppress(RuntimeError):  # no event loop runs, so no call does
        cancel_calls(asyncio.get_running_loop())
    signal.default_int_handler(number, frame)


def _replace_handler(former: object, new: signal.Handlers | object) -> None:
    """Replace the handler of Ctrl-C if it is the former one: that of a program, such as `asyncio.run`, stays."""
    if signal.getsignal(signal.SIGINT) is former:
        with suppress(
            ValueError
        ):  # another thread collects the block as garbage, or this is no main interpreter
            signal.signal(signal.SIGINT, new)  # type: ignore[arg-type]
