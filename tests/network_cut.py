"""A network namespace whose packets to one address of this machine can be dropped; needs root, and Linux.

As a program it forwards connections, inside the namespace: `network_cut.py HOST PORT` listens at the same port of the
namespace's own 127.0.0.1. So a service outside is on the same machine for what runs inside.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import attrs

NAME = f"kling-async-{os.getpid()}"
"""Each process has a namespace, devices and addresses of its own."""
_OUTSIDE, _INSIDE = f"kl-out-{os.getpid()}", f"kl-in-{os.getpid()}"
_RANGE = f"10.213.{os.getpid() % 250}"
_NO_MACHINE = "02:00:00:00:00:99"
"""A link address that no interface has: packets to it disappear without an error."""


@attrs.define
class Network:
    """The namespace, and the addresses of this machine as seen from there."""

    database: str = f"{_RANGE}.1"
    service: str = f"{_RANGE}.2"
    range: str = f"{_RANGE}.0/24"
    prefix: tuple[str, ...] = ("ip", "netns", "exec", NAME)
    """Begins a command that runs inside."""

    def cut(self) -> None:
        """Drop all packets to the database, without an error for anyone."""
        _ip(
            "-n",
            NAME,
            "neigh",
            "replace",
            self.database,
            "lladdr",
            _NO_MACHINE,
            "dev",
            _INSIDE,
            "nud",
            "permanent",
        )

    def join(self) -> None:
        """Let packets through again."""
        _ip("-n", NAME, "neigh", "del", self.database, "dev", _INSIDE)


@contextmanager
def open_network() -> Iterator[Network]:
    """The namespace, for as long as the block lasts."""
    network = Network()
    with suppress(subprocess.CalledProcessError):
        _ip("netns", "del", NAME)
    _ip("netns", "add", NAME)
    try:
        _ip("link", "add", _OUTSIDE, "type", "veth", "peer", "name", _INSIDE, "netns", NAME)
        for address in (network.database, network.service):
            _ip("addr", "add", f"{address}/24", "dev", _OUTSIDE)
        _ip("link", "set", _OUTSIDE, "up")
        _ip("-n", NAME, "addr", "add", f"{_RANGE}.9/24", "dev", _INSIDE)
        for device in (_INSIDE, "lo"):
            _ip("-n", NAME, "link", "set", device, "up")
        yield network
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "del", NAME)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)  # noqa: S603, S607 - our own words


async def forward(host: str, port: int) -> None:
    """Forward each connection to the same port of another host."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(forward(sys.argv[1], int(sys.argv[2])))
