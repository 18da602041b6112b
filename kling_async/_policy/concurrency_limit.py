"""How many jobs may be alive at once: what the caller allows, less while the service is short of room."""

from __future__ import annotations

import attrs


@attrs.define
class ConcurrencyLimit:
    """Additive increase, multiplicative decrease, as TCP does it, never above the caller's own bound.

    One refusal halves the window; refusals of submits sent before that count as the same sign. Every full
    window of accepted submits lets it grow by one.
    """

    limit: int
    """The caller's `max_concurrency`."""
    size: float = 0.0
    """How many may be alive now; a fraction is growth on its way."""
    _sign_until: float = float("-inf")

    def __attrs_post_init__(self) -> None:
        self.size = float(self.limit)

    @property
    def room(self) -> int:
        """How many jobs may be alive now, at least 1."""
        return int(self.size)

    def accepted(self) -> None:
        """A submit was accepted: grow a little."""
        if self.size < self.limit:
            self.size = min(float(self.limit), self.size + 1 / self.size)

    def throttled(self, *, now: float, pause: float, alive: int) -> None:
        """The service was short of room: halve, once for each pause.

        Args:
            now: Seconds of a monotonic clock.
            pause: Seconds for which further refusals are the same sign.
            alive: How many jobs are alive; a window wider than that is no evidence of room.
        """
        if now >= self._sign_until:
            self.size = max(1.0, min(self.size, float(max(alive, 1))) / 2)
        self._sign_until = max(self._sign_until, now + pause)
