"""What the end of a paid POST means for the money: refused, never sent, or unknown."""

from __future__ import annotations

import re
from enum import Enum, auto

from kling_async.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BudgetExceededError,
    InsufficientCreditsError,
    JournalError,
    KlingError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)
from kling_async.jobs import Job, JobStatus

_CLIENT_ERRORS = range(400, 500)
_REQUEST_TIMEOUT = 408

_THROTTLE = re.compile(r"rate.?limit|too many requests|parallel task over", re.IGNORECASE)


class SubmitFailure(Enum):
    """The classes of a submit that gave no id."""

    NOT_SENT = auto()
    """No connection was made, so nothing can have been accepted: safe to send again."""
    THROTTLED = auto()
    """Answered 429: not accepted, and welcome later."""
    REFUSED = auto()
    """Answered, and not accepted: the same request would be refused again."""
    UNKNOWN = auto()
    """It may have been accepted and be charged: never to be sent again unasked."""


def classify(error: KlingError) -> SubmitFailure:
    """What a paid POST that ended with this error means.

    A 5xx is unknown: the service has been seen to answer 500 and keep the job. So is a redirect, which a gateway
    may send after the service took the request.
    Source: reports of users who found the job in the list after a failed submit.
    """
    if isinstance(error, RateLimitError):
        return SubmitFailure.THROTTLED
    if isinstance(error, APIConnectionError):
        return SubmitFailure.UNKNOWN if error.was_sent else SubmitFailure.NOT_SENT
    if isinstance(error, APIStatusError):
        is_refusal = error.status_code in _CLIENT_ERRORS and error.status_code != _REQUEST_TIMEOUT
        return SubmitFailure.REFUSED if is_refusal else SubmitFailure.UNKNOWN
    return SubmitFailure.UNKNOWN


def is_throttled(job: Job) -> bool:
    """Whether a job failed only because there were too many: the service tells a rate limit that way too.

    Source: clients of the service met "rate limit exceeded(RPM)" as the error of a failed job, and Kling's own
    documentation has "parallel task over resource pack limit".
    """
    return job.status is JobStatus.FAILED and _THROTTLE.search(job.failure_reason or "") is not None


def stops_the_batch(error: KlingError) -> bool:
    """Whether every further submit would end so: wrong key, credits, rights or model, no money or no journal left."""
    at_the_service = AuthenticationError | InsufficientCreditsError | PermissionDeniedError | NotFoundError
    return isinstance(error, at_the_service | BudgetExceededError | JournalError)
