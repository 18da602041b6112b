"""Sends one HTTP/1.1 request and reads the head of its response, over a connection of aiohttp.

aiohttp connects, encrypts, pools connections and parses responses. Its session also prepares each request for cookies,
redirects, proxies and bodies of any kind. That costs more than everything else that is done for a job, and the requests
here need none of it, so this module writes them itself.
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
"""Methods that are sent a second time if a kept connection turns out to be closed by the server."""
_MAX_IDLE = 1.0
"""Seconds after which the connections that are kept here go back to aiohttp's pool."""
_STALE_AFTER = 2.0
"""Seconds after which a connection that is kept here is closed instead: the event loop was blocked."""
POOL_KEEP_ALIVE = 13.0
"""Seconds that the pool keeps a connection. With those above it is at most 15, which servers keep connections for."""


@attrs.frozen
class _Origin:
    """One server with one set of headers, and the idle connections to that server."""

    headers: Mapping[str, str]
    request: aiohttp.ClientRequest
    """Never sent: it tells the connector where to connect."""
    lines: str
    idle: list[tuple[Connection, float]] = attrs.field(factory=list)
    """Connections that have just completed a response, each with the time of the event loop at that moment. The pool
    would store them and look them up again, which costs as much as sending a request."""


@attrs.frozen
class ResponseHead:
    """The status and headers of a response, with the connection on which its body follows."""

    message: RawResponseMessage
    content: aiohttp.StreamReader
    connection: Connection
    origin: _Origin


@attrs.define(eq=False)
class Http1Sender:
    """Sends requests over a connector. Make it inside a running event loop and use it only there."""

    _connector: aiohttp.BaseConnector
    _origins: dict[str, _Origin] = attrs.field(factory=dict, init=False)
    _timer: asyncio.TimerHandle | None = attrs.field(default=None, init=False)

    async def send(self, request: Request) -> ResponseHead:
        """Send a request and read the response up to its body.

        Read the body next, then call `release`; after an error, close the connection. Half of the timeout is for
        connecting, so that a slow connect ends before the request does and counts as not sent.

        Raises:
            aiohttp.ClientError: There is no connection, or it was lost.
            aiohttp.http_exceptions.HttpProcessingError: The response is not HTTP.
            OSError: The connection was lost.
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

    def release(self, response: ResponseHead) -> None:
        """Keep the connection of a response whose body was read completely, for the next request."""
        loop = asyncio.get_running_loop()
        response.origin.idle.append((response.connection, loop.time()))
        if self._timer is None:
            self._timer = loop.call_later(_MAX_IDLE, self.release_idle)

    def release_idle(self) -> None:
        """Give the idle connections back to the connector, which closes them in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for origin in self._origins.values():
            while origin.idle:
                connection, since = origin.idle.pop()
                if _is_stale(since):
                    connection.close()
                else:
                    connection.release()

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
        """An idle connection that is still usable; None if there is none."""
        while origin.idle:
            connection, since = origin.idle.pop()
            protocol = connection.protocol
            if protocol is not None and is_reusable(protocol) and not _is_stale(since):
                return connection
            connection.close()
        return None


def _is_stale(since: float) -> bool:
    return asyncio.get_running_loop().time() - since > _STALE_AFTER


def is_reusable(protocol: ResponseHandler) -> bool:
    """Whether a kept connection is still open and has received nothing since its last response.

    Bytes that a proxy sends on an idle connection, such as a second response or a "408", would be read as the response
    to the next request: the id of one job as the id of another.
    """
    return protocol.is_connected() and not protocol.should_close


def to_yarl(address: str) -> URL:
    """A URL in the form that aiohttp takes.

    Raises:
        aiohttp.InvalidURL: It is not a URL.
    """
    try:
        url = URL(address, encoded=True)
        _ = url.port
    except ValueError as error:
        raise aiohttp.InvalidURL(address) from error
    return url


def protocol_and_transport(connection: Connection | None) -> tuple[ResponseHandler, asyncio.Transport]:
    """The protocol that reads from a connection and the transport that writes to it.

    Raises:
        aiohttp.ServerDisconnectedError: The connection is closed.
    """
    if connection is None or connection.protocol is None or connection.transport is None:
        raise aiohttp.ServerDisconnectedError("the connection is closed")
    return connection.protocol, connection.transport


@lru_cache(maxsize=16)
def _connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=seconds)
