"""Reads a long body from its connection into one buffer that all bodies share.

aiohttp makes a new bytes object for each read and copies it once more. For a video that costs more than writing the
file. A buffer for each body, emptied by a task, would cost part of that again.
"""

from __future__ import annotations

import asyncio

import aiohttp

from kling_async._transport.base import Sink
from kling_async._transport.http1_sender import protocol_and_transport

BUFFER_BYTES = 256 * 1024


class BodyReader(asyncio.BufferedProtocol):
    """Takes the connection of a reply over from aiohttp, and gives it back when the body is complete.

    Args:
        reply: A reply of known length; no byte of its body is left in aiohttp's own buffer.
        buffer: Receives each piece. Other readers may share it: a piece goes to the sink before the next read.
        timeout: Seconds between two pieces.

    Raises:
        aiohttp.ServerDisconnectedError: The connection is closed.
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
        self._previous_protocol.set_response_params()  # aiohttp then expects no body, and notices bytes after it
        self._previous_protocol.start_timeout()  # with no body expected, this stops its timer
        self._transport.pause_reading()
        self._transport.set_protocol(self)

    async def pipe_to(self, sink: Sink) -> bool:
        """See `StreamedReply.pipe_to`.

        Raises:
            aiohttp.ServerDisconnectedError: The connection closed before the body was complete.
            OSError: The connection was lost.
            TimeoutError: No piece came within the timeout.
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
        """Give the sink nothing more, and wake `pipe_to`."""
        self._sink = None
        self._is_done.set()
        if self._remaining_bytes:
            self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio passes it by name
        """The buffer for the next bytes, cut so that no byte after this body is read."""
        return self._buffer[: self._remaining_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """Give the bytes that were read to the sink."""
        assert self._sink is not None, "no bytes come while reading is paused"
        wants_more = self._sink(self._buffer[:nbytes])
        self._received_at = self._loop.time()
        self._remaining_bytes -= nbytes
        if not self._remaining_bytes:
            self._transport.set_protocol(self._previous_protocol)
            self._content.feed_eof()
        if not (self._remaining_bytes and wants_more):
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the body ends here."""
        self._connection_error = exc or aiohttp.ServerDisconnectedError(
            f"{self._remaining_bytes:,} bytes were missing"
        )
        self._is_done.set()
        self._previous_protocol.connection_lost(exc)
