"""A video on its way into an object store without a file on this machine."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio.to_thread

from kling_async._engine.download.partial_video import BodyReader, Report
from kling_async._engine.tasks import run_to_end
from kling_async._policy.http_ranges import FileVersion
from kling_async._policy.object_stores import LARGEST_SINGLE_PUT_BYTES, PART_BYTES
from kling_async._stores import ObjectWriter
from kling_async.errors import KlingError

_HASHES = ("md5", "sha256", "sha512")
"""Those that storages name; see `FileVersion.digest`."""


class StreamedVideo:
    """The bytes of a job's video that have come so far: in memory, and from 32 MiB on in the parts of an upload.

    Args:
        request_id: The job.
        open_writer: Opens the upload of a large video.
        report: Called with the bytes that have come.
    """

    def __init__(
        self, request_id: str, *, open_writer: Callable[[], Awaitable[ObjectWriter]], report: Report | None
    ) -> None:
        self.request_id = request_id
        self.size = 0
        self.version: FileVersion | None = None
        self.writer: ObjectWriter | None = None
        """The upload; None while the whole video fits into one request."""
        self._open_writer = open_writer
        self._report = report
        self._buffer = bytearray()
        self._hashes = [hashlib.new(name, usedforsecurity=False) for name in _HASHES]

    @property
    def resume_offset(self) -> int:
        """The offset at which the download resumes; see `PartialFile.resume_offset`."""
        size = self.version.size_bytes if self.version else None
        return 0 if size is None else min(self.size, size - 1)

    async def write(
        self, read_body: BodyReader, version: FileVersion, *, offset: int, max_bytes: int
    ) -> bool:
        """Take a body from byte `offset` on; False if the video would pass `max_bytes`.

        Raises:
            KlingError: The body was cut short, or the store takes no more.
        """
        if offset == 0:
            await self.truncate()
        self.version = version
        overlap = self.size - offset  # the last byte of a whole video comes again

        def take(piece: bytes | memoryview) -> bool:
            nonlocal overlap
            fresh = memoryview(piece)[overlap:]
            overlap -= len(piece) - len(fresh)
            self._buffer += fresh
            self.size += len(fresh)
            return not self._is_full and self.size <= max_bytes

        is_all = False
        while not is_all:
            is_all = await read_body(take)
            if self.size > max_bytes:
                return False
            if self._is_full:
                await self._send()
            if self._report is not None:
                self._report(self.size, version.size_bytes)
        return True

    @property
    def _is_full(self) -> bool:
        return len(self._buffer) > (LARGEST_SINGLE_PUT_BYTES if self.writer is None else PART_BYTES)

    async def _send(self) -> None:
        """Send what has come as parts of the upload."""
        piece = await anyio.to_thread.run_sync(self._take_buffer)
        try:
            if self.writer is None:
                self.writer = await self._open_writer()
            await self.writer.write(piece)
        except BaseException:
            await run_to_end(self.truncate())  # no later byte can follow
            raise

    def _take_buffer(self) -> bytes:
        piece = bytes(self._buffer)
        self._buffer.clear()
        for digest in self._hashes:
            digest.update(piece)
        return piece

    async def truncate(self) -> None:
        """Remove all bytes, and the parts that were sent."""
        writer, self.writer = self.writer, None
        self._buffer.clear()
        self.size, self.version = 0, None
        self._hashes = [hashlib.new(name, usedforsecurity=False) for name in _HASHES]
        if writer is not None:
            await writer.abort()

    def has_digest(self, digest: str) -> bool:
        """Whether the bytes have a digest, written as in `FileVersion.digest`."""
        name, _, value = digest.partition("=")
        return base64.b64encode(self._digest(name)).decode() == value

    def sha256(self) -> str:
        """The digest of the bytes, in hex."""
        return self._digest("sha256").hex()

    def _digest(self, name: str) -> bytes:
        whole = self._hashes[_HASHES.index(name)].copy()
        whole.update(self._buffer)
        return whole.digest()

    @property
    def content(self) -> bytes:
        """The whole video, if it is in memory."""
        assert self.writer is None
        return bytes(self._buffer)

    async def complete(self) -> None:
        """Send the rest of a large video: the object appears.

        Raises:
            KlingError: A part failed; no bytes are left.
        """
        assert self.writer is not None
        try:
            await self.writer.write(bytes(self._buffer))
            await self.writer.complete()
        except KlingError:
            await self.truncate()
            raise
        self.writer = None


@asynccontextmanager
async def open_streamed(
    request_id: str, *, open_writer: Callable[[], Awaitable[ObjectWriter]], report: Report | None
) -> AsyncGenerator[StreamedVideo, None]:
    """A video that is streamed for as long as the block lasts; an upload that is not complete then is aborted."""
    video = StreamedVideo(request_id, open_writer=open_writer, report=report)
    try:
        yield video
    finally:
        await run_to_end(video.truncate())
