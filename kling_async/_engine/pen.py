"""Bytes to a function that blocks, in a thread of its own, while the next ones are read from the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self

import anyio

_MOST_WAITING = 4
"""Pieces that may wait for the disk; a piece is what one read of a socket gave, at most some hundred KiB."""
_FEW_WAITING = _MOST_WAITING // 2


class Pen:
    """A thread that writes pieces in the order in which they are put; leaving the block waits for the last one.

    One thread for a whole file costs less than a worker thread that is asked for each write, and the event loop
    never waits for the disk.

    Args:
        write: Called once, in the thread, with the pieces as they come; it ends when they do.
    """

    def __init__(self, write: Callable[[Iterator[bytes]], None]) -> None:
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()
        self._room = asyncio.Event()
        self._is_awaited = False
        self._is_over = asyncio.Event()
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        Thread(target=self._run, name="kling_async-pen", daemon=True).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pieces.put(None)
        with anyio.CancelScope(shield=True):
            await self._is_over.wait()
        failure = self._failure
        if failure is not None and failure is not error and (error is None or isinstance(error, Exception)):
            raise failure from error

    async def put(self, piece: bytes) -> None:
        """Hand a piece over; waits while too many are not written yet.

        Raises:
            Exception: What `write` raised; nothing more will be written.
        """
        while True:
            self._room.clear()
            # Before the look at the queue: what the thread takes from now on, it tells.
            self._is_awaited = True
            if self._pieces.qsize() < _MOST_WAITING or self._is_over.is_set():
                break
            await self._room.wait()
        self._is_awaited = False
        if self._failure is not None:
            raise self._failure
        self._pieces.put(piece)

    def _run(self) -> None:
        try:
            self._write(self._taken())
        except Exception as error:  # noqa: BLE001 - raised in the task
            self._failure = error
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            self._loop.call_soon_threadsafe(self._end)

    def _taken(self) -> Iterator[bytes]:
        """The pieces. To wake the task for each of them would cost as much as to write it: only where it waits."""
        while (piece := self._pieces.get()) is not None:
            yield piece
            if self._is_awaited and self._pieces.qsize() <= _FEW_WAITING:
                self._is_awaited = False
                self._loop.call_soon_threadsafe(self._room.set)

    def _end(self) -> None:
        self._is_over.set()
        self._room.set()
