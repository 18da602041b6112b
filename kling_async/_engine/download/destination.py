"""Where videos go: one place for a batch, and one destination for each video."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import attrs

from kling_async._engine.api import Retries
from kling_async._engine.download.partial_file import AdaptiveWriter
from kling_async._engine.download.partial_video import PartialVideo, Report
from kling_async._journal.entry import Entry
from kling_async.jobs import Job
from kling_async.paths import ObjectUrl


@attrs.frozen
class SavedFile:
    """A whole video on the disk, or in an object store."""

    path: Path | ObjectUrl
    size_bytes: int
    sha256: str | None = None
    """In hex; None unless the caller wants it."""


class AlreadySavedError(Exception):
    """The destination has the whole video, which this download or another one of the job saved meanwhile."""

    def __init__(self, saved: SavedFile) -> None:
        super().__init__(saved)
        self.saved = saved


P = TypeVar("P", bound=PartialVideo)


class Destination(Protocol[P]):
    """Where the video of one job is saved."""

    @property
    def path(self) -> Path | ObjectUrl:
        """The place that the video gets, unless another video has it."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether to publish takes time on the network, and memory."""
        ...

    async def find(self, *, retries: Retries) -> SavedFile | None:
        """The whole video, if the destination knows without a download that it has it."""
        ...

    def open_partial(
        self, *, writer: AdaptiveWriter, report: Report | None
    ) -> AbstractAsyncContextManager[P]:
        """What the download fills; to fill it raises `AlreadySavedError` if the destination has the video by then."""
        ...

    async def publish(
        self,
        partial_video: P,
        *,
        digest: bool,
        retries: Retries,
        limiter: anyio.CapacityLimiter,
    ) -> SavedFile:
        """Give the whole video its name, under which no part of it was visible before.

        Args:
            partial_video: The whole video.
            digest: Whether to compute the SHA-256.
            retries: The tries of a destination that can fail and recover.
            limiter: Bounds the threads that wait for the disk.
        """
        ...


class Output(Protocol):
    """The place for the videos of a batch, which was tried before anything is paid for."""

    def destination_for(self, job: Job, *, prompt: str, index: int) -> Destination[Any]:
        """The destination of the video of an item."""
        ...

    async def find_saved(self, entry: Entry) -> Path | ObjectUrl | None:
        """The video that an earlier run saved there, if it is whole."""
        ...
