"""How many jobs may be in flight at once: the caller's limit, less while the service refuses for lack of room."""

from __future__ import annotations

import attrs


@attrs.define
class ConcurrencyLimit:
    """Additive increase, multiplicative decrease, as TCP does it, never above the caller's own limit.

    One 429 halves the limit; further 429s of submits that were sent before the pause count as the same sign. It grows
    by one for each accepted submit of a whole limit's worth.
    """

    limit: int
    """The caller's `max_concurrency`."""
    in_flight: int = 0
    """How many slots are taken."""
    _size: float = attrs.field(init=False, default=0.0)
    """How many jobs may be in flight now; a fraction is growth on its way."""
    _same_sign_until: float = attrs.field(init=False, default=float("-inf"))

    def __attrs_post_init__(self) -> None:
        self._size = float(self.limit)

    @property
    def current(self) -> int:
        """How many jobs may be in flight now, at least 1."""
        return int(self._size)

    @property
    def has_slot(self) -> bool:
        """Whether one more job may be in flight."""
        return self.in_flight < self.current

    def grow(self) -> None:
        """A submit was accepted: grow a little."""
        if self._size < self.limit:
            self._size = min(float(self.limit), self._size + 1 / self._size)

    def shrink(self, *, now: float, pause: float) -> None:
        """A submit was throttled: halve the limit, once for each pause.

        A limit that is wider than what is in flight is no evidence of room, so half of what is in flight is kept.

        Args:
            now: Seconds of a monotonic clock.
            pause: Seconds for which further 429s are the same sign.
        """
        if now >= self._same_sign_until:
            self._size = max(1.0, min(self._size, float(max(self.in_flight, 1))) / 2)
        self._same_sign_until = max(self._same_sign_until, now + pause)
