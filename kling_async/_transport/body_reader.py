"""The rest of a long body, from its connection to who wants it through one buffer that all bodies share.

aiohttp makes new bytes of every read and copies them once more, which costs a video more than to write it does. A buffer
for each body, from which a task takes what has come, costs some of that again.
"""

from __future__ import annotations

import asyncio

import aiohttp

from kling_async._transport.base import Sink
from kling_async._transport.http1_sender import protocol_and_transport

BUFFER_BYTES = 256 * 1024


class BodyReader(asyncio.BufferedProtocol):
    """Takes a reply's connection over from aiohttp until its body has come, and gives it back to be used again.

    Args:
        reply: One of known length, whose content holds no byte that was not read.
        buffer: Where each piece is read into. Others may use it too: a piece is given on before the next one is read.
        timeout: Seconds between two pieces.

    Raises:
        aiohttp.ServerDisconnectedError: There is no connection any more.
    """

    def __init__(self, reply: aiohttp.ClientResponse, buffer: memoryview, *, timeout: float) -> None:
        self._previous_protocol, self._transport = protocol_and_transport(reply.connection)
        assert reply.content_length is not None
        self._content = reply.content
        self._remaining_bytes = reply.content_length - reply.content.total_bytes
        self._buffer = buffer
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._received_at = 0.0
        self._sink: Sink | None = None
        self._is_done = asyncio.Event()
        self._connection_error: Exception | None = None
        self._previous_protocol.set_response_params()  # it waits for no body then, and notices what comes after this one
        self._previous_protocol.start_timeout()  # which is none now
        self._transport.pause_reading()
        self._transport.set_protocol(self)

    async def pipe_to(self, sink: Sink) -> bool:
        """See `StreamedReply.pipe_to`.

        Raises:
            aiohttp.ServerDisconnectedError: The connection ended before the body did.
            OSError: The connection broke.
            TimeoutError: No piece came in time.
        """
        if self._connection_error is None and self._remaining_bytes:
            await self._read_into(sink)
        if self._connection_error is not None and self._remaining_bytes:
            raise self._connection_error
        return not self._remaining_bytes

    async def _read_into(self, sink: Sink) -> None:
        self._sink = sink
        self._is_done.clear()
        self._received_at = self._loop.time()
        self._transport.resume_reading()
        try:
            while not self._is_done.is_set():
                latest = self._received_at + self._timeout
                try:
                    async with asyncio.timeout_at(latest):
                        await self._is_done.wait()
                except TimeoutError:
                    if self._received_at + self._timeout <= latest:
                        raise
        finally:
            self._stop()

    def _stop(self) -> None:
        """Give the sink no more, and tell who waits for that."""
        self._sink = None
        self._is_done.set()
        if self._remaining_bytes:
            self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the name it has in asyncio
        """Where the next bytes go: those of this body, and none after it."""
        return self._buffer[: self._remaining_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes more are there."""
        assert self._sink is not None, "nothing comes while reading is paused"
        wants_more = self._sink(self._buffer[:nbytes])
        self._received_at = self._loop.time()
        self._remaining_bytes -= nbytes
        if not self._remaining_bytes:
            self._transport.set_protocol(self._previous_protocol)
            self._content.feed_eof()
        if not (self._remaining_bytes and wants_more):
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """No byte more will come."""
        self._connection_error = exc or aiohttp.ServerDisconnectedError(
            f"{self._remaining_bytes:,} bytes were still to come"
        )
        self._is_done.set()
        self._previous_protocol.connection_lost(exc)
