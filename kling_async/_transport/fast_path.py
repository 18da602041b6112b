"""A cheaper transport over parts of aiohttp 3 that its documentation does not name.

aiohttp connects, encrypts, pools connections and parses responses. Its session also prepares each request for cookies,
redirects, proxies and bodies of any kind, which costs more than everything else that is done for a job; and it makes a
new bytes object for each read of a long body and copies it once more, which costs more than writing the file. The
requests here need none of it, so this module writes them itself, and reads long bodies into one buffer.

`reason_against` says whether the aiohttp of this process has these parts. Nothing else in the package needs them.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Callable, Mapping

import aiohttp
import attrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError

from kling_async._transport.base import Reply, Request, Sink, StreamedReply
from kling_async._transport.interception import find_interceptor
from kling_async._transport.network import Network
from kling_async._transport.over_aiohttp import (
    HELD_SHARE,
    LONGEST_SILENCE,
    AiohttpTransport,
    join_headers,
    read_body,
    split_address,
    timeout_to_connect,
    to_yarl,
)
from kling_async._transport.translate_errors import raise_translated, translate_errors

BUFFER_BYTES = 1024 * 1024

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REPEATABLE = frozenset({"GET", "PUT"})
"""Methods that are sent a second time if a kept connection turns out to be closed by the server."""


def reason_against(network: Network) -> str | None:
    """Why this path cannot be used; None if it can.

    Signatures and names are compared with those that this module uses, and a mock, a recorder or a tracer that replaces
    parts of the session has to see every request.
    """
    if network.proxies:
        return "a proxy is set"
    if not aiohttp.__version__.startswith("3."):
        return f"aiohttp {aiohttp.__version__} is not aiohttp 3"
    for owner, names in _ATTRIBUTES.items():
        if missing := [name for name in names if not hasattr(owner, name)]:
            return f"aiohttp's {owner.__name__} has no {missing[0]}"
    for function, given in _CALLS.items():
        try:
            inspect.signature(function).bind(*given[0], **given[1])
        except (TypeError, ValueError) as error:
            return f"aiohttp's {function.__qualname__} takes other arguments: {error}"
    interceptor = find_interceptor()
    return f"{interceptor} is replaced" if interceptor else None


_ATTRIBUTES: Mapping[type, tuple[str, ...]] = {
    ResponseHandler: ("is_connected", "should_close", "read", "start_timeout", "connection_lost"),
    Connection: ("protocol", "transport", "close", "release"),
    aiohttp.StreamReader: ("feed_eof", "total_bytes", "read_nowait", "readany", "at_eof", "set_exception"),
    aiohttp.ClientResponse: ("connection", "content_length"),
}
_CALLS: Mapping[Callable[..., object], tuple[tuple[object, ...], dict[str, object]]] = {
    aiohttp.ClientRequest: (("GET", None), {"headers": {}, "loop": None}),
    aiohttp.TCPConnector.connect: ((None, None, [], None), {}),
    ResponseHandler.set_response_params: ((None,), {"read_until_eof": True}),
}


class FastTransport(AiohttpTransport):
    """An `AiohttpTransport` that writes requests itself, and reads long bodies into one buffer."""

    def __init__(self, network: Network = Network(), *, longest_silence: float = LONGEST_SILENCE) -> None:  # noqa: B008 - a frozen value
        super().__init__(network, longest_silence=longest_silence)
        assert self._session.connector is not None
        self._sender = Http1Sender(self._session.connector, hold_for=longest_silence * HELD_SHARE)
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    async def send(self, request: Request) -> Reply:
        """See `Transport.send`."""
        self._check_open(request)
        is_post = request.method == "POST"
        if request.is_public_only or (is_post and self._may_be_silent()) or not self._is_plain():
            return await super().send(request)
        outer = sys.exception()
        try:
            with self._timeouts.limit(request.timeout):
                return await self._exchange_fast(request)
        except BaseException as error:
            raise_translated(error, request, outer=outer)
            raise

    async def _exchange_fast(self, request: Request) -> Reply:
        """The reply to a request. An error makes this frame forget its variables: they hold the key and the reply."""
        started = self._loop.time()
        response = await self._sender.send(request)
        self._being_read.add(response.end)
        try:
            body = await read_body(response.content, request, self._large_bodies)
        except BaseException:
            response.connection.close()
            raise
        finally:
            self._being_read.discard(response.end)
        if self._loop.time() - started > self._slow_after:
            response.connection.close()
        else:
            self._sender.keep(response)
        return Reply(response.message.code, response.message.headers, body)

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        self._sender.release_held()
        await super().aclose()

    def _make_streamed_reply(self, response: aiohttp.ClientResponse, request: Request) -> StreamedReply:
        is_measured = response.content_length is not None and "transfer-encoding" not in response.headers
        if not is_measured or find_interceptor():
            return super()._make_streamed_reply(response, request)
        return _MeasuredReply(response, request, self._buffer, self._note_reply)


class _MeasuredReply:
    """A `StreamedReply` whose length is known."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        request: Request,
        buffer: memoryview,
        note_reply: Callable[[float], None],
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = join_headers(response)
        self._request = request
        self._first_bytes = b"".join(iter(response.content.read_nowait, b""))
        self._reader: _BodyReader | None = None
        if not response.content.at_eof():
            self._reader = _BodyReader(response, buffer, timeout=request.timeout, note_reply=note_reply)

    async def pipe_to(self, sink: Sink) -> bool:
        """See `StreamedReply.pipe_to`."""
        first_bytes, self._first_bytes = self._first_bytes, b""
        if first_bytes and not sink(first_bytes):
            return False
        with translate_errors(self._request):
            return self._reader is None or await self._reader.pipe_to(sink)


