"""The rest of a long body, from its connection into one buffer that is filled again and again.

aiohttp makes new bytes of every read and copies them once more, which costs a video more than to write it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from kling_async._transport.exchange import ends_of

_BUFFER_BYTES = 512 * 1024


class Intake(asyncio.BufferedProtocol):
    """Takes a reply's connection over from aiohttp until its body has come, and gives it back to be used again.

    Args:
        reply: One of known length, whose content holds no byte that was not read.
        timeout: Seconds between two pieces.

    Raises:
        aiohttp.ServerDisconnectedError: There is no connection any more.
    """

    def __init__(self, reply: aiohttp.ClientResponse, *, timeout: float) -> None:
        self._former, self._transport = ends_of(reply.connection)
        assert reply.content_length is not None
        self._content = reply.content
        self._to_come = reply.content_length - reply.content.total_bytes
        self._timeout = timeout
        self._buffer = memoryview(bytearray(min(_BUFFER_BYTES, self._to_come)))
        self._filled = 0
        self._has_come = asyncio.Event()
        self._loss: Exception | None = None
        self._former.set_response_params()  # it waits for no body then, and notices what comes after this one
        self._former.start_timeout()  # which is none now
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    async def pieces(self) -> AsyncIterator[memoryview]:
        """What comes; each piece is good until the next one is asked for.

        Raises:
            aiohttp.ServerDisconnectedError: The connection ended before the body did.
            OSError: The connection broke.
            TimeoutError: No piece came in time.
        """
        taken = 0
        while taken < self._filled or self._to_come:
            if taken == self._filled:
                await self._wait()
            start, taken = taken, self._filled
            yield self._buffer[start:taken]
            if taken == self._filled:
                is_full = taken == len(self._buffer)
                taken = self._filled = 0
                if is_full and self._to_come:
                    self._transport.resume_reading()

    async def _wait(self) -> None:
        """Wait for at least one byte."""
        self._has_come.clear()
        if self._loss is None:
            async with asyncio.timeout(self._timeout):
                await self._has_come.wait()
        if self._loss is not None:
            raise self._loss

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # the name it has in asyncio
        """Where the next bytes go: those of this body, and none after it."""
        return self._buffer[self._filled : self._filled + self._to_come]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes more are there."""
        self._filled += nbytes
        self._to_come -= nbytes
        if not self._to_come:
            self._transport.set_protocol(self._former)
            self._content.feed_eof()
        elif self._filled == len(self._buffer):
            self._transport.pause_reading()
        self._has_come.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """No byte more will come."""
        self._loss = exc or aiohttp.ServerDisconnectedError(f"{self._to_come:,} bytes were still to come")
        self._has_come.set()
        self._former.connection_lost(exc)
