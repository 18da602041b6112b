from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import attrs
import pytest
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given
from hypothesis import strategies as st
from loopback_proxy import Loopback, run_listener
from quick_loop import AdjustableLoop
from yarl import URL

from kling_async._transport.base import Reply, Request
from kling_async._transport.fast_path import FastTransport, protocol_and_transport
from kling_async._transport.over_aiohttp import LARGE_BODY_BYTES, AiohttpTransport, read_body, to_yarl
from kling_async.errors import APIConnectionError, APITimeoutError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CEILING = 100_000
PATHS = [AiohttpTransport, FastTransport] if aiohttp.__version__.startswith("3.") else [AiohttpTransport]


def pack(body, encoding=b"gzip"):
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        encoding,
        len(body),
        body,
    )


@attrs.define
class Server:
    """A raw server: answers each request with bytes, and says what it was sent."""

    url: str = ""
    heads: list[bytes] = attrs.field(factory=list)
    was_asked: asyncio.Event = attrs.field(factory=asyncio.Event)
    bodies: list[bytes] = attrs.field(factory=list)
    connections: int = 0

    @property
    def requests(self) -> int:
        return len(self.heads)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def run_server(*answers: bytes | Handler, keep_alive: bool = False):
    """A server on loopback whose n-th request gets the n-th answer, the last one for all that follow.

    Bytes are answered and the connection closed, unless the connection is kept.
    """
    server, writers = Server(), set()

    async def answer_one(reader, writer) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        server.heads.append(head)
        server.was_asked.set()
        length = next(
            (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0"
        )
        server.bodies.append(await reader.readexactly(int(length.partition(b":")[2])))
        answer = answers[min(server.requests, len(answers)) - 1]
        if not isinstance(answer, bytes):
            await answer(reader, writer)
            return False
        writer.write(answer)
        await writer.drain()
        return keep_alive

    async def handle_connection(reader, writer):
        server.connections += 1
        writers.add(writer)
        try:
            while await answer_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(handle_connection, "127.0.0.1", 0, backlog=256)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)


def closing_with(*pieces: bytes, reset: bool = False) -> Handler:
    async def answer(reader, writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        if reset:
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
            )
            writer.transport.abort()

    return answer


def stalling_after(piece: bytes) -> Handler:
    async def answer(reader, writer):
        writer.write(piece)
        await writer.drain()
        await reader.read()  # until the client gives up

    return answer


def stalling_past(limit: float, piece: bytes) -> Handler:
    async def answer(reader, writer):
        writer.write(piece)
        await writer.drain()
        gives_up = asyncio.ensure_future(reader.read())
        for _ in range(1000):
            asyncio.get_running_loop().put_forward(limit)
            await asyncio.sleep(0)
            if gives_up.done():
                break

    return answer


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": AdjustableLoop}


@pytest.fixture(params=["send", "stream"])
def call(request, transport):
    """Both ways to send a request, as one: each gives the whole reply."""

    async def stream(wanted: Request) -> Reply:
        async with transport.stream(wanted) as reply:
            body = b"".join(await pieces_of(reply))
            return Reply(reply.status, reply.headers, body)

    return transport.send if request.param == "send" else stream


def post(url, *, timeout=2.0, body=b'{"a": 1}', path="/requests", **headers):
    return Request("POST", f"{url}{path}", headers, body, timeout)


def get(url, *, timeout=2.0, path="/"):
    return Request("GET", f"{url}{path}", {}, None, timeout)


# What is sent, and what comes back


async def test_a_request_is_sent_once_with_its_headers_and_body(call):
    headers = {"Authorization": "Bearer key", "User-Agent": "me/1", "Content-Type": "image/jpeg"}
    async with run_server(OK) as server:
        reply = await call(post(server.url, path="/a%2Fb?x=%20", **headers))
    assert (reply.status, reply.body) == (200, b"{}")
    assert server.bodies == [b'{"a": 1}']
    first, *lines = server.heads[0].decode().split("\r\n")
    assert first == "POST /a%2Fb?x=%20 HTTP/1.1"
    for name, value in headers.items():
        assert [line for line in lines if line.lower().startswith(name.lower())] == [f"{name}: {value}"]
    assert not any(line.lower().startswith("cookie") for line in lines)


