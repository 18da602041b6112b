"""The jobs of the service, as values over time.

The statuses of a job and their times are fixed when the job is accepted. A later status is a look-up, so that jobs
need no timers, and a hundred thousand jobs cost nothing while they wait. Callers give the time in Unix seconds; random
numbers depend on the seed and the number of the job.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import accumulate
from random import Random
from typing import Any
from uuid import UUID

import attrs

from kling_async.emulator.settings import EmulatorSettings, Ending, JobScript


class Status(StrEnum):
    """The status of a job."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    PROCESSING = "processing"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({Status.SUCCESS, Status.FAILED, Status.CANCELLED})
"""Statuses that never change."""

LIFECYCLES: Mapping[Ending, tuple[Status, ...]] = {
    "success": (Status.QUEUED, Status.DISPATCHED, Status.PROCESSING, Status.SUCCESS),
    "failed": (Status.QUEUED, Status.DISPATCHED, Status.PROCESSING, Status.FAILED),
    "cancelled": (Status.QUEUED, Status.CANCELLED),
    "stuck_queued": (Status.QUEUED,),
    "stuck_processing": (Status.QUEUED, Status.DISPATCHED, Status.PROCESSING),
    "instant": (Status.SUCCESS,),
}
"""By ending, the statuses of a job in order; the reply to the POST has the first one."""

_REJECTED_LIFECYCLE: tuple[Status, ...] = (Status.QUEUED, Status.FAILED)

ERRORS: tuple[str | Mapping[str, Any], ...] = (
    {
        "code": "INVALID_INPUT",
        "message": "Generation rejected; please review the prompt and parameters then retry",
        "status": "INVALID_INPUT",
    },
    "Failed to download media",
    "OutputAudioSensitiveContentDetected.PolicyViolation",
)
"""Errors of failed jobs, in the two forms that the service uses: text and object."""

RATE_LIMITED = "Video generation failed: rate limit exceeded(RPM)"
"""The error of a job that failed because too many jobs were submitted."""


@attrs.frozen
class RefusedError(Exception):
    """The service refuses a call."""

    status: int
    """HTTP status of the reply."""
    error: str
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(kw_only=True)
class Job:
    """An accepted submit, with all its future statuses."""

    number: int
    """1 for the first accepted submit."""
    request_id: str
    model: str
    payload: Mapping[str, Any]
    organization_id: str
    statuses: tuple[Status, ...]
    status_times: tuple[float, ...]
    """When each of the statuses begins, in Unix seconds. The first is the time of the submit."""
    error: str | Mapping[str, Any] | None = None
    shows_at: float = -math.inf
    """When the list first has the job, in Unix seconds; infinite if never."""
    vanishes_at: float = math.inf
    """When the service forgets the job, in Unix seconds; infinite if never."""
    payload_echo: bool = True
    """False: `payload` is `{}` in the records of the job."""

    @property
    def accepted_at(self) -> float:
        """Unix seconds."""
        return self.status_times[0]

    @property
    def final_at(self) -> float:
        """Unix seconds; infinite for a stuck job."""
        return self.status_times[-1] if self.statuses[-1] in FINAL else math.inf

    def status_at(self, *, now: float) -> tuple[Status, float]:
        """The status at a time, and the time at which the status began."""
        index = max(bisect_right(self.status_times, now) - 1, 0)
        return self.statuses[index], self.status_times[index]


