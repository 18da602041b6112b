"""The partial file of a download: the bytes saved so far beside the destination, and a note of which video they are of."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import math
import os
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio.to_thread
import attrs

from kling_async._durable import rename_if_free, rename_into_place
from kling_async._engine.clock import Clock
from kling_async._engine.download.file_lock import LockedFile, is_at, open_locked
from kling_async._engine.download.partial_video import BodyReader, Report
from kling_async._engine.tasks import run_to_end
from kling_async._own_files import give_usual_mode
from kling_async._policy.descriptors import lacks_descriptors
from kling_async._policy.http_ranges import FileVersion
from kling_async.jobs import canonical_id

_EARLY_FLUSH_BYTES = 2 * 1024 * 1024
"""The system begins to write to the disk after so many bytes."""
_MAX_WRITE = 0.02
"""Seconds that a write can block the event loop; half a MiB takes some hundred microseconds to copy."""
_SLOW_FOR = 60.0
"""Seconds for which threads write after a write that took longer."""
_REPORT_INTERVAL = 0.5
"""Seconds between two reports of a file's size."""


@attrs.define(eq=False)
class AdaptiveWriter:
    """Decides whether writes block the event loop or run in threads, by the time that earlier writes took."""

    clock: Clock
    _slow_until: float = attrs.field(default=-math.inf, init=False)

    @property
    def is_slow(self) -> bool:
        """Whether writes run in threads."""
        return self.clock.now() < self._slow_until

    def write(self, write: Callable[[], None]) -> None:
        """Write in the event loop, and measure the time: usually the system only copies the bytes, and a thread costs more."""
        began = self.clock.now()
        write()
        now = self.clock.now()
        if now - began > _MAX_WRITE:
            self._slow_until = now + _SLOW_FOR


