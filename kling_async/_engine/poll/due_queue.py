"""A heap of what is due at some time: the next calls of all jobs and lists, or the deadlines of all waits."""

from __future__ import annotations

import heapq
import itertools
import math
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

Q = TypeVar("Q")


class DueQueue(ABC, Generic[Q]):
    """Jobs and lists in the order of the times at which they are due; each has one entry at most.

    A job or list keeps the number of its entry itself, which costs less than a table of them. A subclass says where.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Q]] = []
        self._numbers = itertools.count(1)
        self._dropped = 0

    @abstractmethod
    def number_of(self, one: Q) -> int:
        """The number of the entry of a job or list; 0 while it has none."""

    @abstractmethod
    def set_number(self, one: Q, number: int) -> None:
        """Keep the number of the entry of a job or list."""

    def put(self, one: Q, due: float) -> bool:
        """Queue a job or a list, in place of its entry; whether it is now the first."""
        self.drop(one)
        number = next(self._numbers)
        self.set_number(one, number)
        heapq.heappush(self._heap, (due, number, one))
        return self._heap[0][2] is one

    def drop(self, one: Q) -> None:
        """Remove the entry of a job or a list."""
        if self.number_of(one):
            self.set_number(one, 0)
            self._dropped += 1
            if 2 * self._dropped > len(self._heap):
                self._sort(self._valid())

    def take(self, now: float) -> Q | None:
        """Remove the first one if it is due."""
        heap = self._heap
        while heap and heap[0][1] != self.number_of(heap[0][2]):
            heapq.heappop(heap)
            self._dropped -= 1
        if not heap or heap[0][0] > now:
            return None
        one = heapq.heappop(heap)[2]
        self.set_number(one, 0)
        return one

    @property
    def first_at(self) -> float:
        """When the first one may be due."""
        return self._heap[0][0] if self._heap else math.inf

    def bring_forward(self, now: float) -> None:
        """Make all due now. `Schedule` computes the due time of each again, and puts back those that are not due."""
        self._sort([(min(due, now), number, one) for due, number, one in self._valid()])

    def _valid(self) -> list[tuple[float, int, Q]]:
        return [entry for entry in self._heap if entry[1] == self.number_of(entry[2])]

    def _sort(self, entries: list[tuple[float, int, Q]]) -> None:
        heapq.heapify(entries)
        self._heap, self._dropped = entries, 0
