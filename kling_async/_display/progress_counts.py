"""What a batch's events add up to, for whoever draws it. Knows no terminal."""

from __future__ import annotations

from decimal import Decimal

import attrs

from kling_async._display.eta import EtaEstimator
from kling_async._display.moving_rate import MovingRate
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
    SubmitAmbiguous,
    SubmitReconciled,
    Submitted,
    Throttled,
)
from kling_async.jobs import Job, JobStatus
from kling_async.results import ResultState


@attrs.define(eq=False, kw_only=True)
class ProgressCounts:
    """Counts of a batch under way; pass it as `on_event`. A thread that draws may read it at any time."""

    total: int | None = None
    """How many items there are; None where nobody knows yet."""
    saves: bool = False
    """Whether a finished video has yet to be saved."""
    queued: int = attrs.field(init=False, default=0)
    running: int = attrs.field(init=False, default=0)
    succeeded: int = attrs.field(init=False, default=0)
    """Videos made, saved or not."""
    failed: int = attrs.field(init=False, default=0)
    """Items that ended without a video."""
    saved: int = attrs.field(init=False, default=0)
    submitted: int = attrs.field(init=False, default=0)
    """Jobs that the service took."""
    refused: int = attrs.field(init=False, default=0)
    """Items that ended without a job."""
    saved_bytes: int = attrs.field(init=False, default=0)
    """The size of the videos that were saved."""
    before: int = attrs.field(init=False, default=0)
    """Videos that an earlier run made and saved; they are among the others' counts too."""
    spent_usd: Decimal | None = attrs.field(init=False, default=None)
    """US dollars so far, where prices are known; with a journal, those of its earlier runs too."""
    bought_usd: Decimal | None = attrs.field(init=False, default=None)
    """US dollars for what was submitted now."""
    note: str | None = attrs.field(init=False, default=None)
    """What is in the way just now."""
    _download_rate: MovingRate = attrs.field(init=False, factory=MovingRate)
    """Bytes a second, by the time of the events."""
    _eta: EtaEstimator = attrs.field(init=False, factory=EtaEstimator)
    _open: dict[str, JobStatus | None] = attrs.field(init=False, factory=dict)
    """Jobs whose video is not saved yet, in the order of their submits; None for one that is not asked after any more,
    though it may go on."""

    _here: set[str] = attrs.field(init=False, factory=set)
    """Jobs of an earlier run whose video is here, until they are told as finished."""
    _fetched: dict[str | None, int] = attrs.field(init=False, factory=dict)
    """How much there is of the videos that are being fetched."""
    _unanswered: set[int | None] = attrs.field(init=False, factory=set)

    @property
    def unanswered(self) -> int:
        """Items whose submit is being looked for at the service, which may have taken it."""
        return len(self._unanswered)

    @property
    def ended(self) -> int:
        """Items that the service has no more work with."""
        return self.succeeded + self.failed

    @property
    def waiting(self) -> int:
        """Items that are not submitted yet; 0 where nobody knows how many there are."""
        return max((self.total or 0) - self.ended - self.queued - self.running, 0)

    @property
    def open_ids(self) -> tuple[str, ...]:
        """Jobs that may still give a video which is not saved yet, in the order of their submits."""
        return tuple(self._open)

    @property
    def running_ids(self) -> tuple[str, ...]:
        """Those of them that may go on at the service; the others are made, and have only to be saved."""
        return tuple(name for name, status in self._open.items() if status is not JobStatus.SUCCESS)

    @property
    def unsaved(self) -> int:
        """Videos that were made and have not been saved; 0 where none is to be."""
        return self.succeeded - self.saved if self.saves else 0

    def bytes_per_second(self, *, now: float) -> float:
        """How fast videos were saved in the last seconds before `now`, in Unix seconds."""
        return self._download_rate.at(now)

    def jobs_per_second(self, *, now: float) -> float:
        """How many jobs ended each second since the first submit; 0 before any has ended. `now` is in Unix seconds."""
        return self._eta.pace(now=now)

    def seconds_left(self, *, now: float) -> float | None:
        """How long the rest will take; None before any job has ended. `now` is in Unix seconds."""
        return self._eta.seconds_left(waiting=self.waiting, now=now)

    def follow(self, request_id: str) -> None:
        """Count a job that was submitted earlier."""
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
                self._resume(job, is_here=path is not None)
            case SubmitAmbiguous() | Resumed():
                self._unanswered.add(event.index)
            case StatusChanged(request_id=request_id, status=JobStatus.FAILED | JobStatus.CANCELLED):
                # No `Finished` follows where it failed for a rate limit: its item gets another job.
                self._forget(request_id)
            case StatusChanged(request_id=str(request_id), status=status):
                self._move(request_id, status)
            case Finished():
                self._finish(event)
            case Downloading(request_id=request_id, size_bytes=size_bytes):
                # What was here before the first of them came at another time.
                before = self._fetched.get(request_id, size_bytes)
                self._fetched[request_id] = size_bytes
                self._download_rate.add(max(size_bytes - before, 0), now=event.at)
            case Downloaded(request_id=request_id, size_bytes=size_bytes):
                self.saved += 1
                self.saved_bytes += size_bytes
                before = self._fetched.pop(request_id, 0)
                self._download_rate.add(max(size_bytes - before, 0), now=event.at)
                self._forget(request_id)
            case Spent(cost_usd=cost_usd, total_usd=total_usd):
                self.bought_usd = (self.bought_usd or 0) + cost_usd
                self.spent_usd = total_usd
            case _:
                self.note = describe_trouble(event) or self.note
                return
        self.note = None

    def _resume(self, job: Job, *, is_here: bool) -> None:
        self.submitted += 1
        if is_here:
            self.before += 1
            self.saved += 1
            self._here.add(job.request_id)
        elif not job.is_final:
            self._move(job.request_id, job.status)

    def _finish(self, event: Finished) -> None:
        is_made = event.state is ResultState.SUCCEEDED
        self._unanswered.discard(event.index)
        self.succeeded += is_made
        self.failed += not is_made
        self.refused += event.request_id is None
        if event.request_id in self._here:
            self._here.remove(event.request_id)
            return
        if is_made and self.saves:
            self._download_rate.begin(event.at)
        may_be_fetched = self.saves if is_made else event.state is ResultState.TIMED_OUT
        if may_be_fetched and event.request_id is not None:
            self._move(event.request_id, JobStatus.SUCCESS if is_made else None)
        else:
            self._forget(event.request_id)

    def _move(self, request_id: str, status: JobStatus | None) -> None:
        self._count(self._open.get(request_id), -1)
        self._open[request_id] = status
        self._count(status, 1)

    def _forget(self, request_id: str | None) -> None:
        if request_id in self._open:
            self._count(self._open.pop(request_id), -1)

    def _count(self, status: JobStatus | None, change: int) -> None:
        if status is JobStatus.PROCESSING:
            self.running += change
        elif status is not None and status is not JobStatus.SUCCESS:
            self.queued += change


def describe_trouble(event: Event) -> str | None:
    """A sentence for an event that tells of trouble; None for any other."""
    match event:
        case Throttled(delay=delay):
            return f"the service asks for patience: no submit for {delay:.0f} s"
        case Retrying(delay=delay, error=error):
            return f"{error.message.rstrip('.')}; trying again in {delay:.1f} s"
        case PollFailed(delay=delay, error=error):
            return f"{error.message.rstrip('.')}; asking again in {delay:.1f} s"
    return None
