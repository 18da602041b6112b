"""What is remembered of one job in flight, and what a sweep of the list needs of the watcher."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Protocol

import attrs

from kling_async._policy.schedule import Track
from kling_async.errors import KlingError
from kling_async.jobs import Job, JobStatus


@attrs.define(eq=False, kw_only=True)
class TrackedJob:
    """What is remembered of one job in flight; kept small, for there may be a hundred thousand."""

    request_id: str
    model: str | None
    final: asyncio.Future[Job]
    """Set to the final record, or to the error that ends the wait."""
    index: int | None
    track: Track
    since: float
    """When the watch began, by the engine's clock."""
    ends_at: float
    """When the wait is over whatever comes: by its deadline, or because nothing has moved for too long."""
    status: JobStatus
    is_known: bool
    """Whether the service has ever shown this job to this key."""
    shown_in: int
    """The number of the last sweep that showed it, or before which it was added."""
    entry: int = 0
    """Which entry of the agenda is its own; 0 while it has none."""
    faults: int = 0
    """Status calls that failed since the last one that did not."""
    fault: KlingError | None = None
    """What the last of them that failed said."""
    asked_for_media: bool = False
    """Whether a success without a video was asked about once more."""
    is_audit: bool = False
    """Whether it is asked about to test the list."""
    is_over: bool = False
    """Whether its end was told."""

    @property
    def job(self) -> Job:
        """What is known of it without its record."""
        return Job(request_id=self.request_id, model=self.model, status=self.status)

    @property
    def is_on_schedule(self) -> bool:
        """Whether the schedule says when to ask; not while there is a special reason to ask."""
        return self.faults == 0 and self.is_known and not (self.asked_for_media or self.is_audit)


class Watch(Protocol):
    """The watcher as a sweep sees it."""

    @property
    def watching(self) -> dict[str, TrackedJob]:
        """Every job in flight, by its id."""
        ...

    @property
    def alive(self) -> Counter[str | None]:
        """How many of them each model has."""
        ...

    async def turn(self) -> None:
        """Wait for the rate to allow one more call."""
        ...

    def ask_now(self, watched: TrackedJob) -> None:
        """Ask after the job on its own, whatever the schedule says."""
        ...

    def seen(self, watched: TrackedJob, now: float) -> None:
        """The job was shown in the status that it had."""
        ...

    def learn(self, watched: TrackedJob, job: Job) -> None:
        """The service said something of the job."""
        ...
