"""Code of the caller that runs within our work: listeners, and the handlers and filters of a log.

Such code can raise anything and cancel anything, and must not hurt a call: the work that it interrupts may be the record
of a paid job.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Never

from kling_async._interrupts import cancel_calls


def call_safely(function: Callable[[], object]) -> BaseException | None:
    """Call a function of the caller, and return the error that it raises; None if it raises none.

    The event loop raises a `KeyboardInterrupt` or `SystemExit` at its next iteration, outside all tasks. The function sees no
    current task: it would be one of ours, and a task that is cancelled at its last step loses its result.

    Source: `_leave_task` and `_enter_task` are in "Extending" of the documentation of asyncio.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:  # outside an event loop
        task = None
    if task is not None:
        asyncio._leave_task(task.get_loop(), task)  # noqa: SLF001 - documented
    try:
        function()
    except (KeyboardInterrupt, SystemExit) as error:
        raise_from_loop(error)
    except BaseException as error:  # noqa: BLE001 - the caller's code may raise anything, also a CancelledError
        return error
    finally:
        if task is not None:
            asyncio._enter_task(task.get_loop(), task)  # noqa: SLF001 - documented
    return None


def raise_from_loop(error: BaseException) -> None:
    """Raise an error from the running event loop itself, or at once outside an event loop."""

    def leave() -> Never:
        with suppress(RuntimeError):  # outside an event loop
            cancel_calls(asyncio.get_running_loop())
        raise error

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        leave()
    loop.call_soon(leave)


class SafeLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls never raise: an error of a handler or a filter goes to stderr, as `logging` does elsewhere."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message."""
        if not self.isEnabledFor(level):
            return
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 2  # this function and `call_safely`
        error = call_safely(partial(self.logger.log, level, msg, *args, **kwargs))
        if error is not None and logging.raiseExceptions:
            with suppress(Exception):  # stderr can be closed, missing, or an object of the caller
                traceback.print_exception(error, file=sys.stderr)
