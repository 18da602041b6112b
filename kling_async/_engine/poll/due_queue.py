"""Jobs in the order in which something is due for them: one heap for all jobs in flight."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from kling_async._engine.poll.tracked_job import TrackedJob

_SPARE = 64
"""Entries of the heap that may be out of date, beside one for each job."""


class DueQueue:
    """Jobs in the order of the times at which they are polled or time out; each has one entry at most."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TrackedJob]] = []
        self._entries = 0
        self._size = 0

    def put(self, tracked: TrackedJob, due: float) -> bool:
        """Queue a job, at its deadline at the latest, in place of its entry; whether it is now the first."""
        self._size += not tracked.queue_entry
        self._entries = tracked.queue_entry = self._entries + 1
        if len(self._heap) > 2 * self._size + _SPARE:
            # Each list scan queues every job again; the entries before would stay until they are due.
            self._heap = self._valid()
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (min(due, tracked.ends_at), self._entries, tracked))
        return self._heap[0][2] is tracked

    def drop(self, tracked: TrackedJob) -> None:
        """Remove the entry of a job."""
        self._size -= tracked.queue_entry > 0
        tracked.queue_entry = 0

    def take(self, *, now: float, slack: float) -> TrackedJob | None:
        """Remove the first job if it is due, or is due within the slack; a deadline is never early."""
        heap = self._heap
        while heap and heap[0][1] != heap[0][2].queue_entry:
            heapq.heappop(heap)
        if not heap:
            return None
        due, _, tracked = heap[0]
        if due > now and (due > now + slack or due >= tracked.ends_at):
            return None
        heapq.heappop(heap)
        self.drop(tracked)
        return tracked

    @property
    def first_at(self) -> float:
        """When the first job may be due."""
        return self._heap[0][0] if self._heap else math.inf

    def reschedule(self, due: Callable[[TrackedJob], float | None]) -> None:
        """Queue all jobs for the times that are given; None leaves a job where it is."""
        heap = []
        for old, entry, tracked in self._valid():
            new = due(tracked)
            heap.append((old if new is None else min(new, tracked.ends_at), entry, tracked))
        heapq.heapify(heap)
        self._heap = heap

    def _valid(self) -> list[tuple[float, int, TrackedJob]]:
        return [entry for entry in self._heap if entry[1] == entry[2].queue_entry]
