"""Which jobs have an owner already, remembered for as long as a lost reply could be taken for one of them."""

from __future__ import annotations

import math
from collections import deque

import attrs

_PARTS = 8


@attrs.define
class Claims:
    """The ids of the jobs that were accepted lately, in a few buckets that are forgotten whole."""

    span: float
    """Seconds for which an id is remembered at least."""
    _buckets: deque[tuple[float, set[str]]] = attrs.field(init=False, factory=deque)
    _ends: float = attrs.field(init=False, default=-math.inf)

    def add(self, request_id: str, *, now: float, keep: bool) -> bool:
        """Remember an id; False if it was remembered already. Old ones are forgotten unless they are to be kept."""
        for _, ids in self._buckets:
            if request_id in ids:
                return False
        if now >= self._ends:
            while self._buckets and not keep and self._buckets[0][0] + self.span < now:
                self._buckets.popleft()
            self._ends = now + self.span / _PARTS
            self._buckets.append((self._ends, set()))
        self._buckets[-1][1].add(request_id)
        return True

    def all(self) -> set[str]:
        """Every id that is remembered."""
        return {request_id for _, ids in self._buckets for request_id in ids}
