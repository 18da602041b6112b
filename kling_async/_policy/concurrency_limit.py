"""Decides how many jobs can be in flight at once: the caller's limit, or less while the service throttles."""

from __future__ import annotations

import attrs


@attrs.define
class ConcurrencyLimit:
    """Additive increase, multiplicative decrease, as in TCP, never above the caller's limit.

    One 429 halves the limit. Further 429s during the pause that follows do not: their submits were sent before the pause.
    As many accepted submits as the limit allows in flight let the limit grow by one.
    """

    maximum: int
    """The caller's `max_concurrency`."""
    in_flight: int = 0
    """How many slots are in use."""
    _size: float = attrs.field(init=False, default=0.0)
    """The current limit, with the fraction by which it has grown since it was last a whole number."""
    _halved_until: float = attrs.field(init=False, default=float("-inf"))

    def __attrs_post_init__(self) -> None:
        self._size = float(self.maximum)

    @property
    def current(self) -> int:
        """How many jobs can be in flight now, at least 1."""
        return int(self._size)

    @property
    def has_slot(self) -> bool:
        """Whether one more job can be in flight."""
        return self.in_flight < self.current

    def take_slot(self) -> None:
        """Count one more job in flight."""
        self.in_flight += 1

    def free_slot(self) -> None:
        """Count one job less in flight."""
        self.in_flight -= 1

    def grow(self) -> None:
        """Raise the limit a little, after an accepted submit."""
        if self._size < self.maximum:
            self._size = min(float(self.maximum), self._size + 1 / self._size)

    def shrink(self, *, now: float, pause: float) -> None:
        """Halve the limit after a throttled submit, once for each pause.

        If fewer jobs are in flight than the limit allows, half of the jobs in flight is the new limit: the service
        has never shown that it takes more.

        Args:
            now: Seconds of a monotonic clock.
            pause: Seconds in which further 429s do not halve the limit again.
        """
        if now >= self._halved_until:
            self._size = max(1.0, min(self._size, float(max(self.in_flight, 1))) / 2)
        self._halved_until = max(self._halved_until, now + pause)