async def test_a_request_names_its_host_and_the_encodings_it_accepts(transport):
    async with run_server(OK, keep_alive=True) as server:
        await transport.send(get(server.url, path=""))
        await transport.send(get(server.url, path="/a#b"))
        await transport.send(Request("POST", f"{server.url}/", {}))
    firsts, lines = zip(*(head.decode().split("\r\n", 1) for head in server.heads), strict=True)
    assert firsts == ("GET / HTTP/1.1", "GET /a HTTP/1.1", "POST / HTTP/1.1")
    for head in lines:
        assert f"Host: {server.url.removeprefix('http://')}\r\n" in head
        assert "Accept: */*\r\n" in head
        assert "Accept-Encoding: gzip, deflate" in head
    assert ["Content-Length: 0" in head for head in lines] == [False, False, True]


async def test_each_call_has_its_own_headers(transport):
    async with run_server(OK, keep_alive=True) as server:
        for value in ("one", "two"):
            await transport.send(Request("GET", f"{server.url}/", {"X-Number": value}))
    assert [b"X-Number: one" in head for head in server.heads] == [True, False]


async def test_a_header_with_a_line_break_is_not_sent(call):
    async with run_server(OK) as server:
        with pytest.raises(APIConnectionError):
            await call(Request("POST", f"{server.url}/", {"X": "a\r\nY: b"}, b"{}"))
    assert server.requests == 0


async def test_informational_responses_are_skipped(call):
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK
    async with run_server(answer) as server:
        assert (await call(post(server.url))).body == b"{}"


async def test_headers_are_looked_up_by_lower_case_names(call):
    async with run_server(b"HTTP/1.1 429 Slow\r\nRETRY-After: 7\r\nContent-Length: 0\r\n\r\n") as server:
        reply = await call(get(server.url))
    assert (reply.status, reply.headers["retry-after"], reply.body) == (429, "7", b"")


@pytest.mark.parametrize("status", [201, 204, 301, 302, 303, 307, 308, 400, 404, 500, 502, 599])
async def test_no_status_is_read_and_no_redirect_followed(call, status):
    answer = b"HTTP/1.1 %d X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n" % status
    async with run_server(answer) as server:
        reply = await call(post(server.url))
    assert (reply.status, reply.headers["location"]) == (status, "/elsewhere")
    assert server.requests == 1


async def test_a_page_of_html_is_a_reply_like_any_other(call):
    async with run_server(b"HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\n\r\n<html>") as server:
        assert await call(get(server.url)) == Reply(502, {"Content-Type": "text/html"}, b"<html>")


async def test_the_pieces_of_a_reply_are_joined(call):
    async with run_server(closing_with(CHUNKED + b"1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n")) as server:
        assert (await call(get(server.url))).body == b"{}"


async def test_no_cookie_is_kept(transport):
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with run_server(answer, keep_alive=True) as server:
        await transport.send(get(server.url))
        await transport.send(get(server.url))
    assert b"a=b" not in server.heads[1]


async def test_a_connection_is_used_again(transport):
    async with run_server(OK, keep_alive=True) as server:
        for _ in range(3):
            await transport.send(post(server.url))
    assert (server.requests, server.connections) == (3, 1)


async def test_a_connection_that_is_lost_before_anything_was_sent_is_an_error(transport, monkeypatch):
    true_connect = aiohttp.TCPConnector.connect

    async def connect(*arguments, **named):
        connection = await true_connect(*arguments, **named)
        connection.transport.abort()
        await asyncio.sleep(0.01)
        return connection

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect)
    async with run_server(OK) as server:
        with pytest.raises(APIConnectionError):
            await transport.send(post(server.url))
    assert server.requests == 0


def test_a_response_without_a_connection_has_nothing_to_read_from():
    with pytest.raises(aiohttp.ServerDisconnectedError, match="the connection is closed"):
        protocol_and_transport(None)


