"""The rest of a long body, from its connection to who wants it through one buffer that all bodies share.

aiohttp makes new bytes of every read and copies them once more, which costs a video more than to write it does. A buffer
for each body, from which a task takes what has come, costs some of that again.
"""

from __future__ import annotations

import asyncio

import aiohttp

from kling_async._transport.base import Sink
from kling_async._transport.exchange import ends_of

BUFFER_BYTES = 256 * 1024


class Intake(asyncio.BufferedProtocol):
    """Takes a reply's connection over from aiohttp until its body has come, and gives it back to be used again.

    Args:
        reply: One of known length, whose content holds no byte that was not read.
        buffer: Where each piece is read into. Others may use it too: a piece is given on before the next one is read.
        timeout: Seconds between two pieces.

    Raises:
        aiohttp.ServerDisconnectedError: There is no connection any more.
    """

    def __init__(self, reply: aiohttp.ClientResponse, buffer: memoryview, *, timeout: float) -> None:
        self._former, self._transport = ends_of(reply.connection)
        assert reply.content_length is not None
        self._content = reply.content
        self._to_come = reply.content_length - reply.content.total_bytes
        self._buffer = buffer
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._came_at = 0.0
        self._sink: Sink | None = None
        self._is_over = asyncio.Event()
        self._loss: Exception | None = None
        self._former.set_response_params()  # it waits for no body then, and notices what comes after this one
        self._former.start_timeout()  # which is none now
        self._transport.pause_reading()
        self._transport.set_protocol(self)

    async def pipe_to(self, sink: Sink) -> bool:
        """See `StreamedReply.pipe_to`.

        Raises:
            aiohttp.ServerDisconnectedError: The connection ended before the body did.
            OSError: The connection broke.
            TimeoutError: No piece came in time.
        """
        if self._loss is None and self._to_come:
            await self._pipe_to(sink)
        if self._loss is not None and self._to_come:
            raise self._loss
        return not self._to_come

    async def _pipe_to(self, sink: Sink) -> None:
        self._sink = sink
        self._is_over.clear()
        self._came_at = self._loop.time()
        self._transport.resume_reading()
        try:
            while not self._is_over.is_set():
                latest = self._came_at + self._timeout
                try:
                    async with asyncio.timeout_at(latest):
                        await self._is_over.wait()
                except TimeoutError:
                    if self._came_at + self._timeout <= latest:
                        raise
        finally:
            self._stop()

    def _stop(self) -> None:
        """Give the sink no more, and tell who waits for that."""
        self._sink = None
        self._is_over.set()
        if self._to_come:
            self._transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the name it has in asyncio
        """Where the next bytes go: those of this body, and none after it."""
        return self._buffer[: self._to_come]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes more are there."""
        assert self._sink is not None, "nothing comes while reading is paused"
        wants_more = self._sink(self._buffer[:nbytes])
        self._came_at = self._loop.time()
        self._to_come -= nbytes
        if not self._to_come:
            self._transport.set_protocol(self._former)
            self._content.feed_eof()
        if not (self._to_come and wants_more):
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        """No byte more will come."""
        self._loss = exc or aiohttp.ServerDisconnectedError(f"{self._to_come:,} bytes were still to come")
        self._is_over.set()
        self._former.connection_lost(exc)
