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
_NAMES_OF_THE_SESSION = ("ClientSession", "client.ClientSession")
_PARTS = (*_CALLED, *_NOT_CALLED, *_NAMES_OF_THE_SESSION)
_read_all = attrgetter(*_PARTS)


def read_parts() -> tuple[object, ...]:
    """The parts of aiohttp that people replace, as they are now; to compare them costs less than to examine them."""
    try:
        return _read_all(aiohttp)
    except AttributeError:  # a later aiohttp, or a class in the place of the session, may not have them all
        return tuple(_read(name) for name in _PARTS)


def find_interceptor() -> str | None:
    """The first replaced function that sees each request through the session, by its name in aiohttp."""
    return _find_replaced(_CALLED)


def find_blind_spot(session: aiohttp.ClientSession) -> str | None:
    """The first replaced part of aiohttp, by its name, that sees no request through this session."""
    for name in _NAMES_OF_THE_SESSION:
        if _read(name) is not type(session):
            return f"aiohttp.{name}"
    return _find_replaced(_NOT_CALLED)


def _find_replaced(names: Sequence[str]) -> str | None:
    """The first name whose function is not aiohttp's own."""
    return next((f"aiohttp.{name}" for name in names if not _is_aiohttps(_read(name))), None)


def _read(name: str) -> object:
    """The part of this name; None if there is none."""
    try:
        return attrgetter(name)(aiohttp)
    except AttributeError:
        return None


@lru_cache(maxsize=16)
def _is_aiohttps(function: object) -> bool:
    """Whether aiohttp itself defines a function, or has none; a wrapper can copy the name, but not the code."""
    folder = Path(aiohttp.__file__).parent
    return function is None or (
        isinstance(function, FunctionType) and folder in Path(function.__code__.co_filename).parents
    )