class PartialFile:
    """The bytes of a job's video that are saved so far.

    The methods that are not coroutines block, so they run in threads. A lock lets one of them run at a time: if a
    task is cancelled while a thread works for it, the thread ends before `close` closes the file.

    Args:
        path: The destination. The partial file lies beside it as `NAME.part`, and its note as `NAME.part.json`.
        request_id: The job.
        writer: Shared by all files on the same disk.
        report: Called in the task that writes, at most twice a second, and once when `open_partial` has opened the file.
        fallbacks: The destinations if other files have `path` in the end, and then the first of these. The last one is
            the job's own, and replaces a file.
    """

    def __init__(
        self,
        path: Path,
        *,
        request_id: str,
        writer: AdaptiveWriter,
        report: Report | None = None,
        fallbacks: Sequence[Path] = (),
    ) -> None:
        self.path = path
        """The destination; after `commit` the path that the file got."""
        self.request_id = request_id
        self.size = 0
        """Bytes that are saved."""
        self.version: FileVersion | None = None
        """The version of the video that the bytes are of; None while there are none."""
        self._writer = writer
        self._report = report
        self._fallbacks = fallbacks
        self._report_at = -math.inf
        self._locked_file: LockedFile | None = None
        self._has_note = False
        self._flush_begun_to = 0
        self._is_closed = False
        self._io_lock = threading.Lock()

    @property
    def resume_offset(self) -> int:
        """The offset at which the download resumes; 0 if it cannot.

        The last byte of a whole file is fetched again: the response tells whether the version is still the same.
        """
        size = self.version.size_bytes if self.version else None
        return 0 if size is None else min(self.size, size - 1)

    def open(self) -> None:
        """Open and lock the file, and restore the bytes of an earlier run if the download can be resumed.

        Raises:
            OSError: No file can be made at this path.
        """
        with self._io_lock:
            if self._is_closed:
                return
            try:
                if self.path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._locked_file = open_locked(self.path)
            except ValueError as error:
                raise OSError(errno.EINVAL, str(error)) from error
            self._restore(self._locked_file)

    def _restore(self, locked_file: LockedFile) -> None:
        size = locked_file.file.seek(0, io.SEEK_END)
        if not locked_file.is_locked or size == 0:
            return
        version = locked_file.read_note()
        if (
            version is not None
            and canonical_id(version.request_id) == canonical_id(self.request_id)
            and version.validator is not None
            and version.size_bytes is not None
            and size <= version.size_bytes
        ):
            self.version, self.size, self._has_note = version, size, True

    async def write(
        self, read_body: BodyReader, version: FileVersion, *, offset: int, max_bytes: int
    ) -> bool:
        """Write a body from byte `offset` on, over the bytes there; False if the file would pass `max_bytes`.

        Raises:
            OSError: The disk takes no more; the file is not usable any more.
            KlingError: The body was cut short; the bytes that came are in the file.
        """
        self.version, self.size = version, offset
        await anyio.to_thread.run_sync(self._truncate_to, offset)
        deferred: list[bytes] = []
        failures: list[OSError] = []

        def write_piece(piece: bytes | memoryview) -> bool:
            """Write a piece in the event loop, or defer it to the task: a sink cannot await or raise."""
            if self._writer.is_slow or self._is_report_due() or self.size + len(piece) > max_bytes:
                deferred.append(bytes(piece))
                return False
            try:
                self._writer.write(partial(self._append, piece))
            except OSError as error:
                failures.append(error)
            return not failures

        is_all = False
        while not is_all:
            is_all = await read_body(write_piece)
            if failures:
                raise failures[0]
            if deferred:
                piece = deferred.pop()
                if self.size + len(piece) > max_bytes:
                    return False
                await anyio.to_thread.run_sync(self._append, piece)
            if self._is_report_due():
                self.report_size()
        return True

    def report_size(self) -> None:
        """Report the bytes saved so far, if there is a report."""
        if self._report is not None:
            self._report_at = self._writer.clock.now() + _REPORT_INTERVAL
            self._report(self.size, self.version.size_bytes if self.version is not None else None)

    def _is_report_due(self) -> bool:
        return self._report is not None and self._writer.clock.now() >= self._report_at

    def _truncate_to(self, offset: int) -> None:
        with self._io_lock:
            if self._locked_file is None:
                return
            self._locked_file.file.truncate(offset)
            self._locked_file.file.seek(offset)
            self._flush_begun_to = offset
            if offset == 0:
                self._has_note = self._locked_file.write_note(self.version)

    def _append(self, piece: bytes | memoryview) -> None:
        """Append a piece, and let the system begin to write every few MiB to the disk.

        So the flush at the end has little to wait for. On Linux the advice to drop bytes from the cache begins to write
        them, and drops none that are not on the disk; on other systems it does no harm.
        """
        with self._io_lock:
            if self._locked_file is None:
                return
            file, left = self._locked_file.file, memoryview(piece)
            while left:
                left = left[file.write(left) :]
            length = self.size + len(piece) - self._flush_begun_to
            if length >= _EARLY_FLUSH_BYTES and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), self._flush_begun_to, length, os.POSIX_FADV_DONTNEED)
                self._flush_begun_to += length
            self.size += len(piece)

    def has_digest(self, digest: str) -> bool:
        """Whether the bytes saved so far have a digest, written as in `FileVersion.digest`."""
        name, _, value = digest.partition("=")
        with self._io_lock:
            assert self._locked_file is not None
            return base64.b64encode(_digest(self._locked_file.file, name)).decode() == value

    def sha256(self) -> str:
        """The digest of the bytes saved so far, in hex."""
        with self._io_lock:
            assert self._locked_file is not None
            return _digest(self._locked_file.file, "sha256").hex()

    @property
    def file_path(self) -> Path:
        """The path of the partial file itself, which is open."""
        assert self._locked_file is not None
        return self._locked_file.path

    def commit(self, *, digest: bool) -> str | None:
        """Flush the whole file to the disk and rename it to the destination.

        Args:
            digest: Whether to compute the SHA-256.

        Returns:
            The SHA-256 in hex; None without `digest`.
        """
        with self._io_lock:
            locked_file = self._locked_file
            assert locked_file is not None
            os.fsync(locked_file.file.fileno())
            sha256 = _digest(locked_file.file, "sha256").hex() if digest else None
            if not is_at(locked_file.file, locked_file.path):
                raise OSError(errno.ESTALE, "another program has replaced its partial file")
            give_usual_mode(locked_file.file.fileno())
            _close_if_unlocked(locked_file)
            with suppress(OSError):  # another user's file of this name
                locked_file.note_path.unlink(missing_ok=True)
            *shared, own = self.path, *self._fallbacks
            for path in shared:
                if rename_if_free(locked_file.path, path):
                    self.path = path
                    break
            else:
                rename_into_place(locked_file.path, own)
                self.path = own
            locked_file.file.close()
            self._locked_file = None
            return sha256

    async def truncate(self) -> None:
        """Remove all bytes and the note: the download begins again."""
        self.size, self.version = 0, None
        await anyio.to_thread.run_sync(self._truncate_to, 0)

    def close(self) -> None:
        """Close the file; removes the file and its note if a later run cannot resume the download."""
        with self._io_lock:
            self._is_closed = True
            locked_file, self._locked_file = self._locked_file, None
            if locked_file is None:
                return
            can_resume = self.size and self.version is not None and self.version.validator
            if not (locked_file.is_locked and self._has_note and can_resume):
                _close_if_unlocked(locked_file)
                locked_file.remove()
            locked_file.file.close()


@asynccontextmanager
async def open_partial(
    path: Path,
    *,
    request_id: str,
    writer: AdaptiveWriter,
    report: Report | None = None,
    fallbacks: Sequence[Path] = (),
) -> AsyncGenerator[PartialFile, None]:
    """A partial file that is open until the block ends.

    Args:
        path: The destination.
        request_id: The job.
        writer: Shared by all files on the same disk.
        report: See `PartialFile`.
        fallbacks: See `PartialFile`.

    Raises:
        OSError: No file can be made at this path, or the disk takes no more; nothing is left behind.
    """
    partial_file = PartialFile(path, request_id=request_id, writer=writer, report=report, fallbacks=fallbacks)
    try:
        await run_to_end(anyio.to_thread.run_sync(partial_file.open))
        partial_file.report_size()
        yield partial_file
    except OSError as error:
        if not lacks_descriptors(error):
            partial_file.size = 0
        raise
    finally:
        await run_to_end(anyio.to_thread.run_sync(partial_file.close))


def sha256_of(path: Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb", buffering=0) as file:
        return _digest(file, "sha256").hex()


def _digest(file: io.FileIO, name: str) -> bytes:
    file.seek(0)
    return hashlib.file_digest(file, name).digest()


def _close_if_unlocked(locked_file: LockedFile) -> None:
    """Close a file that is not locked: a system without locks cannot rename or remove an open file."""
    if not locked_file.is_locked:
        locked_file.file.close()
