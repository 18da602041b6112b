"""The counts that a progress display shows, from a batch's events."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

import attrs

from kling_async._display.eta import EtaEstimator
from kling_async._display.moving_rate import MovingRate
from kling_async._field_docs import describe_fields
from kling_async.events import (
    Downloaded,
    Downloading,
    Event,
    Finished,
    PollFailed,
    Resumed,
    Retrying,
    Spent,
    StatusChanged,
    SubmitLost,
    SubmitReconciled,
    Submitted,
    Throttled,
)
from kling_async.jobs import Job, JobStatus
from kling_async.results import ResultState


@attrs.define(eq=False, kw_only=True)
class ProgressCounts:
    """The counts of a running batch; pass it as `on_event`. Another thread may read them at any time."""

    _is_own: ClassVar[bool] = True  # see `Notifier`
    total: int | None = None
    """How many items there are; None if that is not known."""
    saves: bool = False
    """Whether the batch saves its videos."""
    queued: int = attrs.field(init=False, default=0)
    running: int = attrs.field(init=False, default=0)
    succeeded: int = attrs.field(init=False, default=0)
    """Videos made, saved or not."""
    failed: int = attrs.field(init=False, default=0)
    """Items that were submitted, or may have been, and ended without a video."""
    not_submitted: int = attrs.field(init=False, default=0)
    """Items that ended without a submit, such as those above the spend cap; they cost nothing."""
    saved: int = attrs.field(init=False, default=0)
    submitted: int = attrs.field(init=False, default=0)
    """Jobs that the service accepted."""
    without_job: int = attrs.field(init=False, default=0)
    """Items that ended without a job."""
    saved_bytes: int = attrs.field(init=False, default=0)
    """The size of the saved videos."""
    saved_before: int = attrs.field(init=False, default=0)
    """Videos that an earlier run made and saved; the other counts include them."""
    spent_usd: Decimal | None = attrs.field(init=False, default=None)
    """US dollars so far, if prices are known; with a journal, the earlier runs are included."""
    bought_usd: Decimal | None = attrs.field(init=False, default=None)
    """US dollars for the submits of this run."""
    note: str | None = attrs.field(init=False, default=None)
    """The present trouble, in words; None if there is none."""
    _download_rate: MovingRate = attrs.field(init=False, factory=MovingRate)
    """Bytes per second, by the times of the events."""
    _eta: EtaEstimator = attrs.field(init=False, factory=EtaEstimator)
    _pending: dict[str, JobStatus | None] = attrs.field(init=False, factory=dict)
    """Jobs whose video is not saved yet, in the order of their submits; None for a job whose wait timed out, which may
    still run."""

    _jobs_saved_before: set[str] = attrs.field(init=False, factory=set)
    """Jobs of an earlier run whose video is saved, until their `Finished` comes."""
    _downloading: dict[str | None, int] = attrs.field(init=False, factory=dict)
    """Bytes so far of each video that is being downloaded."""
    _unanswered: set[int | None] = attrs.field(init=False, factory=set)

    @property
    def unanswered(self) -> int:
        """Items with a lost submit that is not reconciled yet."""
        return len(self._unanswered)

    @property
    def ended(self) -> int:
        """Items whose job has ended, and items that got no job."""
        return self.succeeded + self.failed + self.not_submitted

    @property
    def waiting(self) -> int:
        """Items that are not submitted yet; 0 if the number of all items is not known."""
        return max((self.total or 0) - self.ended - self.queued - self.running, 0)

    @property
    def pending_ids(self) -> tuple[str, ...]:
        """Jobs that may have a video which is not saved yet, in the order of their submits."""
        return tuple(self._pending)

    @property
    def in_flight_ids(self) -> tuple[str, ...]:
        """The pending jobs that may still run at the service; the others are made and have to be saved."""
        return tuple(name for name, status in self._pending.items() if status is not JobStatus.SUCCESS)

    @property
    def unsaved(self) -> int:
        """Videos that were made and are not saved; 0 if the batch saves none."""
        return self.succeeded - self.saved if self.saves else 0

    def bytes_per_second(self, *, now: float) -> float:
        """How many bytes of videos came each second, in the seconds before `now`, in Unix seconds."""
        return self._download_rate.at(now)

    def jobs_per_second(self, *, now: float) -> float:
        """How many jobs ended each second since the first submit; 0 before any has ended. `now` is in Unix seconds."""
        return self._eta.pace(now=now)

    def seconds_left(self, *, now: float) -> float | None:
        """How long the rest will take; None before any job has ended. `now` is in Unix seconds."""
        return self._eta.seconds_left(waiting=self.waiting, now=now)

    def follow(self, request_id: str) -> None:
        """Count a job that an earlier program submitted."""
        self.submitted += 1
        self._move(request_id, JobStatus.UNKNOWN)

    def __call__(self, event: Event) -> None:
        """Count one event."""
        self._eta(event)
        match event:
            case Submitted(job=job) | SubmitReconciled(job=job):
                self._unanswered.discard(event.index)
                self.submitted += 1
                self._move(job.request_id, job.status)
            case Resumed(job=Job() as job, path=path):
                self._resume(job, is_saved_before=path is not None)
            case SubmitLost() | Resumed():
                self._unanswered.add(event.index)
            case StatusChanged(request_id=request_id, status=JobStatus.FAILED | JobStatus.CANCELLED):
                # A job that failed because of a rate limit gets no `Finished`: its item is submitted again.
                self._forget(request_id)
            case StatusChanged(request_id=str(request_id), status=status):
                self._move(request_id, status)
            case Finished():
                self._finish(event)
            case Downloading(request_id=request_id, size_bytes=size_bytes):
                # Bytes from before the first event were downloaded at another time.
                before = self._downloading.get(request_id, size_bytes)
                self._downloading[request_id] = size_bytes
                self._download_rate.add(max(size_bytes - before, 0), now=event.at)
            case Downloaded(request_id=request_id, size_bytes=size_bytes):
                self.saved += 1
                self.saved_bytes += size_bytes
                before = self._downloading.pop(request_id, 0)
                self._download_rate.add(max(size_bytes - before, 0), now=event.at)
                self._forget(request_id)
            case Spent(cost_usd=cost_usd, total_usd=total_usd):
                self.bought_usd = (self.bought_usd or 0) + cost_usd
                self.spent_usd = total_usd
            case _:
                self.note = describe_trouble(event) or self.note
                return
        self.note = None

    def _resume(self, job: Job, *, is_saved_before: bool) -> None:
        self.submitted += 1
        if is_saved_before:
            self.saved_before += 1
            self.saved += 1
            self._jobs_saved_before.add(job.request_id)
        elif not job.is_final:
            self._move(job.request_id, job.status)

    def _finish(self, event: Finished) -> None:
        is_made = event.state is ResultState.SUCCEEDED
        self._unanswered.discard(event.index)
        self.succeeded += is_made
        is_unsent = event.state is ResultState.NOT_SUBMITTED
        self.not_submitted += is_unsent
        self.failed += not (is_made or is_unsent)
        self.without_job += event.request_id is None
        if event.request_id in self._jobs_saved_before:
            self._jobs_saved_before.remove(event.request_id)
            return
        if is_made and self.saves:
            self._download_rate.begin(event.at)
        may_be_saved = self.saves if is_made else event.state is ResultState.TIMED_OUT
        if may_be_saved and event.request_id is not None:
            self._move(event.request_id, JobStatus.SUCCESS if is_made else None)
        else:
            self._forget(event.request_id)

    def _move(self, request_id: str, status: JobStatus | None) -> None:
        self._count(self._pending.get(request_id), -1)
        self._pending[request_id] = status
        self._count(status, 1)

    def _forget(self, request_id: str | None) -> None:
        if request_id in self._pending:
            self._count(self._pending.pop(request_id), -1)

    def _count(self, status: JobStatus | None, change: int) -> None:
        if status is JobStatus.PROCESSING:
            self.running += change
        elif status is not None and status is not JobStatus.SUCCESS:
            self.queued += change


def describe_trouble(event: Event) -> str | None:
    """A sentence about an event that reports trouble; None for any other event."""
    match event:
        case Throttled(delay=delay, error=error):
            return f"{error.message.rstrip('.')}; no submit for {delay:.0f} s"
        case Retrying(delay=delay, error=error):
            return f"{error.message.rstrip('.')}; trying again in {delay:.1f} s"
        case PollFailed(delay=delay, error=error):
            return f"{error.message.rstrip('.')}; polling again in {delay:.1f} s"
    return None


describe_fields(__name__)
