"""The transport over aiohttp's public API."""

from __future__ import annotations

import asyncio
import atexit
import re
import sys
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from kling_async._transport.base import Reply, Request, Sink, StreamedReply
from kling_async._transport.interception import find_blind_spot, find_interceptor, read_parts
from kling_async._transport.network import Network
from kling_async._transport.public_hosts import PublicResolver
from kling_async._transport.shared_timeouts import SharedTimeouts
from kling_async._transport.translate_errors import (
    PROXY_AUTHENTICATION_REQUIRED,
    ProxyPhase,
    describe_call,
    proxy_error,
    raise_translated,
    translate_errors,
)
from kling_async.errors import APIConnectionError, ClientClosedError, ConfigurationError

LONGEST_SILENCE = 15.0
"""Seconds for which servers and gateways keep a connection that carries nothing."""
KEPT_SHARE, SLOW_SHARE, HELD_SHARE = 0.6, 0.3, 0.1
"""The shares of the longest silence that a connection can be in the pool, that its last reply can have taken, and that
the fast path can hold it back from the pool. Together they are the longest silence."""

_ADDRESS = re.compile(r"([Hh][Tt][Tt][Pp][Ss]?://[^/?#@\s]+)(/[!-~]*)?", re.ASCII)
_READ_BYTES = 256 * 1024
LARGE_BODY_BYTES = 2**20
"""Longer than most replies and most requests: only those with pictures in their text are longer."""
_MAX_LARGE_BODIES = 4


class _Connector(aiohttp.TCPConnector):
    """Gives out no kept connection that received bytes while it was idle.

    Bytes that a proxy sends on an idle connection, such as a second response or a "408", would be read as the response
    to the next request: the id of one job as the id of another. aiohttp knows of them and does not ask when it takes a
    connection from its pool. Should a later aiohttp name that knowledge otherwise, a test of this says so.
    """

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        while True:
            connection = await super().connect(*args, **kwargs)
            transport = connection.transport
            if transport is None:
                connection.close()
                raise aiohttp.ServerDisconnectedError("the connection is closed")
            if not getattr(transport.get_protocol(), "should_close", False):
                return connection
            connection.close()


