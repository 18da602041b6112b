"""One job in flight, as the poller knows it."""

from __future__ import annotations

import asyncio

import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.emitter import Emitter
from kling_async._policy.pace import JobAge
from kling_async._policy.polling import PollingPolicy
from kling_async.errors import KlingError
from kling_async.jobs import Job, JobStatus


@attrs.define(eq=False, kw_only=True)
class TrackedJob:
    """One job in flight; kept small, for there may be a hundred thousand. Its last record is not kept."""

    request_id: str
    model: str | None
    index: int | None
    """Its place in a batch."""
    caller: ApiCaller
    """Sends its status calls."""
    emit: Emitter
    """Tells of its changes."""
    policy: PollingPolicy
    final: asyncio.Future[Job]
    """Set to the final record, or to the error that ends the wait."""
    age: JobAge
    since: float
    """When the wait began, by the engine's clock."""
    ends_at: float
    """When the wait times out: at its deadline, or because the status has not changed for too long."""
    status: JobStatus
    is_known: bool
    """Whether the service has ever shown this job to this key."""
    scan_number: int
    """The number of the last list scan that showed it, or before which it was added."""
    entry: int = 0
    """The number of its entry in the queue; 0 while it has none."""
    failed_polls: int = 0
    """Status calls that failed since the last one that did not."""
    last_error: KlingError | None = None
    """The error of the last one that failed."""
    asked_for_media: bool = False
    """Whether a success without a video was polled once more."""
    is_polled: bool = False
    """Whether a status call for it is due or under way."""
    is_spot_check: bool = False
    """Whether it is polled to test the list."""

    @property
    def is_over(self) -> bool:
        """Whether its wait has ended."""
        return self.final.done()

    @property
    def is_on_schedule(self) -> bool:
        """Whether the pace says when to poll it; not while there is a special reason to poll."""
        has_reason = self.asked_for_media or self.is_spot_check or self.failed_polls
        return self.is_known and not (has_reason or self.is_polled)

    @property
    def job(self) -> Job:
        """The job without its record."""
        return Job(request_id=self.request_id, model=self.model, status=self.status)
