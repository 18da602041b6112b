"""Errors that the code of a caller can raise within our work."""

from __future__ import annotations

import asyncio


class OfTheCallerError(BaseException):
    """Neither an `Exception` nor one of Python's own."""


HARMLESS = [
    ValueError,
    asyncio.CancelledError,
    TimeoutError,
    GeneratorExit,
    StopIteration,
    StopAsyncIteration,
    RecursionError,
    MemoryError,
    OfTheCallerError,
]
FINAL = [KeyboardInterrupt, SystemExit]


def raiser(kind):
    """A function of the caller that raises such an error, whatever it is called with."""

    def fail(*_):
        raise kind("of the caller")

    return fail
