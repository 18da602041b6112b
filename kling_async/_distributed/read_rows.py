"""Decides from where a call reads rows again, which can become visible in another order than that of their numbers."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

_VISIBLE_WITHIN = 30.0
"""Seconds in which a row can become visible after a row with a higher number was read."""


@attrs.define
class ReadRows:
    """The rows that have been read, of a table whose rows get rising numbers before they are committed."""

    floor: int = 0
    """Rows up to this number are not read again."""
    _read_at: dict[int, float] = attrs.field(init=False, factory=dict)

    @property
    def above(self) -> list[int]:
        """The numbers above the floor that have been read."""
        return list(self._read_at)

    def add(self, numbers: Iterable[int], *, now: float) -> None:
        """Note what has been read now; raise the floor to what was read so long ago that no row below it is missing."""
        old = [number for number, at in self._read_at.items() if now - at > _VISIBLE_WITHIN]
        self.floor = max(self.floor, *old) if old else self.floor
        self._read_at.update(dict.fromkeys(numbers, now))
        self._read_at = {number: at for number, at in self._read_at.items() if number > self.floor}
