"""When each job is polled and each list scanned next."""

from __future__ import annotations

import math

import anyio

from kling_async._engine.clock import Clock
from kling_async._engine.poll.due_queue import DueQueue
from kling_async._engine.poll.list_scan import ModelList
from kling_async._engine.poll.tracked_job import TrackedJob
from kling_async._policy.pace import Pace

_MOVES_IN_A_ROW = 256
"""So many jobs can be queued again before other tasks run."""


class _PollQueue(DueQueue[TrackedJob | ModelList]):
    """Jobs and lists in the order of their next calls."""

    def number_of(self, one: TrackedJob | ModelList) -> int:
        return one.queue_entry

    def set_number(self, one: TrackedJob | ModelList, number: int) -> None:
        one.queue_entry = number


class Schedule:
    """The next calls of all jobs and lists, in the order in which they are due; the policies say when that is.

    Args:
        clock: The clock of the calls.
        pace: The knowledge of run times.
    """

    def __init__(self, clock: Clock, pace: Pace) -> None:
        self._clock = clock
        self._pace = pace
        self._lists: dict[str | None, ModelList] = {}
        self._queue = _PollQueue()
        self._wake = anyio.Event()

    async def next_due(self) -> TrackedJob | ModelList:
        """The next job to poll or list to scan, when its time has come."""
        moves = 0
        while True:
            now = self._clock.now()
            one = self._queue.take(now)
            if one is None:
                self._wake = anyio.Event()
                await self._clock.wait(self._wake, self._queue.first_at - now)
            elif self._due(one, now) <= now:
                return one
            else:
                self.put(one, now)  # it was seen meanwhile, or a scan will show it
                moves += 1
                if moves % _MOVES_IN_A_ROW == 0:
                    await self._clock.sleep(0)

    def _due(self, one: TrackedJob | ModelList, now: float) -> float:
        """When a job is polled, or a list scanned, next."""
        if isinstance(one, ModelList):
            return one.state.page_at
        if not one.is_on_schedule:
            return one.retry_at
        state = self.list_of(one.model).state
        until = state.next_shown_at(one.scan_number) if one.uses_lists else -math.inf
        return self._pace.next_poll(one.paced, one.policy, now=now, next_shown_at=until)

    def put(self, one: TrackedJob | ModelList, now: float) -> None:
        """Queue the next poll of a job, or the next scan of a list."""
        if self._queue.put(one, self._due(one, now)):
            self._wake.set()

    def drop(self, job: TrackedJob) -> None:
        """Poll a job no more."""
        self._queue.drop(job)

    def bring_forward(self, now: float) -> None:
        """What is known has changed so much that polls may be due earlier: find out for all jobs."""
        self._queue.bring_forward(now)
        self._wake.set()

    def list_of(self, model: str | None) -> ModelList:
        """The list of a model."""
        model_list = self._lists.get(model)
        if model_list is None:
            model_list = self._lists[model] = ModelList(model)
        return model_list

    def plan_scan(self, model_list: ModelList, now: float) -> None:
        """Queue the next scan of a list, if scans pay."""
        state, model, policy = model_list.state, model_list.model, model_list.policy
        if not model_list.is_worth_scanning:
            state.stop_scans()
            return
        state.plan_scan(now, interval=self._pace.scan_interval(model, policy, cost=state.cost, now=now))
        self.put(model_list, now)
