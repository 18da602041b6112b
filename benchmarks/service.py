"""The simulated service: a process of its own on a processor of its own, as light as it can be.

It speaks HTTP/1.1 with keep-alive, by hand: what it costs must not blur what the clients cost.
Requests below `/control/` are the benchmark's own and are not counted.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import BinaryIO, cast

from benchmarks.forms import FORMS, NOT_FOUND, Reply, Request
from benchmarks.jobs import Jobs, Workload

MEDIA_SIZE_BYTES = 16 * 1024 * 1024
LATE = 0.5
"""Seconds after which a late answer comes."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)
_STATUS_WORDS = re.compile(rb'(?<="status":")(?:processing|in_progress|IN_PROGRESS|RUNNING)')
_REPLIES: dict[str, Reply] = {
    "500": (500, b'{"error":"Backend error (400). Please try again."}'),
    "503": (503, b'{"error":"unavailable"}'),
}
_TRANSPORT_FAULTS = frozenset({"drop", "stall", "late"})
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(kw_only=True)
class Fault:
    """How the answers to one kind of request fail."""

    on: str = "submit"
    """`submit` for the paid requests, `poll` for all others."""
    how: str = ""
    """`500`, `503`: that answer; `drop`: the connection ends; `stall`: silence; `late`: after half a second;
    `word`: a status that no client knows."""
    times: int = 1_000_000
    """How many answers are left to be hit; each job is accepted all the same."""


@dataclass
class Service:
    """What all connections share: the present run and the one file that is served as every video."""

    media: BinaryIO
    jobs: Jobs = field(default_factory=lambda: Jobs(Workload()))
    host: str = ""
    fault: Fault | None = None

    def take_fault(self, method: str, target: str) -> str:
        """How the answer to this request fails; empty if it does not."""
        fault, kind = self.fault, "submit" if method == "POST" else "poll"
        if fault is None or fault.on != kind or fault.times <= 0 or target.startswith("/control/"):
            return ""
        fault.times -= 1
        return fault.how

    def answer(self, method: str, target: str, body: bytes, *, how: str = "") -> Reply:
        """The reply to one request for JSON, with this fault."""
        reply = self._truth(method, target, body, now=-math.inf if how == "word" else time.monotonic())
        if how == "word":
            return reply[0], _STATUS_WORDS.sub(b"polishing", reply[1])
        return _REPLIES.get(how, reply)

    def _truth(self, method: str, target: str, body: bytes, *, now: float) -> Reply:
        path, _, query = target.lstrip("/").partition("?")
        if path.startswith("control/"):
            return self._control(path.removeprefix("control/"), body)
        for prefix, form in FORMS.items():
            if path.startswith(prefix):
                below = path[len(prefix) :]
                return form(self.jobs, Request(method, below, query, body, now, self.host))
        self.jobs.counts.other += 1
        return NOT_FOUND

    def _control(self, path: str, body: bytes) -> Reply:
        if path == "reset":
            self.jobs = Jobs(Workload(**json.loads(body)), run=self.jobs.run + 1)
            self.fault = None
        if path == "fault":
            self.fault = Fault(**json.loads(body))
        if path == "ids":
            return 200, json.dumps([self.jobs.id_of(index) for index in range(len(self.jobs))]).encode()
        if path == "records":
            return 200, json.dumps(list(self.jobs.rows())).encode()
        return 200, json.dumps(self.jobs.report()).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests on it are answered in order."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._unread = b""
        self._sending: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where replies go."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop sending a file that the client no longer reads."""
        del exc
        if self._sending is not None:
            self._sending.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._unread += data
        while self._sending is None and self._answer_one():
            pass

    def _answer_one(self) -> bool:
        end = self._unread.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._unread[:end]
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
        length = int(found[1]) if method == b"POST" and (found := _LENGTH.search(head)) else 0
        whole = end + 4 + length
        if len(self._unread) < whole:
            return False
        body, self._unread = self._unread[end + 4 : whole], self._unread[whole:]
        if target.startswith(b"/media/"):
            self._service.jobs.counts.media += 1
            self._sending = asyncio.create_task(self._send_file(head))
            return False
        how = self._service.take_fault(method.decode(), target.decode())
        status, text = self._service.answer(method.decode(), target.decode(), body, how=how)
        reply = _head(status, len(text), b"application/json") + text
        if how in _TRANSPORT_FAULTS:
            return self._spoil(how, reply)
        self._transport.write(reply)
        return True

    def _spoil(self, how: str, reply: bytes) -> bool:
        """Have a reply come late or never."""
        if how == "late":
            asyncio.get_running_loop().call_later(LATE, self._transport.write, reply)
        elif how == "drop":
            self._transport.close()
        return how == "late"

    async def _send_file(self, head: bytes) -> None:
        first, last = 0, MEDIA_SIZE_BYTES - 1
        status, extra = 200, b""
        if found := _RANGE.search(head):
            first, last = int(found[1]), int(found[2] or last)
            status, extra = 206, b"Content-Range: bytes %d-%d/%d\r\n" % (first, last, MEDIA_SIZE_BYTES)
        size = last - first + 1
        self._transport.write(_head(status, size, b"video/mp4", extra + b"Accept-Ranges: bytes\r\n"))
        await asyncio.get_running_loop().sendfile(self._transport, self._service.media, first, size)
        self._sending = None
        self.data_received(b"")


def _head(status: int, size: int, content_type: bytes, extra: bytes = b"") -> bytes:
    reason = _REASONS[status].encode()
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (
        status,
        reason,
        content_type,
        size,
        extra,
    )


async def serve() -> None:
    """Serve on a free port of loopback, tell its number on standard output, stop when standard input ends."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as media:
        media.write(os.urandom(MEDIA_SIZE_BYTES))
        media.flush()
        service = Service(cast("BinaryIO", media))
        server = await loop.create_server(lambda: Connection(service), "127.0.0.1", 0, backlog=4096)
        port = server.sockets[0].getsockname()[1]
        service.host = f"http://127.0.0.1:{port}"
        print(port, flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """What the service's process runs."""
    asyncio.run(serve())
