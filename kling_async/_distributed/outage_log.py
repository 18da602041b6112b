"""Decides which lines the log gets while a database cannot be reached."""

from __future__ import annotations

import attrs

_INTERVAL = 60.0
"""Seconds between two lines about the same outage."""


@attrs.define
class OutageLog:
    """The lines about one database: one when it goes away, at most one a minute, and one when it is back."""

    _said_at: float | None = None
    """When the last line was written; None if none was since the database was back."""
    _is_out: bool = False

    def is_due(self, *, is_outage: bool, now: float) -> bool:
        """Whether an error of the database is to be told now.

        Args:
            is_outage: Whether the database could not be reached; if not, it refused, and is never back.
            now: The time, by any clock that does not go back.
        """
        self._is_out = self._is_out or is_outage
        if self._said_at is not None and now - self._said_at < _INTERVAL:
            return False
        self._said_at = now
        return True

    def end(self) -> bool:
        """Whether an outage is over, which is to be told; call this when the database has answered."""
        was_out, self._is_out = self._is_out, False
        if was_out:
            self._said_at = None
        return was_out