class _BodyReader(asyncio.BufferedProtocol):
    """Takes the connection of a reply over from aiohttp, and gives it back when the body is complete.

    Args:
        reply: A reply of known length; no byte of its body is left in aiohttp's own buffer.
        buffer: Receives each piece. Other readers may share it: a piece goes to the sink before the next read.
        timeout: Seconds between two pieces.
        note_reply: Called at the end of the body with the time of the piece before the last.

    Raises:
        aiohttp.ServerDisconnectedError: The connection is closed.
    """

    def __init__(
        self,
        reply: aiohttp.ClientResponse,
        buffer: memoryview,
        *,
        timeout: float,
        note_reply: Callable[[float], None],
    ) -> None:
        self._previous_protocol, self._transport = protocol_and_transport(reply.connection)
        assert reply.content_length is not None
        self._content = reply.content
        self._remaining_bytes = reply.content_length - reply.content.total_bytes
        self._buffer = buffer
        self._timeout = timeout
        self._note_reply = note_reply
        self._loop = asyncio.get_running_loop()
        self._received_at = 0.0
        self._sink: Sink | None = None
        self._is_done = asyncio.Event()
        self._connection_error: Exception | None = None
        self._previous_protocol.set_response_params()  # aiohttp then expects no body, and notices bytes after it
        self._previous_protocol.start_timeout()  # with no body expected, this stops its timer
        self._transport.pause_reading()
        self._transport.set_protocol(self)

    async def pipe_to(self, sink: Sink) -> bool:
        """See `StreamedReply.pipe_to`.

        Raises:
            aiohttp.ServerDisconnectedError: The connection closed before the body was complete.
            OSError: The connection was lost.
            TimeoutError: No piece came within the timeout.
        """
        if self._connection_error is None and self._remaining_bytes:
            await self._read_into(sink)
        if self._connection_error is not None and self._remaining_bytes:
            raise self._connection_error
        return not self._remaining_bytes

    async def _read_into(self, sink: Sink) -> None:
        self._sink = sink
        self._is_done.clear()
        self._received_at = self._loop.time()
        self._transport.resume_reading()
        try:
            while not self._is_done.is_set():
                latest = self._received_at + self._timeout
                try:
                    async with asyncio.timeout_at(latest):
                        await self._is_done.wait()
                except TimeoutError:
                    if self._received_at + self._timeout <= latest:
                        raise
        finally:
            self._stop()

    def _stop(self) -> None:
        """Give the sink nothing more, and wake `pipe_to`."""
        self._sink = None
        self._is_done.set()
        if self._remaining_bytes:
            self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio passes it by name
        """The buffer for the next bytes, cut so that no byte after this body is read."""
        return self._buffer[: self._remaining_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """Give the bytes that were read to the sink."""
        assert self._sink is not None, "no bytes come while reading is paused"
        wants_more = self._sink(self._buffer[:nbytes])
        previous, self._received_at = self._received_at, self._loop.time()
        self._remaining_bytes -= nbytes
        if not self._remaining_bytes:
            self._transport.set_protocol(self._previous_protocol)
            self._content.feed_eof()
            self._note_reply(previous)
        if not (self._remaining_bytes and wants_more):
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the body ends here."""
        self._connection_error = exc or aiohttp.ServerDisconnectedError(
            f"{self._remaining_bytes:,} bytes were missing"
        )
        self._is_done.set()
        self._previous_protocol.connection_lost(exc)


@attrs.frozen
class _Origin:
    """One server with one set of headers, and the connections to that server that are held."""

    headers: Mapping[str, str]
    request: aiohttp.ClientRequest
    """Never sent: it tells the connector where to connect."""
    lines: str
    held: list[tuple[Connection, float]] = attrs.field(factory=list)
    """Connections that have just completed a response, each with the time of the event loop at that moment. The pool
    would store them and look them up again, which costs as much as sending a request."""


@attrs.frozen(eq=False)
class ResponseHead:
    """The status and headers of a response, with the connection on which its body follows."""

    message: RawResponseMessage
    content: aiohttp.StreamReader
    connection: Connection
    origin: _Origin

    def end(self) -> None:
        """Have the reader of the body raise an error."""
        self.content.set_exception(aiohttp.ClientConnectionError("the client was closed"))


@attrs.define(eq=False)
class Http1Sender:
    """Sends requests over a connector. Make it inside a running event loop and use it only there."""

    _connector: aiohttp.BaseConnector
    hold_for: float
    """Seconds after which a held connection is closed instead of used. The connector's pool gets it sooner, unless the
    event loop is blocked."""
    _origins: dict[str, _Origin] = attrs.field(factory=dict, init=False)
    _timer: asyncio.TimerHandle | None = attrs.field(default=None, init=False)

    async def send(self, request: Request) -> ResponseHead:
        """Send a request and read the response up to its body.

        Read the body next, then call `keep`; after an error, close the connection.

        Raises:
            aiohttp.ClientError: There is no connection, it was lost, or the response is not HTTP.
            OSError: The connection was lost.
        """
        server, path = split_address(request.url)
        origin = self._origin(server, request.headers)
        length = f"Content-Length: {len(request.body or b'')}\r\n" if request.method != "GET" else ""
        lines = f"{request.method} {path} HTTP/1.1\r\n{origin.lines}{length}\r\n"
        message = lines.encode() + (request.body or b"")
        is_last = request.method not in _REPEATABLE
        while True:
            connection = self._take_held(origin) or await self._connect(origin, request.connect_timeout)
            try:
                protocol, transport = protocol_and_transport(connection)
                protocol.set_response_params(read_until_eof=True)
                transport.write(message)
                head, content = await protocol.read()
                while 100 <= head.code < 200 and head.code != 101:  # noqa: PLR2004 - RFC 9110 section 15.2
                    head, content = await protocol.read()
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                connection.close()
                if is_last:
                    raise
                is_last = True
            except HttpProcessingError as error:
                connection.close()
                raise aiohttp.ClientError(error.message) from error
            except BaseException:
                connection.close()
                raise
            else:
                return ResponseHead(head, content, connection, origin)

    def keep(self, response: ResponseHead) -> None:
        """Keep the connection of a response whose body was read completely, for the next request."""
        loop = asyncio.get_running_loop()
        response.origin.held.append((response.connection, loop.time()))
        if self._timer is None:
            self._timer = loop.call_later(self.hold_for / 2, self.release_held)

    def release_held(self) -> None:
        """Give the held connections back to the connector, which closes them in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for origin in self._origins.values():
            while origin.held:
                connection, since = origin.held.pop()
                if self._is_stale(since):
                    connection.close()
                else:
                    connection.release()

    def _origin(self, server: str, headers: Mapping[str, str]) -> _Origin:
        origin = self._origins.get(server)
        if origin is None or origin.headers is not headers:
            loop = asyncio.get_running_loop()
            request = aiohttp.ClientRequest("GET", to_yarl(server), headers=headers, loop=loop)
            lines = [f"{name}: {value}" for name, value in request.headers.items()]
            if odd := _CONTROL_CHARACTERS.search("".join(lines)):
                raise ValueError(f"a header holds {odd[0]!r}")
            held = origin.held if origin is not None else []
            origin = self._origins[server] = _Origin(
                headers, request, "".join(f"{line}\r\n" for line in lines), held
            )
        return origin

    async def _connect(self, origin: _Origin, within: float) -> Connection:
        try:
            return await self._connector.connect(origin.request, [], timeout_to_connect(within))
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error

    def _take_held(self, origin: _Origin) -> Connection | None:
        """A held connection that is still usable; None if there is none."""
        while origin.held:
            connection, since = origin.held.pop()
            protocol = connection.protocol
            if (
                protocol is not None
                and protocol.is_connected()
                and not protocol.should_close
                and not self._is_stale(since)
            ):
                return connection
            connection.close()
        return None

    def _is_stale(self, since: float) -> bool:
        return asyncio.get_running_loop().time() - since > self.hold_for


def protocol_and_transport(connection: Connection | None) -> tuple[ResponseHandler, asyncio.Transport]:
    """The protocol that reads from a connection and the transport that writes to it.

    Raises:
        aiohttp.ServerDisconnectedError: The connection is closed.
    """
    if connection is None or connection.protocol is None or connection.transport is None:
        raise aiohttp.ServerDisconnectedError("the connection is closed")
    return connection.protocol, connection.transport
