"""One request and the head of its reply, over a connection of aiohttp's.

aiohttp connects, encrypts, keeps connections and reads replies. Its session also prepares each request anew for cookies,
redirects, proxies and bodies of any kind, which costs more than all else that is done for a job; requests here have none
of that, so they are written by what follows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import lru_cache

import aiohttp
import attrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from yarl import URL

from kling_async._transport.base import Request

_URL = re.compile(r"(https?://[^/?#@\s]+)(/[!-~]*)?", re.ASCII | re.IGNORECASE)
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REPEATABLE = frozenset({"GET", "PUT"})
"""What may be: a kept connection that the other side dropped is noticed only when it is used again."""
_MAX_IDLE = 1.0
"""Seconds, at the most, for which a connection is at hand that nothing is sent over."""


@attrs.frozen
class _Origin:
    """Where requests of one kind go, and what they all say."""

    headers: Mapping[str, str]
    request: aiohttp.ClientRequest
    """None that is sent: by it the connector knows whom to connect to."""
    lines: str
    idle: list[Connection] = attrs.field(factory=list)
    """Connections over which a reply has just come: the connector would put them away and look them up again, which
    costs as much as to send a request does."""


@attrs.frozen
class ResponseHead:
    """The head of a reply, the body to come, and the connection that it comes over."""

    head: RawResponseMessage
    content: aiohttp.StreamReader
    connection: Connection
    origin: _Origin


@attrs.define(eq=False)
class Http1Sender:
    """Sends requests over a connector; made inside a running event loop, and used only there."""

    _connector: aiohttp.BaseConnector
    _origins: dict[str, _Origin] = attrs.field(factory=dict, init=False)
    _timer: asyncio.TimerHandle | None = attrs.field(default=None, init=False)

    async def send(self, request: Request) -> ResponseHead:
        """Send a request, and read its reply up to the body. The caller ends it, or closes the connection.

        Half the time is for connecting, so that a slow connect ends before the call and counts as not sent.

        Raises:
            aiohttp.ClientError: There is no connection, or it ended; `over_aiohttp` says which of them was sent.
            aiohttp.http_exceptions.HttpProcessingError: What came is no HTTP.
            OSError: The connection broke.
        """
        address = _URL.fullmatch(request.url.partition("#")[0])
        if address is None:
            raise aiohttp.InvalidURL(request.url)
        origin = self._origin(address[1], request.headers)
        length = f"Content-Length: {len(request.body or b'')}\r\n" if request.method != "GET" else ""
        head = f"{request.method} {address[2] or '/'} HTTP/1.1\r\n{origin.lines}{length}\r\n"
        message = head.encode() + (request.body or b"")
        try:
            return await self._send_once(origin, message, request.timeout / 2)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            if request.method not in _REPEATABLE:
                raise
            return await self._send_once(origin, message, request.timeout / 2)

    def release(self, answer: ResponseHead) -> None:
        """The body of a reply was read whole: its connection is for the next request."""
        answer.origin.idle.append(answer.connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_MAX_IDLE, self.release_idle)

    def release_idle(self) -> None:
        """Leave the connections at hand to the connector, which closes them in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for origin in self._origins.values():
            while origin.idle:
                origin.idle.pop().release()

    def _origin(self, address: str, headers: Mapping[str, str]) -> _Origin:
        origin = self._origins.get(address)
        if origin is None or origin.headers is not headers:
            loop = asyncio.get_running_loop()
            request = aiohttp.ClientRequest("GET", to_yarl(address), headers=headers, loop=loop)
            lines = [f"{name}: {value}" for name, value in request.headers.items()]
            if odd := _CONTROL_CHARACTERS.search("".join(lines)):
                raise ValueError(f"a header holds {odd[0]!r}")
            idle = origin.idle if origin is not None else []
            origin = self._origins[address] = _Origin(
                headers, request, "".join(f"{line}\r\n" for line in lines), idle
            )
        return origin

    async def _send_once(self, origin: _Origin, message: bytes, connect_timeout: float) -> ResponseHead:
        connection = self._take_idle(origin)
        if connection is None:
            try:
                connection = await self._connector.connect(
                    origin.request, [], _connect_timeout(connect_timeout)
                )
            except TimeoutError as error:
                raise aiohttp.ConnectionTimeoutError from error
        try:
            protocol, transport = protocol_and_transport(connection)
            protocol.set_response_params(read_until_eof=True)
            transport.write(message)
            head, content = await protocol.read()
            while 100 <= head.code < 200 and head.code != 101:  # noqa: PLR2004 - RFC 9110 section 15.2
                head, content = await protocol.read()
        except BaseException:
            connection.close()
            raise
        return ResponseHead(head, content, connection, origin)

    def _take_idle(self, origin: _Origin) -> Connection | None:
        """A connection that is at hand and good."""
        while origin.idle:
            connection = origin.idle.pop()
            if connection.protocol is not None and is_reusable(connection.protocol):
                return connection
            connection.close()
        return None


def is_reusable(protocol: ResponseHandler) -> bool:
    """Whether a kept connection is still there, and nothing came on it that nobody asked for.

    A proxy that answers twice, or says "408" to an idle connection, would have its words taken for the answer to
    the next call: one job's id for another's.
    """
    return protocol.is_connected() and not protocol.should_close


def to_yarl(address: str) -> URL:
    """An address as aiohttp wants it.

    Raises:
        aiohttp.InvalidURL: It is none.
    """
    try:
        url = URL(address, encoded=True)
        _ = url.port
    except ValueError as error:
        raise aiohttp.InvalidURL(address) from error
    return url


def protocol_and_transport(connection: Connection | None) -> tuple[ResponseHandler, asyncio.Transport]:
    """What reads from a connection, and what writes to it.

    Raises:
        aiohttp.ServerDisconnectedError: It is none any more.
    """
    if connection is None or connection.protocol is None or connection.transport is None:
        raise aiohttp.ServerDisconnectedError("it was closed meanwhile")
    return connection.protocol, connection.transport


@lru_cache(maxsize=16)
def _connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=seconds)
