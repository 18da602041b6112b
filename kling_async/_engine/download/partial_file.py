"""A video that is not whole yet: a file beside its destination, and a note of which video it is a part of."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import math
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import attrs

from kling_async._engine.clock import Clock
from kling_async._engine.download.file_lock import LockedFile, claim
from kling_async._policy.http_ranges import FileVersion, dump, load
from kling_async._transport.base import Sink

Pipe = Callable[[Sink], Awaitable[bool]]
"""Gives bytes to a sink until it wants no more; whether that was all of them."""

_HASTENED_BYTES = 2 * 1024 * 1024
_LONGEST_WRITE = 0.02
"""Seconds for which a write may hold up the event loop: half a MiB takes some hundred microseconds of memory."""
_SLOW_FOR = 60.0
"""Seconds for which threads do the writing after one that took longer."""


@attrs.define(eq=False)
class AdaptiveWriter:
    """Where parts are written. All those that share it learn from one another how long it takes."""

    clock: Clock
    _slow_until: float = attrs.field(default=-math.inf, init=False)

    @property
    def is_slow(self) -> bool:
        """Whether writes are for threads."""
        return self.clock.now() < self._slow_until

    def do(self, write: Callable[[], None]) -> None:
        """Write at once, for the system keeps the bytes for later and a thread costs more."""
        begun = self.clock.now()
        write()
        now = self.clock.now()
        if now - begun > _LONGEST_WRITE:
            self._slow_until = now + _SLOW_FOR


class PartialFile:
    """What there is of a job's video so far.

    Methods that are no coroutines block, and are for threads. They take turns, so that a task that is cancelled while
    one of them runs can leave: what it asked for ends before the file is closed.

    Args:
        path: The destination; the part lies beside it as `.part`, its note as `.part.json`.
        request_id: The job.
        disk: What the path is on.
    """

    def __init__(self, path: Path, *, request_id: str, disk: AdaptiveWriter) -> None:
        self.path = path
        self.request_id = request_id
        self.size = 0
        """Bytes that are there."""
        self.version: FileVersion | None = None
        """What they are of; None while there are none."""
        self.on_growth: Callable[[], None] | None = None
        """Called by who writes, when it is time to."""
        self.tells_at = -math.inf
        """When that is."""
        self._disk = disk
        self._claim: LockedFile | None = None
        self._hastened = 0
        self._is_closed = False
        self._turn = threading.Lock()

    @property
    def resumes_at(self) -> int:
        """Where to go on; one byte of a part that is whole is fetched again, to be told that it is still the same."""
        size = self.version.size_bytes if self.version else None
        return 0 if size is None else min(self.size, size - 1)

    def open(self) -> None:
        """Take hold of the file, with what an earlier run left in it if that can be gone on with.

        Raises:
            OSError: There can be no file there.
        """
        with self._turn:
            if self._is_closed:
                return
            try:
                if self.path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._claim = claim(self.path)
            except ValueError as error:
                raise OSError(errno.EINVAL, str(error)) from error
            self._recall(self._claim)

    def _recall(self, claim: LockedFile) -> None:
        size = claim.file.seek(0, io.SEEK_END)
        if not claim.is_locked or size == 0:
            return
        try:
            version = load(_note(claim).read_text())
        except (OSError, ValueError):
            return
        if (
            version is not None
            and version.request_id == self.request_id
            and version.validator is not None
            and version.size_bytes is not None
            and size <= version.size_bytes
        ):
            self.version, self.size = version, size

    async def write(self, pipe: Pipe, version: FileVersion, *, at: int, most: int) -> bool:
        """Put bytes down from byte `at` on, which replaces what was there; False if they pass `most` bytes.

        Raises:
            OSError: The disk takes no more; the part is good for nothing now.
            KlingError: The bytes ended before their time; what came is there.
        """
        self.version, self.size = version, at
        await anyio.to_thread.run_sync(self._begin, at)
        held: list[bytes] = []
        failures: list[OSError] = []

        def take(piece: bytes | memoryview) -> bool:
            """Write a piece here and now, or hold it where there is something to do that takes a task."""
            if self._disk.is_slow or self._is_to_tell() or self.size + len(piece) > most:
                held.append(bytes(piece))
                return False
            try:
                self._disk.do(partial(self._put, piece))
            except OSError as error:
                failures.append(error)
            return not failures

        is_all = False
        while not is_all:
            is_all = await pipe(take)
            if failures:
                raise failures[0]
            if held:
                piece = held.pop()
                if self.size + len(piece) > most:
                    return False
                await anyio.to_thread.run_sync(self._put, piece)
            if self.on_growth is not None and self._is_to_tell():
                self.on_growth()
        return True

    def _is_to_tell(self) -> bool:
        return self.on_growth is not None and self._disk.clock.now() >= self.tells_at

    def _begin(self, at: int) -> None:
        with self._turn:
            if self._claim is None:
                return
            self._claim.file.truncate(at)
            self._claim.file.seek(at)
            self._hastened = at
            if at == 0:
                self._note_down(self._claim)

    def _put(self, piece: bytes | memoryview) -> None:
        """Write a piece after what is there, and have the disk begin with each few MiB while the next ones come.

        So the flush at the end has little left to wait for. The advice to drop what is written is on Linux what begins
        to write it, and drops nothing that is not on the disk; elsewhere it does no harm.
        """
        with self._turn:
            if self._claim is None:
                return
            file, left = self._claim.file, memoryview(piece)
            while left:
                left = left[file.write(left) :]
            length = self.size + len(piece) - self._hastened
            if length >= _HASTENED_BYTES and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), self._hastened, length, os.POSIX_FADV_DONTNEED)
                self._hastened += length
            self.size += len(piece)

    def _note_down(self, claim: LockedFile) -> None:
        """For a run after a crash. The part is empty now, so a note that is lost or half-written does no harm."""
        if claim.is_locked and self.version is not None and self.version.validator is not None:
            _note(claim).write_text(dump(self.version))
        else:
            _note(claim).unlink(missing_ok=True)

    def md5(self) -> str:
        """The digest of what is there, in base64."""
        with self._turn:
            assert self._claim is not None
            return base64.b64encode(_digest(self._claim.file, "md5")).decode()

    def keep(self, *, digest: bool) -> str | None:
        """Bring the file to the disk and give it its name; its SHA-256 in hex, if that is wanted."""
        with self._turn:
            claim = self._claim
            assert claim is not None
            os.fsync(claim.file.fileno())
            sha256 = _digest(claim.file, "sha256").hex() if digest else None
            _loosen(claim)
            _note(claim).unlink(missing_ok=True)
            claim.path.replace(self.path)
            claim.file.close()
            self._claim = None
            with suppress(OSError):  # the bytes are on the disk, and a lost name is noticed
                _flush_folder(self.path.parent)
            return sha256

    async def empty(self) -> None:
        """Nothing of what is there is of use any more."""
        self.size, self.version = 0, None
        await anyio.to_thread.run_sync(self._begin, 0)

    def close(self) -> None:
        """Let go; what a later run cannot go on with is removed."""
        with self._turn:
            self._is_closed = True
            claim, self._claim = self._claim, None
            if claim is None:
                return
            if not (claim.is_locked and self.size and self.version is not None and self.version.validator):
                _loosen(claim)
                with suppress(OSError):  # why there is no video is told already
                    claim.path.unlink()
                    _note(claim).unlink(missing_ok=True)
            claim.file.close()


@asynccontextmanager
async def opened(path: Path, *, request_id: str, disk: AdaptiveWriter) -> AsyncGenerator[PartialFile, None]:
    """A part that is open until the block ends, whether it was kept or not.

    Raises:
        OSError: There can be no file there, or the disk takes no more; nothing is left behind then.
    """
    part = PartialFile(path, request_id=request_id, disk=disk)
    try:
        await anyio.to_thread.run_sync(part.open)
        yield part
    except OSError:
        part.size = 0
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(part.close)


def sha256_of(path: Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb", buffering=0) as file:
        return _digest(file, "sha256").hex()


def _note(claim: LockedFile) -> Path:
    return claim.path.with_name(claim.path.name + ".json")


def _digest(file: io.FileIO, name: str) -> bytes:
    file.seek(0)
    return hashlib.file_digest(file, name).digest()


def _loosen(claim: LockedFile) -> None:
    """Where there are no locks, an open file cannot be renamed or removed either."""
    if not claim.is_locked:
        claim.file.close()


def _flush_folder(folder: Path) -> None:
    """Bring a new name to the disk; not every system lets a folder be opened."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
