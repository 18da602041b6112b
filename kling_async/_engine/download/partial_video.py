"""What a download fills: a video of which a part has come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from kling_async._policy.http_ranges import FileVersion
from kling_async._transport.base import Sink

BodyReader = Callable[[Sink], Awaitable[bool]]
"""Gives a body to a sink until the sink wants no more; returns whether the body is complete."""

Report = Callable[[int, int | None], None]
"""Gets the bytes saved so far, and the size of the whole video; None if the size is unknown."""


class PartialVideo(Protocol):
    """The bytes of a job's video that have come so far."""

    @property
    def request_id(self) -> str:
        """The job."""
        ...

    @property
    def size(self) -> int:
        """How many bytes have come."""
        ...

    @property
    def version(self) -> FileVersion | None:
        """The version of the video that the bytes are of; None while there are none."""
        ...

    @property
    def resume_offset(self) -> int:
        """The offset at which the download resumes; 0 if it cannot."""
        ...

    async def write(
        self, read_body: BodyReader, version: FileVersion, *, offset: int, max_bytes: int
    ) -> bool:
        """Write a body from byte `offset` on; False if the video would pass `max_bytes`."""
        ...

    async def truncate(self) -> None:
        """Remove all bytes: the download begins again."""
        ...

    def has_digest(self, digest: str) -> bool:
        """Whether the bytes have a digest, written as in `FileVersion.digest`; it blocks."""
        ...
