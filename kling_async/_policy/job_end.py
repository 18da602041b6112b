"""The error and the state of a job that has ended, or of a submit or wait that failed."""

from __future__ import annotations

from attrs import evolve

from kling_async._secrets import Secret
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

_SHOWN = 500
"""Characters of a reason that an error shows. The key is hidden in all of it before: a key that is cut is not found."""


def lacks_video(job: Job) -> bool:
    """Whether a success does not say where its video is: one more poll may tell.

    Source: the service documents answers of success that carry their outcome only on the next call.
    """
    return job.is_success and job.video_url is None


def error_of(job: Job, *, secret: Secret) -> JobError | None:
    """The error for a final job, with `***` for each place where the service echoes the key; None for a success."""
    if job.is_success:
        return None
    job = hide_in_reason(job, secret=secret)
    request_id = secret.hide_in(job.request_id)
    reason = (job.failure_reason or "no reason given")[:_SHOWN]
    error_class, verb = (
        (JobCancelledError, "was cancelled")
        if job.status is JobStatus.CANCELLED
        else (JobFailedError, "failed")
    )
    return error_class(
        f"Job {request_id} {verb} at the service: {reason.rstrip('.')}. It may have been charged.",
        request_id=job.request_id,
        job=job,
    )


def add_reason(error: KlingError, reason: KlingError) -> KlingError:
    """The error of an item that was sent, which also says why the item was not submitted again; the reason is its cause.

    The given error stays as it is: it can be the outcome of an earlier POST, which is told again.
    """
    longer = type(error)(f"{error.message.rstrip('.')}; it was not submitted again: {reason.message}")
    vars(longer).update({**vars(error), "message": longer.message, "advice": error.advice or reason.advice})
    longer.__cause__ = reason
    return longer


def hide_in_reason(job: Job, *, secret: Secret) -> Job:
    """The job, with `***` for each place of its failure reason where the service echoes the key; `raw` stays as it is."""
    if job.outcome is None or job.outcome.error is None:
        return job
    reason = secret.hide_in(job.outcome.error)
    return job if reason == job.outcome.error else evolve(job, outcome=evolve(job.outcome, error=reason))


def state_without_end(*, has_job: bool) -> ResultState:
    """The state of an item that was sent, where an error of any kind hides how its job ends.

    Only the service's record of the job says that the job failed.

    Args:
        has_job: Whether the id of the job is known.
    """
    return ResultState.TIMED_OUT if has_job else ResultState.AMBIGUOUS


def state_of(end: Job | KlingError) -> ResultState:
    """The state of a wait that ended with this final job, or with this error."""
    if isinstance(end, Job):
        if end.is_success:
            return ResultState.SUCCEEDED
        return ResultState.CANCELLED if end.status is JobStatus.CANCELLED else ResultState.FAILED
    if isinstance(end, WaitTimeoutError):
        return ResultState.TIMED_OUT
    return ResultState.AMBIGUOUS if isinstance(end, AmbiguousSubmitError) else ResultState.FAILED
