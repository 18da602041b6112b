"""The error and the state of a job that has ended, or of a submit or wait that failed."""

from __future__ import annotations

from kling_async.errors import (
    AmbiguousSubmitError,
    JobCancelledError,
    JobError,
    JobFailedError,
    KlingError,
    WaitTimeoutError,
)
from kling_async.jobs import Job, JobStatus
from kling_async.results import ResultState


def error_of(job: Job) -> JobError | None:
    """The error for a final job; None for a success."""
    if job.is_success:
        return None
    reason = job.failure_reason or "no reason given"
    error_class, verb = (
        (JobCancelledError, "was cancelled")
        if job.status is JobStatus.CANCELLED
        else (JobFailedError, "failed")
    )
    return error_class(
        f"Job {job.request_id} {verb} at the service: {reason.rstrip('.')[:500]}. It may have been charged.",
        request_id=job.request_id,
        job=job,
    )


def state_of(outcome: Job | KlingError) -> ResultState:
    """The state of an accepted item that ended with this final job, or with this error."""
    if isinstance(outcome, Job):
        if outcome.is_success:
            return ResultState.SUCCEEDED
        return ResultState.CANCELLED if outcome.status is JobStatus.CANCELLED else ResultState.FAILED
    if isinstance(outcome, WaitTimeoutError):
        return ResultState.TIMED_OUT
    return ResultState.AMBIGUOUS if isinstance(outcome, AmbiguousSubmitError) else ResultState.FAILED
