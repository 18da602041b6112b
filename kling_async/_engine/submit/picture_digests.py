"""The digests of local pictures: an item has the picture that its file holds when the item is read from the input."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import attrs

from kling_async._engine.submit.uploader import (
    local_pictures,
    open_picture,
    refuse_empty,
    translate_read_errors,
)
from kling_async._engine.threads import run_in_thread
from kling_async.requests import VideoRequest

_COARSEST_TIMES = 2.0
"""Seconds in which two changes of a file can have the same time. Source: the times of FAT count two seconds."""

NO_DIGESTS: Mapping[str, str] = MappingProxyType({})
"""The digests of a request without local pictures."""

FileState = tuple[int, ...]


@attrs.define(eq=False)
class PictureDigests:
    """Computes the digests of local pictures; a file that does not change is read once."""

    wall: Callable[[], float] = time.time
    _known: dict[str, tuple[FileState, str]] = attrs.field(init=False, factory=dict)

    async def read(self, request: VideoRequest) -> Mapping[str, str]:
        """The SHA-256, in hex, of each local picture of a request, by its path.

        Raises:
            InvalidRequestError: A picture cannot be read.
        """
        digests = {}
        for _, path in local_pictures(request):
            with translate_read_errors(path):
                digests[path] = await run_in_thread(partial(self._digest, path))
        return digests

    def _digest(self, path: str) -> str:
        known = self._known.get(path)
        if known is not None and known[0] == _state_of(os.stat(path)):  # noqa: PTH116 - any path that a file can have
            return known[1]
        read_at = self.wall()
        with open_picture(path) as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            refuse_empty(file.tell())
        if is_change_visible(status, after=read_at):
            self._known[path] = _state_of(status), digest
        return digest


def is_change_visible(status: os.stat_result, *, after: float) -> bool:
    """Whether each change after a wall time gives the file other times than it had then."""
    return max(status.st_mtime, status.st_ctime) < after - _COARSEST_TIMES


def _state_of(status: os.stat_result) -> FileState:
    """The values that change when a file is written or replaced."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
