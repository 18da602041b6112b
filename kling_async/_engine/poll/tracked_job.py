"""One job in flight, as the poller knows it."""

from __future__ import annotations

import asyncio
import math

import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.emitter import Emitter
from kling_async._policy.pace import PacedJob
from kling_async._policy.polling import PollingPolicy
from kling_async.errors import KlingError, WaitTimeoutError
from kling_async.jobs import Job, JobStatus


@attrs.define(eq=False, kw_only=True)
class TrackedJob:
    """One job in flight; kept small, for there may be a hundred thousand. Its last record is not kept."""

    request_id: str
    model: str | None
    index: int | None
    """Its place in a batch."""
    api: ApiCaller
    """Sends its status calls."""
    emit: Emitter
    """Tells of its changes."""
    policy: PollingPolicy
    final: asyncio.Future[Job]
    """Set to the final record, or to the error that ends the wait."""
    paced: PacedJob
    waits_since: float
    """When the wait began, by the engine's clock."""
    status: JobStatus
    is_known: bool
    """Whether the service has ever shown this job to this key."""
    scan_number: int = 0
    """The number of the last list scan that showed the job. While none has: that of the scan before the job was added."""
    ends_at: float = math.inf
    """When the wait times out: at its deadline, or because the status has not changed for too long."""
    queue_entry: int = 0
    """The number of its entry in the queue; 0 while it has none."""
    deadline_entry: int = 0
    """The number of its entry among the deadlines; 0 while it has none."""
    failed_polls: int = 0
    """How many status calls failed since the last one that succeeded."""
    last_error: KlingError | None = None
    """The error of the last status call that failed."""
    retry_at: float = -math.inf
    """The earliest time of a poll that is off the schedule: after a call that failed, the delay. Before any failure this is long
    ago, so a job with another special reason to be polled, such as a missing video, is polled at once."""
    awaits_video: bool = False
    """Whether its record was a success without a video, so that it is polled once more."""
    is_spot_check: bool = False
    """Whether it is polled to test the list."""
    has_call_in_flight: bool = False
    """Whether a status call for it is under way."""

    @property
    def is_over(self) -> bool:
        """Whether its wait has ended."""
        return self.final.done()

    @property
    def is_on_schedule(self) -> bool:
        """Whether the pace says when to poll it; not while there is a special reason to poll."""
        return self.is_known and not (self.awaits_video or self.failed_polls or self.is_spot_check)

    @property
    def uses_lists(self) -> bool:
        """Whether list scans can replace its status calls."""
        return self.policy.use_lists != "never" and self.model is not None

    @property
    def job(self) -> Job:
        """The job without its record."""
        return Job(request_id=self.request_id, model=self.model, status=self.status)

    def end_with(self, error: KlingError) -> None:
        """End the wait with an error."""
        error.job = error.job or self.job
        self.final.set_exception(error)
        self.final.exception()  # counts as retrieved: a caller that is cancelled at this moment never does it

    def interrupt(self, error: KlingError) -> None:
        """End the wait early because of an error that no later poll changes; the job continues."""
        self._end_early(
            f"Job {self.request_id} continues at the service, and the wait for it ended: the client was closed.",
            f"`await client.wait({self.request_id!r})` of an open client waits for it.",
            cause=error,
        )

    def time_out(self) -> None:
        """End the wait at its deadline."""
        if self.is_over:
            return
        waited = self.ends_at - self.waits_since
        so_far, cause = f"is still {self.status} after {waited:.0f} s", None
        if self.last_error is not None and self.failed_polls:
            cause = self.last_error
            so_far = (
                f"was {self.status} when last seen, and calls for it fail after {waited:.0f} s "
                f"({self.last_error.message.rstrip('.')})"
            )
        self._end_early(
            f"Job {self.request_id} {so_far}; it may yet finish.",
            f"`await client.wait({self.request_id!r})` picks it up again.",
            cause=cause,
        )

    def _end_early(self, message: str, advice: str, *, cause: KlingError | None) -> None:
        """End the wait before the job ends."""
        error = WaitTimeoutError(message, advice=advice, request_id=self.request_id)
        error.__cause__ = cause
        self.end_with(error)