class AiohttpTransport:
    """One aiohttp session with as many connections as there are requests in flight.

    The engine limits the requests in flight, so the pool has no limit: waiting for a free connection would look like a
    slow service. Make it inside a running event loop and use it only there.

    The client notices that the server closed a kept connection only when it sends on that connection. A GET or PUT is
    then sent a second time; a POST never is. So no POST leaves on a connection that has been silent for too long: the
    pool compares the age of a connection with the monotonic clock when it gives the connection out, and an event loop
    that stood still between the reply and its reading shows as a slow reply. For a while after a slow reply each POST
    has a connection of its own.

    Args:
        network: Proxies and certificates.
        longest_silence: Seconds without a byte after which a connection is not used for a POST.
    """

    def __init__(self, network: Network = Network(), *, longest_silence: float = LONGEST_SILENCE) -> None:  # noqa: B008 - a frozen value
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._timeouts = SharedTimeouts()
        self._large_bodies = asyncio.Semaphore(_MAX_LARGE_BODIES)
        self._keep_for = longest_silence * KEPT_SHARE
        self._slow_after = longest_silence * SLOW_SHARE
        self._is_closed = False
        self._opened_with = read_parts()
        self._fresh_until = -1.0
        """Until then, by the clock of the event loop, a connection of the pool may be silent for too long."""
        self._being_read: set[Callable[[], None]] = set()
        """Ends the read of each body that is not complete: a closed session does not."""
        self._session = self._open_session(keepalive_timeout=self._keep_for)
        self._fresh_session = self._open_session(force_close=True)
        self._public_session = self._open_session(keepalive_timeout=self._keep_for, resolver=PublicResolver())
        self._sessions = (self._session, self._fresh_session, self._public_session)
        self._is_opened_plain = find_interceptor() is None and find_blind_spot(self._session) is None
        weakref.finalize(self, _close_without_loop, self._loop, *self._sessions)
        _transports.add(self)

    def _open_session(self, **options: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=_Connector(limit=0, ssl=self._network.ssl_context(), **options),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trace_configs=[_trace_proxies()] if self._network.proxies else None,
        )

    async def send(self, request: Request) -> Reply:
        """See `Transport.send`."""
        self._check_open(request)
        phase = ProxyPhase()
        outer = sys.exception()
        try:
            with self._timeouts.limit(request.timeout):
                return await self._exchange(request, phase)
        except BaseException as error:
            raise_translated(error, request, phase, outer=outer)
            raise

    async def _exchange(self, request: Request, phase: ProxyPhase) -> Reply:
        """The reply to a request. An error makes this frame forget its variables: they hold the key and the reply."""
        started = self._loop.time()
        response = await self._request(request, phase, timeout=timeout_to_connect(request.connect_timeout))
        self._being_read.add(response.close)
        try:
            if response.content.at_eof():  # empty, or a recorder has read the body already
                body = await response.read()
            else:
                body = await read_body(response.content, request, self._large_bodies)
        except BaseException:
            response.close()
            raise
        finally:
            self._being_read.discard(response.close)
        self._note_reply(started)
        return Reply(response.status, response.headers, body)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[StreamedReply]:
        """See `Transport.stream`."""
        self._check_open(request)
        phase = ProxyPhase()
        timeout = timeout_to_connect(request.connect_timeout)
        options = {"auto_decompress": False, "read_bufsize": _READ_BYTES, "timeout": timeout}
        # aiohttp's own timeout begins again with each byte of the head, and of the head of a chunk.
        with translate_errors(request, phase), self._timeouts.limit(request.timeout):
            response = await self._request(request, phase, **options)
        self._being_read.add(response.close)
        try:
            async with response:
                with translate_errors(request):
                    reply = self._make_streamed_reply(response, request)
                yield reply
        finally:
            self._being_read.discard(response.close)

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        self._is_closed = True
        self._timeouts.close()
        for end in tuple(self._being_read):
            end()
        for session in self._sessions:
            await session.close()

    def close_at_exit(self) -> None:
        """Close all connections of a loop that the program leaves open, as a terminal of IPython does.

        The loop runs once more for that, and a task that is left in the loop cannot send any more.
        """
        if not (self._loop.is_closed() or self._loop.is_running()):
            self._is_closed = True
            self._loop.run_until_complete(self.aclose())

    async def _request(self, request: Request, phase: ProxyPhase, **options: Any) -> aiohttp.ClientResponse:
        """The response to a request, with its body unread.

        Raises:
            APIConnectionError: The proxy answered instead of the server.
        """
        response = await self._session_for(request).request(
            request.method,
            to_yarl(request.url),
            data=_payload(request.body),
            allow_redirects=False,
            **options,
            **self._route(request, phase),
        )
        if phase.proxy is not None and response.status == PROXY_AUTHENTICATION_REQUIRED:
            is_tunnel = request.url.lower().startswith("https:")  # in which only the server can answer
            if not is_tunnel:
                response.close()
                raise proxy_error(request, phase, response.status)
        return response

    def _make_streamed_reply(self, response: aiohttp.ClientResponse, request: Request) -> StreamedReply:
        return _StreamedReply(response, request, self._timeouts, self._note_reply)

    def _check_open(self, request: Request) -> None:
        if self._is_closed:
            raise ClientClosedError(
                f"{describe_call(request)}: the client is closed.",
                advice="Make the call within `async with KlingClient() as client:`.",
            )

    def _is_plain(self) -> bool:
        """Whether no part of aiohttp is replaced, and none was when the pool was opened."""
        return self._is_opened_plain and self._has_parts_of_pool()

    def _may_be_silent(self) -> bool:
        """Whether a connection of the pool may be silent for too long."""
        return self._loop.time() < self._fresh_until

    def _session_for(self, request: Request) -> aiohttp.ClientSession:
        """The session for a request. A POST has a connection of its own where one of the pool may be the wrong one.

        That is so after a slow reply, and where a mock replaced a part of aiohttp after the pool was opened.

        Only a direct connection can be held to public addresses: a proxy looks up the host by itself.

        Raises:
            ConfigurationError: The request is a POST, and a mock that is there would not see it.
        """
        is_post = request.method == "POST"
        if is_post and not self._is_plain():
            self._refuse_blind_spot(request)
        if request.is_public_only and self._network.proxy_for(request.url) is None:
            return self._public_session
        is_fresh = is_post and (not self._has_parts_of_pool() or self._may_be_silent())
        return self._fresh_session if is_fresh else self._session

    def _has_parts_of_pool(self) -> bool:
        """Whether each part of aiohttp is the one that the pool was opened with."""
        return read_parts() == self._opened_with

    def _refuse_blind_spot(self, request: Request) -> None:
        """Let no POST pass a mock that cannot see it.

        Raises:
            ConfigurationError: A part is replaced that this session does not use.
        """
        if (replaced := find_blind_spot(self._session)) is not None:
            raise ConfigurationError(
                f"{describe_call(request)} is not sent: {replaced} is replaced in this process, as a mock does, and the "
                "request would not go through the replacement.",
                advice="In a test use the emulator or KlingClient(transport=...).",
            )

    def _note_reply(self, started: float) -> None:
        """Note that a reply is complete whose last byte was awaited since that time: its connection is in the pool."""
        now = self._loop.time()
        if now - started > self._slow_after:
            self._fresh_until = now + self._keep_for

    def _route(self, request: Request, phase: ProxyPhase) -> dict[str, Any]:
        """The headers and the proxy of a request, as aiohttp takes them. The phase then has the proxy."""
        if not self._network.proxies:
            return {"headers": request.headers}
        proxy = phase.proxy = self._network.proxy_for(request.url)
        route: dict[str, Any] = {"headers": request.headers, "trace_request_ctx": phase}
        if proxy is None:
            return route
        route["proxy"] = proxy.url
        if proxy.authorization is not None:
            login = {"Proxy-Authorization": proxy.authorization}
            if request.url.lower().startswith("https:"):
                route["proxy_headers"] = (
                    login  # for CONNECT: what is in the tunnel is not the proxy's to read
                )
            else:
                route["headers"] = {**request.headers, **login}
        return route


