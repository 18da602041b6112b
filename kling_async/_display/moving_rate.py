"""A rate per second in which recent amounts weigh more than old ones."""

from __future__ import annotations

import math

import attrs

_MEMORY = 5.0
"""Seconds after which an amount has about a third of its weight."""


@attrs.define(eq=False)
class MovingRate:
    """Amounts per second, from amounts and their times. All times must come from the same clock."""

    _began: float | None = attrs.field(init=False, default=None)
    _last: float = attrs.field(init=False, default=0.0)
    _weight: float = attrs.field(init=False, default=0.0)

    def begin(self, now: float) -> None:
        """Start measuring; calls after the first one do nothing."""
        if self._began is None:
            self._began = self._last = now

    def add(self, amount: float, *, now: float) -> None:
        """Add an amount."""
        self.begin(now)
        self._weight = self._weight * self._decay(now) + amount
        self._last = max(now, self._last)

    def at(self, now: float) -> float:
        """The amount per second at a moment; 0 before anything was measured."""
        if self._began is None or now <= self._began:
            return 0.0
        seen = 1.0 - math.exp(-(now - self._began) / _MEMORY)
        return self._weight * self._decay(now) / (_MEMORY * seen)

    def _decay(self, now: float) -> float:
        return math.exp(-max(now - self._last, 0.0) / _MEMORY)