class ServiceQueue:
    """Accepts jobs and plans their statuses over a limited number of workers."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        self._jobs: list[Job] = []
        self._by_id: dict[str, Job] = {}
        self._by_model: dict[str, list[Job]] = {}
        self._submits = 0
        self._workers_free_at = [-math.inf] * (settings.workers or 0)
        self._ends: list[float] = []
        self._max_jobs_in_flight = 0

    @property
    def jobs(self) -> Sequence[Job]:
        """All accepted jobs, in the order of their submits."""
        return self._jobs

    @property
    def max_jobs_in_flight(self) -> int:
        """The most jobs that were in flight at the same time."""
        return self._max_jobs_in_flight

    def count_in_flight(self, *, now: float) -> int:
        """The number of jobs that are accepted and not final. Safe from another thread."""
        return sum(end > now for end in tuple(self._ends))

    def find(self, request_id: str) -> Job | None:
        """The job with the id, or None."""
        return self._by_id.get(request_id)

    def of_model(self, model: str | None) -> Sequence[Job]:
        """The jobs of a model in the order of their submits; None means the jobs of all models."""
        return self._jobs if model is None else self._by_model.get(model, [])

    def submit(
        self,
        model: str,
        payload: Mapping[str, Any],
        *,
        now: float,
        organization_id: str | None = None,
        rejection: str | None = None,
    ) -> Job:
        """Accept a job, or raise `RefusedError`.

        `rejection` is the error of an invalid payload: the service accepts such a job and fails it a moment later.
        """
        rejection = self._check_limits(now) or rejection
        self._submits = number = self._submits + 1
        rng = Random(f"{self._settings.seed}/{number}")
        uuid = UUID(int=rng.getrandbits(128), version=4)
        is_listed = rng.random() >= self._settings.response_format.unlisted_rate
        script = self._make_script(rng, number, payload)
        statuses, durations = self._plan_statuses(script, now=now, is_rejected=rejection is not None)
        delay = self._settings.response_format.list_delay if script.list_delay is None else script.list_delay
        job = Job(
            number=number,
            request_id=script.request_id or str(uuid),
            model=model,
            payload=payload,
            organization_id=organization_id or self._settings.organization_id,
            statuses=statuses,
            status_times=tuple(accumulate(durations[: len(statuses) - 1], initial=now)),
            error=(rejection or script.error) if statuses[-1] is Status.FAILED else None,
            shows_at=now + delay / self._settings.time_scale if is_listed else math.inf,
            vanishes_at=now + script.lifetime / self._settings.time_scale,
            payload_echo=script.payload_echo,
        )
        self._add(job)
        self._max_jobs_in_flight = max(self._max_jobs_in_flight, len(self._ends))
        return job

    def put(self, job: Job) -> None:
        """Add a job that was not submitted here, or replace the job with its id and model."""
        old = self._by_id.get(job.request_id)
        if old is None:
            self._add(job)
            return
        self._by_id[job.request_id] = job
        for jobs in (self._jobs, self._by_model[old.model]):
            jobs[next(place for place, other in enumerate(jobs) if other is old)] = job
        self._ends = [other.final_at for other in self._jobs if other.final_at > other.accepted_at]
        heapq.heapify(self._ends)

    def _add(self, job: Job) -> None:
        self._jobs.append(job)
        self._by_id[job.request_id] = job
        self._by_model.setdefault(job.model, []).append(job)
        if job.final_at > job.accepted_at:
            heapq.heappush(self._ends, job.final_at)

    def _check_limits(self, now: float) -> str | None:
        """The error of a job that is throttled by failing it, or None.

        Raises:
            RefusedError: the account has no credits, or too many jobs are in flight.
        """
        settings = self._settings
        if settings.credits is not None and self._submits >= settings.credits:
            raise RefusedError(402, "Insufficient credits. Please add more credits to your account.")
        self._forget_final(now)
        if settings.max_jobs_in_flight is None or len(self._ends) < settings.max_jobs_in_flight:
            return None
        if settings.throttle == "failed_job":
            return RATE_LIMITED
        headers = {} if settings.retry_after is None else {"Retry-After": f"{settings.retry_after:g}"}
        raise RefusedError(429, "Rate limit exceeded. Please try again later.", headers)

    def _forget_final(self, now: float) -> None:
        """Remove the ends of final jobs, so that the remaining ends are those of jobs in flight."""
        while self._ends and self._ends[0] <= now:
            heapq.heappop(self._ends)

    def _make_script(self, rng: Random, number: int, payload: Mapping[str, Any]) -> JobScript:
        """The script of a job, with random values in place of None.

        Every job draws the same random numbers in the same order, so that one setting does not change other values.
        """
        settings = self._settings
        ending = self._choose_ending(rng.random())
        error = rng.choice(ERRORS)
        queue_time = settings.queue_time.sample(rng)
        run_time = (settings.image_run_time if _has_image(payload) else settings.run_time).sample(rng)
        chosen = settings.script(number, payload) if settings.script else None
        chosen = chosen or JobScript(ending=ending)
        return attrs.evolve(
            chosen,
            queue_time=queue_time if chosen.queue_time is None else chosen.queue_time,
            run_time=run_time if chosen.run_time is None else chosen.run_time,
            error=error if chosen.error is None else chosen.error,
        )

    def _choose_ending(self, number: float) -> Ending:
        settings = self._settings
        shares: tuple[tuple[Ending, float], ...] = (
            ("instant", settings.instant_rate),
            ("failed", settings.failure_rate),
            ("stuck_queued", settings.stuck_rate / 2),
            ("stuck_processing", settings.stuck_rate / 2),
        )
        for ending, share in shares:
            number -= share
            if number < 0:
                return ending
        return "success"

    def _plan_statuses(
        self, script: JobScript, *, now: float, is_rejected: bool
    ) -> tuple[tuple[Status, ...], list[float]]:
        """The statuses of a job, and the real seconds for which it is queued, dispatched and processing.

        A stuck job uses no worker, because a few stuck jobs would otherwise stop the whole queue.
        """
        scale = self._settings.time_scale
        if is_rejected:
            return _REJECTED_LIFECYCLE, [self._settings.refusal_time / scale]
        assert script.queue_time is not None
        assert script.run_time is not None
        queued, dispatched, run = (
            seconds / scale for seconds in (script.queue_time, self._settings.dispatch_time, script.run_time)
        )
        if self._workers_free_at and script.ending in {"success", "failed"}:
            start = max(now + queued, heapq.heappop(self._workers_free_at))
            heapq.heappush(self._workers_free_at, start + dispatched + run)
            queued = start - now
        return LIFECYCLES[script.ending], [queued, dispatched, run]


def _has_image(payload: Mapping[str, Any]) -> bool:
    return any(payload.get(key) for key in ("image", "first_frame", "image_url", "image_list"))
