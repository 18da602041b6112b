"""How fast something comes in, of late: what came long ago counts for less and less."""

from __future__ import annotations

import math

import attrs

_MEMORY = 5.0
"""Seconds after which what came counts for about a third."""


@attrs.define(eq=False)
class MovingRate:
    """Amounts a second, from amounts and their times; times may come from any clock, if only from one."""

    _began: float | None = attrs.field(init=False, default=None)
    _last: float = attrs.field(init=False, default=0.0)
    _weight: float = attrs.field(init=False, default=0.0)

    def begin(self, now: float) -> None:
        """Something may come from now on; only the first time counts."""
        if self._began is None:
            self._began = self._last = now

    def add(self, amount: float, *, now: float) -> None:
        """So much has come."""
        self.begin(now)
        self._weight = self._weight * self._fading(now) + amount
        self._last = max(now, self._last)

    def at(self, now: float) -> float:
        """Amounts a second; 0 as long as nothing can be said."""
        if self._began is None or now <= self._began:
            return 0.0
        seen = 1.0 - math.exp(-(now - self._began) / _MEMORY)
        return self._weight * self._fading(now) / (_MEMORY * seen)

    def _fading(self, now: float) -> float:
        return math.exp(-max(now - self._last, 0.0) / _MEMORY)
