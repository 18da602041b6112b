"""What the end of a job, or of an attempt at one, is called."""

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
    """The error that a final job stands for; None for a success."""
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
    """The state of an item that ended with this record, or with this error after it was accepted."""
    if isinstance(outcome, Job):
        if outcome.is_success:
            return ResultState.SUCCEEDED
        return ResultState.CANCELLED if outcome.status is JobStatus.CANCELLED else ResultState.FAILED
    if isinstance(outcome, WaitTimeoutError):
        return ResultState.TIMED_OUT
    return ResultState.AMBIGUOUS if isinstance(outcome, AmbiguousSubmitError) else ResultState.FAILED
