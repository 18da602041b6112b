"""How much longer a batch takes, estimated from the run times of its finished jobs."""

from __future__ import annotations

import attrs

from kling_async.events import Event, Finished, Resumed, StatusChanged, SubmitReconciled, Submitted
from kling_async.jobs import Job

_MIN_SHARE = 0.1
"""A batch whose jobs are all overdue is expected to take this share of a mean run time more."""


@attrs.define(eq=False)
class EtaEstimator:
    """Estimates the time left of a batch; pass it as `on_event`."""

    _started: float | None = attrs.field(init=False, default=None)
    _in_flight: dict[str, float] = attrs.field(init=False, factory=dict)
    """When each job that has not ended was submitted."""
    _max_in_flight: int = attrs.field(init=False, default=0)
    _sum_of_submits: float = attrs.field(init=False, default=0.0)
    """The sum of the submit times of the jobs in flight, so that their ages need no loop."""
    _ended: int = attrs.field(init=False, default=0)
    _sum_of_times: float = attrs.field(init=False, default=0.0)
    """The sum of the run times of finished jobs."""

    def __call__(self, event: Event) -> None:
        """Learn from one event."""
        match event:
            case Submitted(job=job) | SubmitReconciled(job=job):
                self._start(job.request_id, event.at, submitted=event.at)
            case Resumed(job=Job(is_final=False) as job):
                submitted = job.created_at.timestamp() if job.created_at else event.at
                self._start(job.request_id, event.at, submitted=submitted)
            case StatusChanged(request_id=str(request_id), status=status) if status.is_final:
                # A job that failed because of a rate limit gets no `Finished`: its item is submitted again.
                self._end(request_id, event.at)
            case Finished(request_id=str(request_id)):
                self._end(request_id, event.at)

    def _start(self, request_id: str, at: float, *, submitted: float) -> None:
        self._started = at if self._started is None else self._started
        self._in_flight[request_id] = submitted
        self._sum_of_submits += submitted
        self._max_in_flight = max(self._max_in_flight, len(self._in_flight))

    def _end(self, request_id: str, at: float) -> None:
        submitted = self._in_flight.pop(request_id, None)
        if submitted is not None:
            self._sum_of_submits -= submitted
            self._ended += 1
            self._sum_of_times += at - submitted

    def pace(self, *, now: float) -> float:
        """Finished jobs per second since the first submit; 0 before the first job finished.

        Args:
            now: The time, in Unix seconds.
        """
        if self._started is None or now <= self._started:
            return 0.0
        return self._ended / (now - self._started)

    def seconds_left(self, *, waiting: int, now: float) -> float | None:
        """Seconds until the last job ends; None before the first job finished.

        Args:
            waiting: How many items are not submitted yet.
            now: The time, in Unix seconds.
        """
        if not self._ended or self._started is None:
            return None
        in_flight = len(self._in_flight)
        if not in_flight and not waiting:
            return 0.0
        mean_time = max(self._sum_of_times / self._ended, 0.0)
        ages = in_flight * now - self._sum_of_submits
        by_work = (waiting * mean_time + max(in_flight * mean_time - ages, 0.0)) / self._max_in_flight
        by_rate = (waiting + in_flight) * max(now - self._started, 0.0) / self._ended
        # The first jobs to end are the quick ones, so the rate of ends is trusted only as more jobs end.
        trust = min(self._ended / self._max_in_flight, 1.0)
        minimum = mean_time if waiting else mean_time * _MIN_SHARE
        return max((1.0 - trust) * by_work + trust * by_rate, minimum)