async def test_a_large_body_is_sent_without_a_warning(transport):
    body = bytes(3 * 2**20)
    async with run_server(OK) as server:
        request = Request("PUT", f"{server.url}/", {"Content-Type": "video/mp4"}, body, 5.0)
        assert (await transport.send(request)).status == 200
    assert server.bodies == [body]


async def test_many_requests_do_not_wait_for_one_another(transport):
    together = asyncio.Barrier(120)

    async def answer(reader, writer):
        await together.wait()
        writer.write(OK)

    async with run_server(answer) as server:
        replies = await asyncio.gather(*(transport.send(post(server.url)) for _ in range(120)))
    assert [reply.status for reply in replies] == [200] * 120


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
async def test_a_compressed_reply_is_decompressed_by_send_and_unchanged_in_a_stream(transport, encoding):
    body = gzip.compress(b"{}") if encoding == b"gzip" else zlib.compress(b"{}")
    async with run_server(pack(body, encoding)) as server:
        assert (await transport.send(get(server.url))).body == b"{}"
        async with transport.stream(get(server.url)) as reply:
            assert b"".join(await pieces_of(reply)) == body


async def test_a_stream_gives_no_empty_piece(transport):
    answer = closing_with(CHUNKED + b"5\r\nhello\r\n", b"1\r\n!\r\n", b"0\r\n\r\n")
    async with run_server(answer) as server, transport.stream(get(server.url)) as reply:
        assert await pieces_of(reply) == [b"hello", b"!"]


async def test_a_header_that_comes_twice_is_a_list(transport):
    answer = b"HTTP/1.1 200 OK\r\nX-Goog-Hash: crc32c=a\r\nX-Goog-Hash: md5=b\r\nContent-Length: 0\r\n\r\n"
    async with run_server(answer) as server, transport.stream(get(server.url)) as reply:
        assert reply.headers["x-goog-hash"] == "crc32c=a, md5=b"


async def test_a_stream_that_is_left_early_closes_its_connection(transport):
    async with run_server(stalling_after(CHUNKED + b"5\r\nhello\r\n")) as server:
        async with transport.stream(get(server.url)) as reply:
            pieces = []
            assert not await reply.pipe_to(lambda piece: pieces.append(bytes(piece)))
            assert pieces == [b"hello"]
        assert not transport._session.connector._acquired


# A long body

LONG = bytes(range(256)) * 5 * 4096  # twenty times as much as is taken at once
MEASURED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LONG)


async def pieces_of(reply, pieces=None, *, rest=None):
    """The pieces of a body; `rest` is awaited before each but the first."""
    pieces = [] if pieces is None else pieces

    def take(piece):
        pieces.append(bytes(piece))
        return rest is None

    is_all = await reply.pipe_to(take)
    while not is_all:
        await rest()
        is_all = await reply.pipe_to(take)
    return pieces


async def read(transport, url, *, rest=None, within=2.0):
    async with transport.stream(get(url, timeout=within)) as reply:
        pieces = await pieces_of(reply, rest=rest)
    return b"".join(pieces), [len(piece) for piece in pieces]


async def test_a_long_body_is_complete_and_its_connection_is_used_again(transport):
    async with run_server(MEASURED + LONG, MEASURED + LONG, OK, keep_alive=True) as server:
        for _ in range(2):
            body, _ = await read(transport, server.url)
            assert body == LONG
        assert (await transport.send(get(server.url))).body == b"{}"
    assert (server.requests, server.connections) == (3, 1)


async def test_a_long_body_without_a_length_is_complete(transport):
    answer = closing_with(CHUNKED + b"%x\r\n" % len(LONG) + LONG + b"\r\n0\r\n\r\n")
    async with run_server(b"HTTP/1.1 200 OK\r\n\r\n" + LONG, answer) as server:
        for _ in range(2):
            body, _ = await read(transport, server.url)
            assert body == LONG


async def test_a_slow_reader_slows_the_server_and_gets_every_byte(transport):
    async with run_server(MEASURED + LONG, keep_alive=True) as server:
        body, sizes = await read(transport, server.url, rest=lambda: asyncio.sleep(0.01))
    assert body == LONG
    assert max(sizes) <= len(LONG) // 5


