"""The deadlines of all waits, with one timer: a timer of the event loop for each would be a tenth of a job's memory."""

from __future__ import annotations

import asyncio
import math

from kling_async._engine.clock import Clock
from kling_async._engine.poll.due_queue import DueQueue
from kling_async._engine.poll.tracked_job import TrackedJob


class _DeadlineQueue(DueQueue[TrackedJob]):
    """Jobs in the order of their deadlines."""

    def number_of(self, one: TrackedJob) -> int:
        return one.deadline_entry

    def set_number(self, one: TrackedJob, number: int) -> None:
        one.deadline_entry = number


class Deadlines:
    """Ends the wait of each job at its deadline."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue = _DeadlineQueue()
        self._timer: asyncio.TimerHandle | None = None

    def move(self, job: TrackedJob) -> None:
        """Set when the wait of a job times out, at its begin or after a change of its status."""
        wait, stall = job.policy.wait_timeout, job.policy.stall_timeout
        job.ends_at = min(
            math.inf if wait is None else job.waits_since + wait,
            math.inf if stall is None else self._clock.now() + stall,
        )
        if job.ends_at < math.inf and self._queue.put(job, job.ends_at):
            self._set_timer()

    def drop(self, job: TrackedJob) -> None:
        """Forget the deadline of a job."""
        self._queue.drop(job)
        if self._queue.first_at == math.inf:
            self._set_timer()  # none: an idle client has no timer

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        ends_at = self._queue.first_at
        self._timer = self._clock.call_at(ends_at, self._end_waits) if ends_at < math.inf else None

    def _end_waits(self) -> None:
        """End the waits whose deadline has come."""
        now = self._clock.now()
        while (job := self._queue.take(now)) is not None:
            job.time_out()
        self._set_timer()
