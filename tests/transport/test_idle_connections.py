from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import asynccontextmanager, contextmanager, suppress

import aiohttp
import attrs
import pytest

from kling_async._transport import fast_path, over_aiohttp
from kling_async._transport.base import Request
from kling_async._transport.fast_path import FastTransport
from kling_async._transport.over_aiohttp import HELD_SHARE, KEPT_SHARE, SLOW_SHARE

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
SILENCE = 0.5
LONGER_SILENCE = 5.0
"""For tests that a busy machine could otherwise keep waiting for longer than the silence."""


@attrs.define
class Gateway:
    """A gateway in threads of its own: it closes connections while the event loop stands still."""

    url: str = ""
    requests: int = 0
    connections: int = 0
    is_asked: threading.Event = attrs.field(factory=threading.Event)
    may_answer: threading.Event = attrs.field(factory=threading.Event)
    resets: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))


@contextmanager
def gateway(silence=SILENCE):
    """A gateway that resets each connection that has been silent for a little longer than `silence`."""
    seen = Gateway()
    seen.may_answer.set()
    with socket.create_server(("127.0.0.1", 0), backlog=32) as listener:
        seen.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        accepting = threading.Thread(target=accept, args=(listener, seen, silence))
        accepting.start()
        yield seen
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()


def accept(listener, seen, silence):
    threads = []
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            seen.connections += 1
            threads.append(threading.Thread(target=serve, args=(connection, seen, silence)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def read_request(connection):
    """The bytes of a request, which can come in several pieces; none at the end of the connection."""
    received = b""
    while not received.endswith(b"{}" if received.startswith(b"POST") else b"\r\n\r\n"):
        piece = connection.recv(65536)
        if not piece:
            return b""
        received += piece
    return received


def serve(connection, seen, silence):
    with connection:
        connection.settimeout(silence * 1.1)
        try:
            while read_request(connection):
                seen.requests += 1
                seen.is_asked.set()
                seen.may_answer.wait()
                connection.sendall(OK)
        except TimeoutError:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    seen.resets.release()


@pytest.fixture
async def transport(path):
    transport = path(longest_silence=SILENCE)
    yield transport
    await transport.aclose()


@asynccontextmanager
async def behind_gateway(path):
    """A transport and its gateway that keep a connection for `LONGER_SILENCE`."""
    with gateway(LONGER_SILENCE) as seen:
        transport = path(longest_silence=LONGER_SILENCE)
        try:
            yield transport, seen
        finally:
            await transport.aclose()


def request(url, method="POST"):
    return Request(method, url, {}, b"{}" if method == "POST" else None, 5.0)


async def test_no_post_leaves_on_a_connection_that_a_gateway_reset_while_the_loop_stood_still(transport):
    with gateway() as seen:
        for _ in range(2):
            assert (await transport.send(request(seen.url))).body == b"{}"
            time.sleep(SILENCE * 1.5)  # noqa: ASYNC251 - the loop stands still
    assert (seen.requests, seen.connections) == (2, 2)


async def test_no_post_leaves_on_a_connection_whose_reply_waited_while_the_loop_stood_still(transport):
    with gateway() as seen:
        seen.may_answer.clear()
        first = asyncio.create_task(transport.send(request(seen.url)))
        await asyncio.to_thread(seen.is_asked.wait)
        seen.may_answer.set()
        seen.resets.acquire()  # the loop stands still
        assert (await first).body == b"{}"
        assert (await transport.send(request(seen.url))).body == b"{}"
    assert (seen.requests, seen.connections) == (2, 2)


async def test_a_connection_is_used_again_within_the_silence(path):
    async with behind_gateway(path) as (transport, seen):
        for _ in range(3):
            await transport.send(request(seen.url))
        await asyncio.sleep(LONGER_SILENCE * 0.2)
        await transport.send(request(seen.url))
    assert (seen.requests, seen.connections) == (4, 1)


async def test_after_a_stream_whose_last_byte_was_slow_a_post_has_a_connection_of_its_own(path):
    async with behind_gateway(path) as (transport, seen):
        async with transport.stream(request(seen.url, "GET")) as reply:
            assert await reply.pipe_to(lambda piece: True)
        transport._note_reply(transport._loop.time() - LONGER_SILENCE)
        for method in ("POST", "POST", "GET"):
            if method == "POST" and isinstance(transport, FastTransport):
                transport._sender.release_held()
            await transport.send(request(seen.url, method))
    assert seen.requests == 4
    assert seen.connections == 3


def test_the_times_that_a_connection_can_be_silent_add_up_to_the_longest_silence():
    assert pytest.approx(1) == KEPT_SHARE + SLOW_SHARE + HELD_SHARE
    assert over_aiohttp.LONGEST_SILENCE == fast_path.LONGEST_SILENCE == 15.0


@pytest.mark.skipif(not aiohttp.__version__.startswith("3."), reason="the fast path is for aiohttp 3")
@pytest.mark.parametrize("is_stale", [False, True])
async def test_held_connections_go_back_to_the_pool_unless_they_are_stale(is_stale):
    async with behind_gateway(FastTransport) as (transport, seen):
        connector = transport._session.connector
        await transport.send(request(seen.url))
        assert connector._acquired
        if is_stale:
            time.sleep(LONGER_SILENCE * HELD_SHARE * 1.2)  # noqa: ASYNC251 - the loop stands still
        await asyncio.sleep(LONGER_SILENCE * HELD_SHARE)
        assert not connector._acquired
        await transport.send(request(seen.url))
    assert seen.connections == (2 if is_stale else 1)
