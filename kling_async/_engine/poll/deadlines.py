"""The deadlines of all waits, with one timer: a timer of the event loop for each would be a tenth of a job's memory."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math

from kling_async._engine.clock import Clock
from kling_async._engine.poll.tracked_job import TrackedJob


class Deadlines:
    """Ends the wait of each job at its deadline."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, TrackedJob]] = []
        self._numbers = itertools.count()
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None

    def move(self, job: TrackedJob) -> None:
        """Set when the wait of a job times out, at its begin or after a change of its status."""
        self.drop(job)
        wait, stall = job.policy.wait_timeout, job.policy.stall_timeout
        job.ends_at = min(
            math.inf if wait is None else job.waits_since + wait,
            math.inf if stall is None else self._clock.now() + stall,
        )
        if job.ends_at < math.inf:
            heapq.heappush(self._heap, (job.ends_at, next(self._numbers), job))
            if self._heap[0][2] is job:
                self._set_timer()

    def drop(self, job: TrackedJob) -> None:
        """Forget the deadline of a job."""
        if job.ends_at < math.inf:
            job.ends_at = math.inf
            self._dropped += 1
            if 2 * self._dropped > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[0] == entry[2].ends_at]
                heapq.heapify(self._heap)
                self._dropped = 0
                self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(self._heap[0][0], self._end_waits) if self._heap else None

    def _end_waits(self) -> None:
        """End the waits whose deadline has come."""
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            ends_at, _, job = heapq.heappop(self._heap)
            if ends_at == job.ends_at:
                job.time_out()
                job.ends_at = math.inf
            else:
                self._dropped -= 1
        self._set_timer()
