"""Interrupts of an event loop that continues later: the calls in the loop are cancelled, so that they submit nothing more.

`asyncio.run` cancels its task at the first Ctrl-C. `run_until_complete`, which a terminal of IPython calls for each cell,
raises the `KeyboardInterrupt` and leaves the task as it is: the task would continue at the next cell that awaits, and the
threads that it waits for would keep the program from ending. So the first Ctrl-C cancels the calls here too, and a second
one raises the `KeyboardInterrupt`.
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


def cancel_calls(loop: asyncio.AbstractEventLoop) -> bool:
    """Cancel the calls in an event loop that no interrupt has cancelled before; False if there is none."""
    calls = [call for call in list(_calls) if call.task.get_loop() is loop]
    tasks = {call.task for call in calls if not call.is_interrupted}
    for call in calls:
        call.is_interrupted = True
    for task in tasks:
        task.cancel()
    return bool(tasks)


async def wait_for_interrupted() -> None:
    """Wait until the interrupted calls of this event loop have ended: they can have the same journal open."""
    loop, mine = asyncio.get_running_loop(), asyncio.current_task()
    for call in list(_calls):
        if call.is_interrupted and call.task is not mine and call.task.get_loop() is loop:
            await call.has_ended.wait()


def _handle_ctrl_c(number: int, frame: FrameType | None) -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # no event loop runs, so no call does
        signal.default_int_handler(number, frame)
    if not cancel_calls(loop):
        signal.default_int_handler(number, frame)
    loop.call_soon_threadsafe(lambda: None)  # wakes a loop that waits for its sockets


def _replace_handler(former: object, new: signal.Handlers | object) -> None:
    """Replace the handler of Ctrl-C if it is the former one: that of a program, such as `asyncio.run`, stays."""
    if signal.getsignal(signal.SIGINT) is former:
        with suppress(
            ValueError
        ):  # another thread collects the block as garbage, or this is no main interpreter
            signal.signal(signal.SIGINT, new)  # type: ignore[arg-type]
