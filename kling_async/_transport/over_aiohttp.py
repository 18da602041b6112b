"""The transport over aiohttp, with its errors translated to those of this package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from kling_async._transport.base import Reply, Request, Sink
from kling_async._transport.body_reader import BUFFER_BYTES, BodyReader
from kling_async._transport.http1_sender import POOL_KEEP_ALIVE, Http1Sender, is_reusable, to_yarl
from kling_async._transport.shared_timeouts import SharedTimeouts
from kling_async.errors import APIConnectionError, APITimeoutError

LARGEST_REPLY_BYTES = 64 * 1024 * 1024


class _Connector(aiohttp.TCPConnector):
    """Closes a kept connection that received bytes while it was idle, and takes another."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or is_reusable(connection.protocol):
                return connection
            connection.close()


class AiohttpTransport:
    """One aiohttp session with as many connections as there are requests in flight.

    The engine limits the requests in flight, so the pool has no limit: waiting for a free connection would look like a
    slow service. Make it inside a running event loop and use it only there.

    The client notices that the server closed a kept connection only when it sends on that connection. A GET or PUT is
    then sent a second time; a POST never is.
    """

    def __init__(self) -> None:
        connector = _Connector(limit=0, keepalive_timeout=POOL_KEEP_ALIVE)
        self._sender = Http1Sender(connector)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
        )
        self._timeouts = SharedTimeouts()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    async def send(self, request: Request) -> Reply:
        """See `Transport.send`."""
        self._check_open(request)
        with _translate_errors(request), self._timeouts.limit(request.timeout):
            response = await self._sender.send(request)
            try:
                body = await _read_body(response.content, request)
            except BaseException:
                response.connection.close()
                raise
            self._sender.release(response)
            return Reply(response.message.code, response.message.headers, body)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[_StreamedReply]:
        """See `Transport.stream`."""
        self._check_open(request)
        timeout = aiohttp.ClientTimeout(connect=request.timeout / 2, sock_read=request.timeout)
        with _translate_errors(request):
            response = await self._session.request(
                request.method,
                to_yarl(request.url),
                headers=request.headers,
                data=request.body,
                allow_redirects=False,
                auto_decompress=False,
                timeout=timeout,
            )
        async with response:
            with _translate_errors(request):
                reply = _StreamedReply(response, request, self._buffer)
            yield reply

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        self._timeouts.close()
        self._sender.release_idle()
        await self._session.close()

    def _check_open(self, request: Request) -> None:
        if self._session.closed:
            raise APIConnectionError(f"{_describe_call(request)}: the client is closed.", was_sent=False)


class _StreamedReply:
    """A `StreamedReply` over aiohttp."""

    def __init__(self, response: aiohttp.ClientResponse, request: Request, buffer: memoryview) -> None:
        self._response = response
        self._request = request
        # A header that comes twice is a list; storage sends its digests so. Source: RFC 9110 section 5.3.
        found = response.headers
        self.headers: Mapping[str, str] = CIMultiDict({name: ", ".join(found.getall(name)) for name in found})
        self._has_length = response.content_length is not None and "transfer-encoding" not in found
        self._first_bytes = b""
        self._reader: BodyReader | None = None
        if self._has_length:
            self._first_bytes = b"".join(iter(response.content.read_nowait, b""))
            if not response.content.at_eof():
                self._reader = BodyReader(response, buffer, timeout=request.timeout)

    @property
    def status(self) -> int:
        return self._response.status

    async def pipe_to(self, sink: Sink) -> bool:
        """See `StreamedReply.pipe_to`."""
        first_bytes, self._first_bytes = self._first_bytes, b""
        if first_bytes and not sink(first_bytes):
            return False
        with _translate_errors(self._request):
            if self._has_length:
                return self._reader is None or await self._reader.pipe_to(sink)
            content = self._response.content
            while not content.at_eof():
                if (piece := await content.readany()) and not sink(piece):
                    return False
            return True


async def _read_body(content: aiohttp.StreamReader, request: Request) -> bytes:
    """The whole body, decompressed.

    Raises:
        APIConnectionError: The body is larger than any correct reply.
    """
    body = await content.readany()
    if not content.at_eof():
        gathered = bytearray(body)
        while len(gathered) <= LARGEST_REPLY_BYTES and (piece := await content.readany()):
            gathered += piece
        body = bytes(gathered)
    if len(body) > LARGEST_REPLY_BYTES:
        raise APIConnectionError(
            f"{_describe_call(request)}: the reply is larger than {LARGEST_REPLY_BYTES:,} bytes."
        )
    return body


class _translate_errors:  # noqa: N801 - used like a function
    """Translates an error of aiohttp that the block raises to one of this package."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and (translated := _translate(error, self._request)) is not None:
            raise translated from error


def _translate(error: BaseException, request: Request) -> APIConnectionError | None:
    """The error of this package for an error of aiohttp; None for an error that passes unchanged."""
    name = _describe_call(request)
    match error:
        case aiohttp.ConnectionTimeoutError():
            within = request.timeout / 2
            return APITimeoutError(f"{name}: no connection within {within:g} s.", was_sent=False)
        case TimeoutError() | aiohttp.ServerTimeoutError():
            return APITimeoutError(f"{name}: no answer within {request.timeout:g} s.")
        case aiohttp.ClientConnectorError() | aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            reason = error if isinstance(error, OSError) else "no address to connect to"
            return APIConnectionError(f"{name}: no connection ({reason}).", was_sent=False)
        case aiohttp.ClientError() | HttpProcessingError() | OSError() | ValueError():
            return APIConnectionError(f"{name}: the connection was lost ({_reason(error)}).")
        case asyncio.CancelledError() if not _is_cancelled():
            # A closed session cancels its own DNS lookups.
            return APIConnectionError(f"{name}: the client was closed before the reply came.")
        case _:
            return None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _reason(error: Exception) -> str:
    """The reason in one line, without the URL: its query may hold a signature."""
    # The cause has the reason; the error itself wraps the reason in brackets and quotes.
    said = error.__cause__ if isinstance(error, aiohttp.ClientPayloadError) else error
    text = getattr(said, "message", str(error))
    return " ".join(text.split()).rstrip(".") if text and isinstance(text, str) else type(error).__name__


def _describe_call(request: Request) -> str:
    """The call as errors name it, without the query: it may hold a signature."""
    return f"{request.method} {request.url.partition('?')[0]}"
