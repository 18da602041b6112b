"""How long a batch will still take, from what its jobs took so far."""

from __future__ import annotations

import attrs

from kling_async.events import Event, Finished, Resumed, StatusChanged, SubmitReconciled, Submitted
from kling_async.jobs import Job

_LEAST_SHARE = 0.1
"""A batch whose jobs are overdue will still take this share of a usual job."""


@attrs.define(eq=False)
class EtaEstimator:
    """Hears a batch's events and learns how long its jobs take, and how many are alive at once."""

    _began: float | None = attrs.field(init=False, default=None)
    _alive: dict[str, float] = attrs.field(init=False, factory=dict)
    """When each job that has not ended was submitted."""
    _most_alive: int = attrs.field(init=False, default=0)
    _sum_of_submits: float = attrs.field(init=False, default=0.0)
    """Of the moments of those that are alive; their ages need no second look at each."""
    _ended: int = attrs.field(init=False, default=0)
    _sum_of_times: float = attrs.field(init=False, default=0.0)
    """Of those that have ended."""

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Submitted(job=job) | SubmitReconciled(job=job):
                self._begin(job.request_id, event.at, submitted=event.at)
            case Resumed(job=Job(is_final=False) as job):
                submitted = job.created_at.timestamp() if job.created_at else event.at
                self._begin(job.request_id, event.at, submitted=submitted)
            case StatusChanged(request_id=str(request_id), status=status) if status.is_final:
                # Of a job that failed for a rate limit there is no more to hear: its item gets another one.
                self._end(request_id, event.at)
            case Finished(request_id=str(request_id)):
                self._end(request_id, event.at)

    def _begin(self, request_id: str, at: float, *, submitted: float) -> None:
        self._began = at if self._began is None else self._began
        self._alive[request_id] = submitted
        self._sum_of_submits += submitted
        self._most_alive = max(self._most_alive, len(self._alive))

    def _end(self, request_id: str, at: float) -> None:
        submitted = self._alive.pop(request_id, None)
        if submitted is not None:
            self._sum_of_submits -= submitted
            self._ended += 1
            self._sum_of_times += at - submitted

    def pace(self, *, now: float) -> float:
        """Jobs that ended for each second of this run; 0 as long as none has.

        Args:
            now: The time, in Unix seconds.
        """
        if self._began is None or now <= self._began:
            return 0.0
        return self._ended / (now - self._began)

    def seconds_left(self, *, waiting: int, now: float) -> float | None:
        """Until the last job ends; None as long as none has.

        Args:
            waiting: Items that are not submitted yet.
            now: The time, in Unix seconds.
        """
        if not self._ended or self._began is None:
            return None
        alive = len(self._alive)
        if not alive and not waiting:
            return 0.0
        usual = max(self._sum_of_times / self._ended, 0.0)
        ages = alive * now - self._sum_of_submits
        by_work = (waiting * usual + max(alive * usual - ages, 0.0)) / self._most_alive
        by_rate = (waiting + alive) * max(now - self._began, 0.0) / self._ended
        # Those that end first are the quick ones, and the first of all say nothing of the pace: believe it in time.
        belief = min(self._ended / self._most_alive, 1.0)
        least = usual if waiting else usual * _LEAST_SHARE
        return max((1.0 - belief) * by_work + belief * by_rate, least)
