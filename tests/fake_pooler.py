"""A TCP proxy that answers with a server process of its own, as a pooler of connections does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_BACKEND_KEY = b"K\x00\x00\x00\x0c"
"""The beginning of the message with the number of the server process."""


@contextmanager
def run_pooler(port: int) -> Iterator[int]:
    """The port of a proxy to a server on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, port), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, port: int) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pipe, args=(source, target), daemon=True).start()


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            before, key, rest = data.partition(_BACKEND_KEY)
            target.sendall(before + key + (b"\x00\x00\x00\x07" + rest[4:] if key else rest))
        target.shutdown(socket.SHUT_WR)
    source.close()
