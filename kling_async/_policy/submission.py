"""Decides what the error of a paid POST means for the money: refused, never sent, or unknown."""

from __future__ import annotations

import re
from enum import Enum, auto

from kling_async.errors import (
    AmbiguousSubmitError,
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BudgetExceededError,
    CertificateError,
    ClientClosedError,
    ConfigurationError,
    InsufficientCreditsError,
    JournalError,
    KlingError,
    NotFoundError,
    PermissionDeniedError,
    ProxyError,
    RateLimitError,
)
from kling_async.jobs import Job, JobStatus

_CLIENT_ERRORS = range(400, 500)
_REQUEST_TIMEOUT = 408

_THROTTLE = re.compile(r"rate.?limit|too many requests|parallel task over", re.IGNORECASE)

_MAX_RESUBMITS = 5
"""How often an item is submitted again because its job failed for a rate limit."""

OF_THE_ACCOUNT = AuthenticationError | InsufficientCreditsError | PermissionDeniedError
"""The errors with which the service refuses a key, whatever is submitted with it."""
OF_THE_MACHINE = ConfigurationError | CertificateError | ProxyError
"""The errors with which no request of this machine gets to the service."""


class SubmitFailure(Enum):
    """Why a submit gave no id."""

    NOT_SENT = auto()
    """No connection was made, so nothing can have been accepted: safe to send again."""
    THROTTLED = auto()
    """Answered 429: not accepted, and safe to send again later."""
    REFUSED = auto()
    """Answered, and not accepted: the same request would be refused again."""
    UNKNOWN = auto()
    """It may have been accepted and charged: sent again only if the caller asked for that."""


def classify(error: KlingError) -> SubmitFailure:
    """Why a paid POST that ended with this error gave no id.

    A 5xx is unknown: the service has answered 500 and kept the job. A redirect is unknown too: a gateway can send one
    after the service took the request.

    Source: reports of users who found the job in the list after a failed submit.
    """
    if isinstance(error, RateLimitError):
        return SubmitFailure.THROTTLED
    if isinstance(error, ConfigurationError):
        return SubmitFailure.NOT_SENT
    if isinstance(error, APIConnectionError):
        return SubmitFailure.UNKNOWN if error.was_sent else SubmitFailure.NOT_SENT
    if isinstance(error, APIStatusError):
        is_refusal = error.status_code in _CLIENT_ERRORS and error.status_code != _REQUEST_TIMEOUT
        return SubmitFailure.REFUSED if is_refusal else SubmitFailure.UNKNOWN
    return SubmitFailure.UNKNOWN


def is_throttled(job: Job) -> bool:
    """Whether a job failed only because of a rate limit, which the service also reports as a failed job.

    Source: clients of the service got "rate limit exceeded(RPM)" as the error of a failed job; Kling's documentation
    has "parallel task over resource pack limit".
    """
    return job.status is JobStatus.FAILED and _THROTTLE.search(job.failure_reason or "") is not None


def may_resubmit(job: Job, *, resubmits: int, is_stopped: bool) -> bool:
    """Whether an item is submitted again because of how its job ended.

    Args:
        job: The final record.
        resubmits: How often the item was submitted again.
        is_stopped: Whether the batch sends nothing more.
    """
    return is_throttled(job) and resubmits < _MAX_RESUBMITS and not is_stopped


def wants_proof(on_ambiguous: str | None) -> bool:
    """Whether the caller's option waits for the proof that there is no job; None outside a batch."""
    return on_ambiguous == "resend_absent"


def allows_resend(on_ambiguous: str, error: AmbiguousSubmitError) -> bool:
    """Whether the caller's option allows another POST for a lost submit."""
    return on_ambiguous == "resend" or (wants_proof(on_ambiguous) and error.absent)


def stops_the_batch(error: KlingError) -> bool:
    """Whether a batch sends nothing more after this error of one submit, because every further submit would fail too.

    The reason is at the service (key, credits, rights, model), on the way there (setting, certificate, proxy, closed client),
    or here (cap, journal). A cheaper item might still be below the cap: it is not sent either.
    """
    of_this_run = NotFoundError | ClientClosedError | BudgetExceededError | JournalError
    return isinstance(error, OF_THE_ACCOUNT | OF_THE_MACHINE | of_this_run)
