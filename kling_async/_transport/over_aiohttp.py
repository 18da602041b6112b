"""The transport protocol over aiohttp; its errors become ours. No policy, no retry."""

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
from kling_async._transport.deadlines import Deadlines
from kling_async._transport.exchange import Exchange, is_idle, url_of
from kling_async._transport.intake import BUFFER_BYTES, Intake
from kling_async.errors import APIConnectionError, APITimeoutError

LARGEST_REPLY_BYTES = 64 * 1024 * 1024


class _Connector(aiohttp.TCPConnector):
    """Leaves a kept connection alone that is not idle."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or is_idle(connection.protocol):
                return connection
            connection.close()


class AiohttpTransport:
    """One aiohttp session with as many connections as the engine asks for at once.

    The engine bounds what is in flight, so the pool has no bound of its own: a wait for a free connection
    would look like a slow service. Made inside a running event loop, and used only there.

    A kept connection that the service dropped meanwhile is noticed only when it is used again. A GET or PUT is then
    sent once more; a POST never is.
    """

    def __init__(self) -> None:
        connector = _Connector(limit=0)
        self._exchange = Exchange(connector)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
        )
        self._deadlines = Deadlines()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    async def send(self, request: Request) -> Reply:
        """See `Transport.send`."""
        self._check_open(request)
        with _our_errors(request), self._deadlines.within(request.timeout):
            answer = await self._exchange.begin(request)
            try:
                body = await _read(answer.content, request)
            except BaseException:
                answer.connection.close()
                raise
            self._exchange.end(answer)
            return Reply(answer.head.code, answer.head.headers, body)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[_Streamed]:
        """See `Transport.stream`."""
        self._check_open(request)
        timeout = aiohttp.ClientTimeout(connect=request.timeout / 2, sock_read=request.timeout)
        with _our_errors(request):
            response = await self._session.request(
                request.method,
                url_of(request.url),
                headers=request.headers,
                data=request.body,
                allow_redirects=False,
                auto_decompress=False,
                timeout=timeout,
            )
        async with response:
            with _our_errors(request):
                reply = _Streamed(response, request, self._buffer)
            yield reply

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        self._deadlines.close()
        self._exchange.put_away()
        await self._session.close()

    def _check_open(self, request: Request) -> None:
        if self._session.closed:
            raise APIConnectionError(f"{_name(request)}: the client is closed.", was_sent=False)


class _Streamed:
    """A `StreamedReply` over aiohttp."""

    def __init__(self, response: aiohttp.ClientResponse, request: Request, buffer: memoryview) -> None:
        self._response = response
        self._request = request
        # One that comes twice is a list of two, and storage names its digests so. Source: RFC 9110 section 5.3.
        found = response.headers
        self.headers: Mapping[str, str] = CIMultiDict({name: ", ".join(found.getall(name)) for name in found})
        self._is_measured = response.content_length is not None and "transfer-encoding" not in found
        self._begun = b""
        self._rest: Intake | None = None
        if self._is_measured:
            self._begun = b"".join(iter(response.content.read_nowait, b""))
            if not response.content.at_eof():
                self._rest = Intake(response, buffer, timeout=request.timeout)

    @property
    def status(self) -> int:
        return self._response.status

    async def pipe_to(self, sink: Sink) -> bool:
        """See `StreamedReply.pipe_to`."""
        begun, self._begun = self._begun, b""
        if begun and not sink(begun):
            return False
        with _our_errors(self._request):
            if self._is_measured:
                return self._rest is None or await self._rest.pipe_to(sink)
            content = self._response.content
            while not content.at_eof():
                if (piece := await content.readany()) and not sink(piece):
                    return False
            return True


async def _read(content: aiohttp.StreamReader, request: Request) -> bytes:
    """The whole body, unless it is larger than any honest reply, packed or unpacked."""
    body = await content.readany()
    if not content.at_eof():
        gathered = bytearray(body)
        while len(gathered) <= LARGEST_REPLY_BYTES and (piece := await content.readany()):
            gathered += piece
        body = bytes(gathered)
    if len(body) > LARGEST_REPLY_BYTES:
        raise APIConnectionError(f"{_name(request)}: the reply is larger than {LARGEST_REPLY_BYTES:,} bytes.")
    return body


class _our_errors:  # noqa: N801 - reads as the verb it is
    """Turns what aiohttp raises within the block into an error of ours."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and (ours := _ours(error, self._request)) is not None:
            raise ours from error


def _ours(error: BaseException, request: Request) -> APIConnectionError | None:
    """The error of ours that one of aiohttp's stands for; None for one that is to go on as it is."""
    name = _name(request)
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
            # aiohttp cancels the name look-ups under way when its session is closed.
            return APIConnectionError(f"{name}: the client was closed meanwhile.")
        case _:
            return None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _reason(error: Exception) -> str:
    """What went wrong, in one line and without the address, whose query may hold a signature."""
    # What a broken body was is said by the cause; the error puts brackets and quotes around it.
    said = error.__cause__ if isinstance(error, aiohttp.ClientPayloadError) else error
    text = getattr(said, "message", str(error))
    return " ".join(text.split()).rstrip(".") if text and isinstance(text, str) else type(error).__name__


def _name(request: Request) -> str:
    """The call as an error names it: no query, which may hold a signature."""
    return f"{request.method} {request.url.partition('?')[0]}"
