"""What is due when: one heap for all jobs in flight."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from kling_async._engine.poll.tracked_job import TrackedJob

_SPARE = 64
"""Entries of the heap that may be out of date, beside one for each job."""


class DueQueue:
    """Jobs in the order of the moments at which something is to be done about them; each has one at most."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TrackedJob]] = []
        self._entries = 0
        self._planned = 0

    def put(self, watched: TrackedJob, due: float) -> bool:
        """Plan a job, at its deadline at the latest, instead of what was planned for it; whether it is now the first."""
        self._planned += not watched.entry
        self._entries = watched.entry = self._entries + 1
        if len(self._heap) > 2 * self._planned + _SPARE:
            # Each sweep plans every job anew; what it planned before would stay until its time has come.
            self._heap = self._valid()
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (min(due, watched.ends_at), self._entries, watched))
        return self._heap[0][2] is watched

    def drop(self, watched: TrackedJob) -> None:
        """Plan nothing for a job any more."""
        self._planned -= watched.entry > 0
        watched.entry = 0

    def take(self, *, now: float, slack: float) -> TrackedJob | None:
        """The first job if its moment has come, or comes within the slack; a deadline is waited for."""
        heap = self._heap
        while heap and heap[0][1] != heap[0][2].entry:
            heapq.heappop(heap)
        if not heap:
            return None
        due, _, watched = heap[0]
        if due > now and (due > now + slack or due >= watched.ends_at):
            return None
        heapq.heappop(heap)
        self.drop(watched)
        return watched

    @property
    def first_at(self) -> float:
        """The first moment at which something may be due."""
        return self._heap[0][0] if self._heap else math.inf

    def replan(self, due_of: Callable[[TrackedJob], float | None]) -> None:
        """Plan all jobs anew for the moments that are given; None leaves one as it is."""
        heap = []
        for due, entry, watched in self._valid():
            anew = due_of(watched)
            heap.append((due if anew is None else min(anew, watched.ends_at), entry, watched))
        heapq.heapify(heap)
        self._heap = heap

    def _valid(self) -> list[tuple[float, int, TrackedJob]]:
        return [entry for entry in self._heap if entry[1] == entry[2].entry]
