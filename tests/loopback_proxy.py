"""An HTTP proxy and an HTTP server on loopback, made by hand: they share no code with the client."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@attrs.define
class Loopback:
    """What a proxy or server was asked."""

    port: int = 0
    connections: int = 0
    heads: list[str] = attrs.field(factory=list)

    @property
    def requests(self) -> list[str]:
        """The first line of each request."""
        return [head.partition("\r\n")[0] for head in self.heads]


@asynccontextmanager
async def run_listener(
    handle, seen: Loopback, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Loopback]:
    """A server whose connections are handled by a coroutine, and closed at its end."""
    tasks: set[asyncio.Task] = set()

    async def connect(reader, writer):
        tasks.add(asyncio.current_task())
        seen.connections += 1
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            await handle(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(connect, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)


@asynccontextmanager
async def http_server(reply: bytes = OK, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Loopback]:
    """A server that gives each request the same reply, and keeps its connections."""
    seen = Loopback()

    async def handle(reader, writer):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            seen.heads.append(head)
            await reader.readexactly(_length(head))
            writer.write(reply)
            await writer.drain()

    async with run_listener(handle, seen, tls=tls) as server:
        yield server


@asynccontextmanager
async def http_proxy(*, login: str | None = None, refusal: bytes | None = None) -> AsyncIterator[Loopback]:
    """A proxy for CONNECT and for plain requests, to any host: all names are this machine.

    Args:
        login: The `user:password` that it wants.
        refusal: What it answers instead of passing anything on; empty to close the connection.
    """
    seen = Loopback()
    wanted = f"proxy-authorization: basic {b64encode(login.encode()).decode()}".lower() if login else ""

    async def handle(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.heads.append(head)
        if refusal is not None:
            writer.write(refusal)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        elif wanted not in head.lower():
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        else:
            await _pass_on(head, reader, writer, seen)

    async with run_listener(handle, seen) as proxy:
        yield proxy


async def _pass_on(
    head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Loopback
) -> None:
    method, target, _ = head.split(" ", 2)
    host = target.removeprefix("http://").partition("/")[0]
    there, back = await asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]))
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        requests = _copy(reader, back)
    else:
        requests = _copy_requests(head, reader, back, seen)
    try:
        await asyncio.gather(requests, _copy(there, writer))
    finally:
        back.transport.abort()


async def _copy_requests(
    head: str, source: asyncio.StreamReader, target: asyncio.StreamWriter, seen: Loopback
) -> None:
    """Send each request of a connection to its host, with the path alone in its first line."""
    with suppress(asyncio.IncompleteReadError):
        while True:
            method, url, rest = head.split(" ", 2)
            path = url.removeprefix("http://").partition("/")[2]
            target.write(f"{method} /{path} {rest}".encode() + await source.readexactly(_length(head)))
            await target.drain()
            head = (await source.readuntil(b"\r\n\r\n")).decode()
            seen.heads.append(head)
    target.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(65536):
        target.write(piece)
        await target.drain()
    target.close()


def _length(head: str) -> int:
    lines = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
    return int(lines[0].partition(":")[2]) if lines else 0