async def test_bytes_after_a_long_body_belong_to_no_reply(transport):
    async with run_server(MEASURED + LONG + OK, OK, keep_alive=True) as server:
        body, _ = await read(transport, server.url)
        assert body == LONG
        await asyncio.sleep(0.02)
        assert (await transport.send(get(server.url))).body == b"{}"
    assert (server.requests, server.connections) == (2, 2)


@pytest.mark.parametrize(
    "reset, said",
    [
        (False, "the connection was lost .(2,621,440 bytes were missing|Not enough data)"),
        (True, "the connection was lost"),
    ],
)
async def test_a_cut_body_gives_its_bytes_and_is_a_lost_connection(transport, reset, said):
    half, pieces = len(LONG) // 2, []
    async with run_server(closing_with(MEASURED, LONG[:half], reset=reset)) as server:
        with pytest.raises(APIConnectionError, match=said):
            async with transport.stream(get(server.url)) as reply:
                await pieces_of(reply, pieces)
        assert not transport._session.connector._acquired
    assert LONG.startswith(b"".join(pieces))
    assert reset or len(b"".join(pieces)) == half


async def test_a_long_body_that_stalls_is_a_timeout(transport):
    async with run_server(stalling_past(30.0, MEASURED + LONG[:-1])) as server:
        with pytest.raises(APITimeoutError, match=r"no answer within 30 s"):
            await read(transport, server.url, within=30.0)
        assert not transport._session.connector._acquired


async def test_the_time_that_a_slow_reader_takes_is_not_counted(transport):
    async def rest():
        asyncio.get_running_loop().put_forward(60.0)
        for _ in range(3):  # a timer that is due fires in the next turn of the loop
            await asyncio.sleep(0)

    async with run_server(MEASURED + LONG, keep_alive=True) as server:
        body, _ = await read(transport, server.url, rest=rest, within=30.0)
    assert body == LONG


async def test_a_long_body_that_is_left_early_closes_its_connection(transport):
    async with run_server(stalling_after(MEASURED + LONG[:-1])) as server:
        async with transport.stream(get(server.url)) as reply:
            sizes = []

            def take(piece):
                sizes.append(len(piece))
                return sum(sizes) <= len(LONG) // 2

            assert not await reply.pipe_to(take)
        assert not transport._session.connector._acquired


@pytest.mark.parametrize("is_read", [False, True])
async def test_a_connection_with_half_a_body_on_it_is_not_used_again(transport, is_read):
    async with run_server(stalling_after(MEASURED + LONG[:-1]), OK) as server:
        async with transport.stream(get(server.url)) as reply:
            if is_read:
                assert not await reply.pipe_to(lambda piece: False)
        assert (await transport.send(get(server.url))).body == b"{}"
    assert server.connections == 2


async def test_closing_ends_a_call_whose_body_is_not_complete_as_lost(transport, call):
    async with run_server(stalling_after(MEASURED)) as server:
        reading = asyncio.create_task(call(post(server.url)))
        await server.was_asked.wait()
        await asyncio.sleep(0.05)
        await transport.aclose()
        with pytest.raises(APIConnectionError) as caught:
            await reading
    assert caught.value.was_sent is True


async def test_closing_ends_a_long_body_as_lost(transport):
    async with (
        run_server(stalling_after(MEASURED + LONG[:-1])) as server,
        transport.stream(get(server.url)) as reply,
    ):
        assert not await reply.pipe_to(lambda piece: False)
        reading = asyncio.create_task(pieces_of(reply))
        await asyncio.sleep(0.05)
        await transport.aclose()
        with pytest.raises(APIConnectionError):
            await reading


async def test_a_connection_lost_between_two_reads_is_raised_by_the_next_read(transport):
    async with (
        run_server(stalling_after(MEASURED + LONG[:-1])) as server,
        transport.stream(get(server.url)) as reply,
    ):
        assert not await reply.pipe_to(lambda piece: False)
        assert not await reply.pipe_to(lambda piece: False)
        await transport.aclose()
        await asyncio.sleep(0)
        with pytest.raises(APIConnectionError):
            await pieces_of(reply)