class _StreamedReply:
    """A `StreamedReply` over aiohttp."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        request: Request,
        timeouts: SharedTimeouts,
        note_reply: Callable[[float], None],
    ) -> None:
        self._response = response
        self._content = response.content
        self._request = request
        self._timeouts = timeouts
        self._note_reply = note_reply
        self.headers: Mapping[str, str] = join_headers(response)

    @property
    def status(self) -> int:
        return self._response.status

    async def pipe_to(self, sink: Sink) -> bool:
        """See `StreamedReply.pipe_to`."""
        with translate_errors(self._request):
            content = self._content
            loop = asyncio.get_running_loop()
            while not content.at_eof():
                started = loop.time()
                # For aiohttp each byte of the head of a chunk, or of a trailer, is a sign of life.
                with self._timeouts.limit(self._request.timeout):
                    piece = await content.readany()
                if content.at_eof():
                    self._note_reply(started)
                if piece and not sink(piece):
                    return False
            return True


def join_headers(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    """The headers of a response; one that comes twice is a list, as storage sends its digests.

    Source: RFC 9110 section 5.3.
    """
    found = response.headers
    return CIMultiDict({name: ", ".join(found.getall(name)) for name in found})


async def read_body(content: aiohttp.StreamReader, request: Request, large: asyncio.Semaphore) -> bytes:
    """The whole body, decompressed.

    Args:
        content: The body.
        request: Says how long the body may be.
        large: Lets a few bodies at a time be longer than `LARGE_BODY_BYTES`, which bounds the memory of all. The answer
            to a paid POST does not wait for the others: it would be lost if the timeout ended meanwhile.

    Raises:
        APIConnectionError: The body is larger than any correct reply.
    """
    body = await content.readany()
    longest = request.max_reply_bytes
    if content.at_eof() and len(body) <= longest:
        return body
    gathered = bytearray(body)
    while len(gathered) <= min(longest, LARGE_BODY_BYTES) and (piece := await content.readany()):
        gathered += piece
    if len(gathered) <= longest and not content.at_eof():
        async with large if request.method != "POST" else nullcontext():
            while len(gathered) <= longest and (piece := await content.readany()):
                gathered += piece
                await asyncio.sleep(0)  # a compressed body comes without a pause
    if len(gathered) > longest:
        raise APIConnectionError(f"{describe_call(request)}: the reply is larger than {longest:,} bytes.")
    return bytes(gathered)


@lru_cache(maxsize=16)
def split_address(url: str) -> tuple[str, str]:
    """The server of a URL, as `https://host:port`, and the path with its query. All POSTs of a batch go to one URL.

    Raises:
        aiohttp.InvalidURL: It is not an absolute, percent-encoded URL without a user.
    """
    address = _ADDRESS.fullmatch(url.partition("#")[0])
    if address is None:
        raise aiohttp.InvalidURL(url)
    return address[1], address[2] or "/"


@lru_cache(maxsize=16)
def to_yarl(url: str) -> URL:
    """A URL in the form that aiohttp takes.

    Raises:
        aiohttp.InvalidURL: See `split_address`.
    """
    server, path = split_address(url)
    origin = _origin(server)
    return URL(server + path, encoded=True) if "?" in path else origin.with_path(path, encoded=True)


@lru_cache(maxsize=16)
def _origin(server: str) -> URL:
    """A server's URL without a path: for each of its paths, the URL is made of this one without reading it again."""
    try:
        address = URL(server, encoded=True)
        _ = address.port
    except ValueError as error:
        raise aiohttp.InvalidURL(server) from error
    return address


