"""Which parts of aiohttp a mock, a recorder or a tracer has replaced in this process.

A test that mocks HTTP must never send a paid POST by accident. So requests go through aiohttp's public session as soon
as a function is replaced that the session calls: the replacement sees each of them. Where a function is replaced that
this package does not call, the replacement would see nothing, and no POST is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from types import FunctionType

import aiohttp

_CALLED = (
    "ClientSession.__init__",
    "ClientSession.request",
    "ClientSession._request",
    "TCPConnector.connect",
    "TCPConnector._create_connection",
    "TCPConnector._resolve_host",
)
"""A request through the session calls these."""
_NOT_CALLED = ("ClientSession.get", "ClientSession.post", "ClientSession.put")
"""People replace these by hand, and this package calls `ClientSession.request` instead."""
_read_called, _read_not_called = attrgetter(*_CALLED), attrgetter(*_NOT_CALLED)


def read_called() -> tuple[object, ...]:
    """The functions that a request through the session calls, as they are now."""
    return _read(_CALLED, _read_called)


def find_interceptor() -> str | None:
    """The first replaced function that sees each request through the session, by its name in aiohttp."""
    return _find_replaced(_CALLED, read_called())


def find_blind_spot(session: aiohttp.ClientSession) -> str | None:
    """The first replaced part of aiohttp, by its name, that sees no request through this session."""
    for module in (aiohttp, aiohttp.client):
        if module.ClientSession is not type(session):
            return f"{module.__name__}.ClientSession"
    return _find_replaced(_NOT_CALLED, _read(_NOT_CALLED, _read_not_called))


def _read(names: Sequence[str], read_all: attrgetter[tuple[object, ...]]) -> tuple[object, ...]:
    """The functions of these names. A later aiohttp, or somebody's class in the place of one, may not have them all."""
    try:
        return read_all(aiohttp)
    except AttributeError:
        pairs = [name.split(".") for name in names]
        return tuple(getattr(getattr(aiohttp, owner), function, None) for owner, function in pairs)


@lru_cache(maxsize=8)
def _find_replaced(names: Sequence[str], functions: tuple[object, ...]) -> str | None:
    """The first name whose function is not aiohttp's own. Each request asks, and the answer to the last ones is kept."""
    pairs = zip(names, functions, strict=True)
    return next((f"aiohttp.{name}" for name, function in pairs if not _is_aiohttps(function)), None)


def _is_aiohttps(function: object) -> bool:
    """Whether aiohttp itself defines a function, or has none; a wrapper can copy the name, but not the code."""
    folder = Path(aiohttp.__file__).parent
    return function is None or (
        isinstance(function, FunctionType) and folder in Path(function.__code__.co_filename).parents
    )