async def test_long_bodies_at_the_same_time_do_not_mix(transport):
    bodies = [bytes([number]) * len(LONG) for number in range(8)]
    async with run_server(*[MEASURED + body for body in bodies]) as server:
        came = await asyncio.gather(*(read(transport, server.url) for _ in bodies))
    assert sorted(body for body, _ in came) == bodies


async def test_a_long_body_may_take_longer_than_the_time_between_two_pieces(transport):
    tenths = [LONG[start : start + len(LONG) // 10] for start in range(0, len(LONG), len(LONG) // 10)]

    async def trickle(reader, writer):
        writer.write(MEASURED)
        for tenth in tenths:
            writer.write(tenth)
            await writer.drain()
            await asyncio.sleep(0.06)

    async with run_server(trickle) as server:
        body, _ = await read(transport, server.url, within=0.5)
    assert body == LONG


async def test_a_cancelled_reader_of_a_long_body_closes_its_connection(transport):
    async with run_server(stalling_after(MEASURED + LONG[:-1])) as server:
        reading = asyncio.create_task(read(transport, server.url))
        await asyncio.sleep(0.05)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not transport._session.connector._acquired


async def test_a_long_body_that_is_first_read_after_closing_is_lost(transport):
    async with (
        run_server(stalling_after(MEASURED + LONG[:-1])) as server,
        transport.stream(get(server.url)) as reply,
    ):
        await transport.aclose()
        with pytest.raises(APIConnectionError):
            await pieces_of(reply)


# Nothing can have been sent


async def test_a_refused_connection_was_not_sent(call, unused_port):
    with pytest.raises(APIConnectionError, match="no connection") as caught:
        await call(post(f"http://127.0.0.1:{unused_port}"))
    assert caught.value.was_sent is False


@pytest.fixture
def unused_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def test_a_host_without_an_address_was_not_sent(call):
    with pytest.raises(APIConnectionError, match="no connection") as caught:
        await call(post("http://nowhere.invalid"))
    assert caught.value.was_sent is False


async def test_tls_to_a_plain_port_was_not_sent(call):
    async with run_server(OK) as server:

        async def plain(reader, writer):
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()
            await writer.wait_closed()

        async with run_listener(plain, Loopback()) as listener:
            with pytest.raises(APIConnectionError) as caught:
                await call(post(f"https://127.0.0.1:{listener.port}"))
    assert caught.value.was_sent is False
    assert server.requests == 0


@contextmanager
def open_full_port():
    """A port that accepts no connection, because others wait there already."""
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]


async def test_a_connection_that_is_not_made_in_time_was_not_sent(call):
    with (
        open_full_port() as port,
        pytest.raises(APITimeoutError, match=r"no connection within 0\.05 s") as caught,
    ):
        await call(post(f"http://127.0.0.1:{port}", timeout=0.1))
    assert caught.value.was_sent is False


async def test_a_post_waits_for_its_connection_no_longer_than_the_items_of_a_shared_journal_allow(
    call, monkeypatch
):
    monkeypatch.setattr("kling_async._transport.base.MAX_POST_CONNECT_TIME", 0.05)
    with (
        open_full_port() as port,
        pytest.raises(APITimeoutError, match=r"no connection within 0\.05 s") as caught,
    ):
        await call(post(f"http://127.0.0.1:{port}", timeout=60.0))
    assert caught.value.was_sent is False


async def test_a_process_that_stood_still_while_it_connected_sends_no_post(call, monkeypatch):
    loop = asyncio.get_running_loop()
    true_connect = loop.sock_connect

    async def connect(*arguments):
        await true_connect(*arguments)
        loop.put_forward(20.0)

    monkeypatch.setattr(loop, "sock_connect", connect)
    async with run_server(OK) as server:
        with pytest.raises(APITimeoutError, match="no connection within 15 s") as caught:
            await call(post(server.url, timeout=300.0))
        assert caught.value.was_sent is False
        assert server.requests == 0


@pytest.mark.parametrize(
    "method, timeout, expected",
    [
        ("POST", 10.0, 5.0),
        ("POST", 60.0, 15.0),
        ("POST", 3600.0, 15.0),
        ("GET", 60.0, 30.0),
        ("PUT", 60.0, 30.0),
    ],
)
def test_half_of_a_timeout_is_for_connecting_and_a_bounded_time_for_a_post(method, timeout, expected):
    assert Request(method, "https://host", {}, timeout=timeout).connect_timeout == expected


@pytest.mark.parametrize(
    "url",
    [
        "http:///path",
        "/path",
        "ftp://host",
        "javascript:alert(1)",
        "http://[::1",
        "http://host:99999",
        "http://host:99999/path?page=2",
        "http://2130706433",
        "http://user:password@[::1",
        "http://127.0.0.1:1/a b\r\nX: y",
    ],
)
async def test_a_request_to_a_malformed_url_was_not_sent(call, url):
    with pytest.raises(APIConnectionError, match="no connection") as caught:
        await call(Request("POST", url, {}, b"{}"))
    assert caught.value.was_sent is False


@pytest.mark.parametrize(
    "server", ["http://127.0.0.1:80", "HTTPS://Host", "https://host:8443", "http://[::1]:9"]
)
@pytest.mark.parametrize(
    "path", ["", "/", "//a", "/a/../b/", "/a%20b;c:d@e", "/?", "/a?page=2&x=%2F/..", "/a?b#c", "/a#b"]
)
def test_the_address_of_a_request_is_the_url_as_it_was_written(server, path):
    address = to_yarl(server + path)
    expected = URL((server + path).partition("#")[0], encoded=True)
    assert address == expected
    assert address.raw_path_qs == expected.raw_path_qs
    assert (address.raw_host, address.port) == (expected.raw_host, expected.port)


async def test_a_closed_transport_sends_nothing_and_may_be_closed_again(transport, call):
    async with run_server(OK) as server:
        await transport.aclose()
        await transport.aclose()
        with pytest.raises(APIConnectionError, match="the client is closed") as caught:
            await call(post(server.url))
    assert caught.value.was_sent is False
    assert server.connections == 0


# It may have been sent

BROKEN = {
    "closed without a word": closing_with(),
    "reset without a word": closing_with(reset=True),
    "closed within the headers": closing_with(b"HTTP/1.1 200 OK\r\nContent-"),
    "reset within the headers": closing_with(b"HTTP/1.1 200 OK\r\nContent-", reset=True),
    "closed after the headers": closing_with(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
    "reset after the headers": closing_with(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", reset=True),
    "half a body": closing_with(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a"'),
    "half a body, then reset": closing_with(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a"', reset=True),
    "a chunk that never ends": closing_with(CHUNKED + b"9\r\n{"),
    "chunks without an end": closing_with(CHUNKED + b"1\r\n{\r\n"),
    "a chunk of no size": CHUNKED + b"zz\r\n{\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
    "a length below zero": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    "a length beyond all": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    "a status that is none": b"HTTP/1.1 abc\r\n\r\n",
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("answer", BROKEN.values(), ids=list(BROKEN))
async def test_a_broken_reply_is_a_lost_connection_and_its_post_was_sent_once(call, answer):
    async with run_server(answer) as server:
        with pytest.raises(APIConnectionError, match=r"POST http://127\.0\.0\.1:\d+/requests: ") as caught:
            await call(post(server.url, path="/requests?signature=secret"))
    assert caught.value.was_sent is True
    assert server.requests == 1
    assert "secret" not in caught.value.message
    assert caught.value.message.isprintable()
    assert not any(odd in caught.value.message for odd in ("<", ".)"))  # one sentence, not an object's name


@pytest.mark.parametrize(
    "piece",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n",
    ],
    ids=["before", "within", "after the headers", "within the body"],
)
async def test_a_stalled_reply_is_a_timeout_and_its_post_was_sent_once(call, piece):
    async with run_server(stalling_past(30.0, piece)) as server:
        with pytest.raises(APITimeoutError, match=r"no answer within 30 s") as caught:
            await call(post(server.url, timeout=30.0))
    assert caught.value.was_sent is True
    assert server.requests == 1


@pytest.mark.parametrize("body, encoding", [(b"no gzip", b"gzip"), (b"\xff", b"deflate")])
async def test_a_reply_that_cannot_be_decompressed_is_a_lost_connection(transport, body, encoding):
    async with run_server(pack(body, encoding)) as server:
        with pytest.raises(APIConnectionError) as caught:
            await transport.send(post(server.url))
    assert caught.value.was_sent is True


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (CEILING + 1) + b"x" * (CEILING + 1),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (CEILING + 1),
        CHUNKED + b"%x\r\n" % (CEILING + 1) + b"x" * (CEILING + 1),
        pack(gzip.compress(b"\0" * 50 * CEILING)),
    ],
    ids=["with its length", "without its length", "in chunks", "unpacked"],
)
async def test_a_reply_beyond_the_size_limit_is_refused(transport, answer):
    async with run_server(answer) as server:
        with pytest.raises(APIConnectionError, match=r"the reply is larger than 100,000 bytes") as caught:
            await transport.send(attrs.evolve(post(server.url), max_reply_bytes=CEILING))
    assert caught.value.was_sent is True


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % CEILING + b"x" * CEILING,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * CEILING,
        pack(gzip.compress(b"x" * CEILING)),
    ],
    ids=["with its length", "without its length", "unpacked"],
)
async def test_a_reply_up_to_the_size_limit_is_read(transport, answer):
    async with run_server(answer) as server:
        request = attrs.evolve(post(server.url), max_reply_bytes=CEILING)
        assert (await transport.send(request)).body == b"x" * CEILING


@pytest.mark.parametrize("make", [get, post], ids=["GET", "POST"])
async def test_a_reply_of_megabytes_is_read_up_to_its_limit(transport, make):
    size = 3 * 2**20
    answer = CHUNKED + b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
    async with run_server(answer) as server:
        assert (await transport.send(make(server.url))).body == b"x" * size
    async with run_server(answer) as server:
        with pytest.raises(APIConnectionError, match="larger than 3,145,727 bytes"):
            await transport.send(attrs.evolve(make(server.url), max_reply_bytes=size - 1))


async def test_only_a_few_replies_at_a_time_are_longer_than_a_mebibyte_unless_they_are_paid_for():
    loop, large = asyncio.get_running_loop(), asyncio.Semaphore(2)
    requests = [get("http://a"), get("http://a"), get("http://a"), post("http://a")]
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    contents = [aiohttp.StreamReader(protocol, 2**30, loop=loop) for _ in requests]
    async with asyncio.TaskGroup() as tasks:
        reads = [
            tasks.create_task(read_body(content, request, large))
            for content, request in zip(contents, requests, strict=True)
        ]
        for content in contents:
            content.feed_data(b"x" * (LARGE_BODY_BYTES + 1))
        await let_tasks_run()
        for content in contents[2:]:
            content.feed_data(b"y")
            content.feed_eof()
        await let_tasks_run()
        assert [read.done() for read in reads] == [False, False, False, True]
        contents[0].feed_eof()
        await let_tasks_run()
        assert [read.done() for read in reads] == [True, False, True, True]
        contents[1].feed_eof()
    assert [len(read.result()) - LARGE_BODY_BYTES for read in reads] == [1, 1, 2, 2]


async def let_tasks_run():
    """Let all tasks run until they wait for something."""
    for _ in range(20):
        await asyncio.sleep(0)


# A POST goes on the wire once


async def test_a_post_on_a_kept_connection_that_drops_it_was_sent_and_is_not_sent_again(transport):
    async with run_server(OK, closing_with(), OK, keep_alive=True) as server:
        await transport.send(get(server.url))
        with pytest.raises(APIConnectionError) as caught:
            await transport.send(post(server.url))
    assert caught.value.was_sent is True
    assert (server.requests, server.connections) == (2, 1)
    assert server.heads[1].startswith(b"POST ")


async def test_a_get_on_a_kept_connection_that_drops_it_may_be_sent_again(transport):
    async with run_server(OK, closing_with(), OK, keep_alive=True) as server:
        await transport.send(get(server.url))
        assert (await transport.send(get(server.url))).body == b"{}"
    assert (server.requests, server.connections) == (3, 2)


async def test_a_kept_connection_that_the_server_closed_is_not_used_for_a_post(transport):
    async with run_server(OK) as server:
        await transport.send(get(server.url))
        await asyncio.sleep(0.02)
        assert (await transport.send(post(server.url))).status == 200
    assert [head.split()[0] for head in server.heads] == [b"GET", b"POST"]


@pytest.mark.parametrize("answer", BROKEN.values(), ids=list(BROKEN))
async def test_whatever_happens_on_a_kept_connection_a_post_is_sent_once(transport, answer):
    async with run_server(OK, answer, OK, keep_alive=True) as server:
        await transport.send(get(server.url))
        with pytest.raises(APIConnectionError) as caught:
            await transport.send(post(server.url))
        await asyncio.sleep(0.01)
    assert caught.value.was_sent is True
    assert [head.split()[0] for head in server.heads] == [b"GET", b"POST"]


# Leaving


async def test_a_cancelled_call_closes_its_connection(transport, call):
    async with run_server(stalling_after(b"")) as server:
        task = asyncio.create_task(call(post(server.url)))
        await server.was_asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not transport._session.connector._acquired
    assert server.requests == 1


async def test_closing_ends_the_calls_in_flight_as_lost(transport, call):
    async with run_server(stalling_after(b"")) as server:
        task = asyncio.create_task(call(post(server.url)))
        await server.was_asked.wait()
        await transport.aclose()
        with pytest.raises(APIConnectionError) as caught:
            await task
    assert caught.value.was_sent is True


async def test_closing_during_a_dns_lookup_is_an_error_and_no_cancellation(transport, call):
    looking = asyncio.Event()

    class Resolver:
        async def resolve(self, host, port, family):
            looking.set()
            await asyncio.Event().wait()

        async def close(self):
            pass

    transport._session.connector._resolver = Resolver()
    task = asyncio.create_task(call(post("http://host.example")))
    await looking.wait()
    await transport.aclose()
    with pytest.raises(APIConnectionError, match="the client was closed before the reply came") as caught:
        await task
    assert caught.value.was_sent is True


# Anything at all

PIECES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 000 X\r\n", b"HTTP/9.9 200\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"Content-Encoding: br\r\n", b"Connection: close\r\n",
    b"Content-Type: a; charset=none\r\n", b"Set-Cookie: a=\x00\xff; \r\n", b"Location: http://[\r\n", b"Link: <\xe9>\r\n",
    b": x\r\n", b"\r\n", b"\r\n", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n", b"\x1f\x8b\x08", b"\x00",
]  # fmt: skip