@lru_cache(maxsize=16)
def timeout_to_connect(seconds: float) -> aiohttp.ClientTimeout:
    """The timeout as aiohttp takes it, for the connection alone; requests have few different ones.

    In aiohttp 4 a whole request has five minutes unless `total` says otherwise.
    """
    return aiohttp.ClientTimeout(total=None, connect=seconds)


def _payload(body: bytes | None) -> bytes | aiohttp.BytesPayload | None:
    """A body as aiohttp takes it; for a large one it warns that writing it takes long, which an upload expects."""
    if body is None or len(body) <= LARGE_BODY_BYTES:
        return body
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        return aiohttp.BytesPayload(body)


def _trace_proxies() -> aiohttp.TraceConfig:
    """Notes in the `ProxyPhase` of each request whether it still waits for its connection.

    Before the tunnel of a proxy is made, nothing can have reached the service; aiohttp raises the same errors then as
    for a connection that is lost later.
    """
    trace = aiohttp.TraceConfig()

    async def start(session: object, context: Any, parameters: object) -> None:  # noqa: ARG001
        context.trace_request_ctx.is_connecting = True

    async def end(session: object, context: Any, parameters: object) -> None:  # noqa: ARG001
        context.trace_request_ctx.is_connecting = False

    trace.on_connection_create_start.append(start)
    trace.on_connection_create_end.append(end)
    return trace


_transports: weakref.WeakSet[AiohttpTransport] = weakref.WeakSet()


@atexit.register
def _close_all_at_exit() -> None:
    for transport in tuple(_transports):
        transport.close_at_exit()


def _close_without_loop(loop: asyncio.AbstractEventLoop, *sessions: aiohttp.ClientSession) -> None:
    """Close the sessions of an event loop that ended without `aclose`; aiohttp would complain about each of them.

    Nothing is awaited: aiohttp leaves the connections of a closed loop to the garbage collector.
    """
    for session in sessions:
        if not session.closed and loop.is_closed():
            with suppress(StopIteration):
                session.close().send(None)
