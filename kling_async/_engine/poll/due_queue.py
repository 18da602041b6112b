"""Jobs and lists in the order in which they are due: one heap for all of them."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What the queue can hold."""

    queue_entry: int
    """The number of its entry in the queue; 0 while it has none."""


Q = TypeVar("Q", bound=Queued)


class DueQueue(Generic[Q]):
    """Jobs and lists in the order of the times at which they are due; each has one entry at most."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Q]] = []
        self._numbers = itertools.count(1)
        self._dropped = 0

    def put(self, one: Q, due: float) -> bool:
        """Queue a job or a list, in place of its entry; whether it is now the first."""
        self.drop(one)
        one.queue_entry = next(self._numbers)
        heapq.heappush(self._heap, (due, one.queue_entry, one))
        return self._heap[0][2] is one

    def drop(self, one: Q) -> None:
        """Remove the entry of a job or a list."""
        if one.queue_entry:
            one.queue_entry = 0
            self._dropped += 1
            if 2 * self._dropped > len(self._heap):
                self._sort(self._valid())

    def take(self, now: float) -> Q | None:
        """Remove the first one if it is due."""
        heap = self._heap
        while heap and heap[0][1] != heap[0][2].queue_entry:
            heapq.heappop(heap)
            self._dropped -= 1
        if not heap or heap[0][0] > now:
            return None
        one = heapq.heappop(heap)[2]
        one.queue_entry = 0
        return one

    @property
    def first_at(self) -> float:
        """When the first one may be due."""
        return self._heap[0][0] if self._heap else math.inf

    def bring_forward(self, now: float) -> None:
        """Make all due now. The poller computes the due time of each again, and puts back those that are not due."""
        self._sort([(min(due, now), entry, one) for due, entry, one in self._valid()])

    def _valid(self) -> list[tuple[float, int, Q]]:
        return [one for one in self._heap if one[1] == one[2].queue_entry]

    def _sort(self, entries: list[tuple[float, int, Q]]) -> None:
        heapq.heapify(entries)
        self._heap, self._dropped = entries, 0