@given(
    path=st.sampled_from(PATHS),
    pieces=st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=8),
)
def test_any_bytes_are_a_reply_or_a_lost_connection(path, pieces):
    async def scenario():
        transport = path()
        async with run_server(b"HTTP/1.1 200 OK\r\n" + b"".join(pieces), b"".join(pieces)) as server:
            for request in (post(server.url), get(server.url)):
                try:
                    assert isinstance(await transport.send(request), Reply)
                except APIConnectionError as error:
                    assert error.was_sent is True  # noqa: PT017 - either end is right, nothing else is
            assert [head.split()[0] for head in server.heads].count(b"POST") == 1
        await transport.aclose()

    asyncio.run(scenario())


async def test_bytes_received_on_an_idle_connection_are_not_the_reply_to_the_next_call(transport):
    unasked = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    say, is_said = asyncio.Event(), asyncio.Event()

    async def answer_and_go_on(reader, writer):
        writer.write(OK)
        await say.wait()
        writer.write(unasked)
        await writer.drain()
        is_said.set()
        await reader.read()  # until the client leaves the connection

    async with run_server(answer_and_go_on, OK) as server:
        request = Request("POST", server.url, {}, b"{}")
        assert (await transport.send(request)).status == 200
        say.set()
        await is_said.wait()
        await asyncio.sleep(0.01)
        assert (await transport.send(request)).status == 200
    assert server.connections == 2
