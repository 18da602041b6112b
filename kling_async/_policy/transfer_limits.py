"""Decides when the bytes of a video come too slowly, and when bytes that came are worth new retries."""

from __future__ import annotations

import math

import attrs

MIN_BYTES_PER_SECOND = 1024
"""The floor for one download. A line of 50 kB/s that eight downloads share brings six times as much to each."""
_WORTH_BYTES = 1024 * 1024
_WORTH_SHARE = 20


@attrs.define
class BodyRate:
    """The rate of one body, measured in windows."""

    window: float
    """Seconds of waiting for bytes after which the rate is compared with the floor."""
    left: float = math.inf
    """Seconds that the client may still wait for the whole body."""
    size_bytes: int = attrs.field(default=0, init=False)
    """The bytes of the last window that ended, or of the one that runs."""
    waited: float = attrs.field(default=0.0, init=False)
    """The seconds of that window."""
    is_too_slow: bool = attrs.field(default=False, init=False)
    """Whether a window ended with fewer bytes than the floor allows."""

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self.left <= 0

    def add(self, size_bytes: int, *, waited: float) -> None:
        """Count a piece of the body, and the seconds that the client waited for it; time to save it does not count."""
        if self.waited >= self.window:
            self.size_bytes, self.waited = 0, 0.0
        self.size_bytes += size_bytes
        self.waited += waited
        self.left -= waited
        if self.waited >= self.window:
            self.is_too_slow = self.size_bytes < MIN_BYTES_PER_SECOND * self.waited


def is_progress(gained_bytes: int, *, size_bytes: int | None) -> bool:
    """Whether so many new bytes of a video allow all retries again: a MiB, or a twentieth of the video if that is less.

    A single byte does not: a storage that cuts each answer after one byte would never be given up. The bytes of a video
    of unknown size do not either: its next try begins again.
    """
    return size_bytes is not None and gained_bytes >= max(1, min(_WORTH_BYTES, size_bytes // _WORTH_SHARE))
