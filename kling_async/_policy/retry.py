"""Decides whether a call is sent again, and after how long."""

from __future__ import annotations

import attrs

from kling_async._calls import public_class
from kling_async._field_docs import describe_fields
from kling_async._policy.validators import at_least
from kling_async.errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CertificateError,
    ClientClosedError,
    InternalServerError,
    InvalidRequestError,
    KlingError,
    NotFoundError,
    PermissionDeniedError,
    ProxyError,
    RateLimitError,
)

_TRANSIENT_STATUSES = {*range(300, 400), 408, 425}
_REFUSALS = (BadRequestError, AuthenticationError, PermissionDeniedError, NotFoundError, InvalidRequestError)
_UNSEEN_GRACE = 3
"""How often a job can be answered 404 before that is believed: a new id may show late."""
_MIN_PAUSE = 1.0
"""Seconds for which nothing is submitted after a 429 that names no time."""


@public_class
@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how soon a call that is safe to repeat is sent again.

    Retry n, from 0, waits `initial_delay * 2**n` seconds, at most `max_delay`, less a random part of up to a half,
    so that many clients do not retry at the same time. A time that the service names (Retry-After) replaces this wait,
    up to `max_retry_after`.

    Raises:
        ConfigurationError: A value is negative or not a number.
    """

    max_retries: int = attrs.field(default=5, validator=at_least(0, whole=True))
    """How often one call is sent again before its error is raised."""
    initial_delay: float = attrs.field(default=0.5, validator=at_least(0))
    """Seconds before the first retry."""
    max_delay: float = attrs.field(default=30.0, validator=at_least(0))
    """The longest wait in seconds, unless the service names a time."""
    max_retry_after: float = attrs.field(default=600.0, validator=at_least(0))
    """The longest wait in seconds where the service names a time. A longer time is not waited out: the client then asks
    again, and a service that still refuses names another time."""
    download_timeout: float | None = attrs.field(
        default=6 * 3600.0, validator=at_least(0, above=True, optional=True)
    )
    """Seconds after which a download ends with all its retries; None is no limit. The bytes stay in the partial file,
    and the next download of the job continues there."""


def is_transient(error: KlingError) -> bool:
    """Whether the same call can succeed later: no answer, 3xx, 408, 425, 429, 5xx, or an unreadable answer.

    The service sends no redirects, but a busy gateway or a network with a log-in page can. A certificate that is not
    trusted stays so until the settings change, and a proxy that refuses the client too. A closed client stays closed.
    """
    if isinstance(error, CertificateError | ProxyError | ClientClosedError):
        return False
    if isinstance(error, APIConnectionError | APIResponseError | RateLimitError | InternalServerError):
        return True
    return isinstance(error, APIStatusError) and error.status_code in _TRANSIENT_STATUSES


def backoff(policy: RetryPolicy, *, attempt: int, jitter: float) -> float:
    """Seconds before retry number `attempt` (from 0), given a random number from 0 to 1."""
    longest = min(policy.max_delay, policy.initial_delay * 2.0 ** min(attempt, 60))
    return longest * (1.0 - jitter / 2)


def named_delay(policy: RetryPolicy, error: KlingError) -> float | None:
    """Seconds to wait because the service named a time, within the caller's limit; None if it named none."""
    return None if error.retry_after is None else min(error.retry_after, policy.max_retry_after)


def throttle_delay(policy: RetryPolicy, error: KlingError, *, throttles_before: int, jitter: float) -> float:
    """Seconds for which nothing is submitted after a sign of throttling.

    Args:
        policy: The caller's settings.
        error: What the service said; a time that it names counts.
        throttles_before: How many such signs there were in a row; the pause grows with them.
        jitter: A random number from 0 to 1.
    """
    named = named_delay(policy, error)
    if named is not None:
        return named
    return max(_MIN_PAUSE, backoff(policy, attempt=throttles_before + 1, jitter=jitter))


def next_delay(policy: RetryPolicy, *, attempt: int, error: KlingError, jitter: float) -> float | None:
    """Seconds to wait before a safe call is sent again; None if the caller gets the error instead.

    Args:
        policy: The caller's settings.
        attempt: How many retries there have been.
        error: The error of the last try.
        jitter: A random number from 0 to 1.
    """
    if attempt >= policy.max_retries or not is_transient(error):
        return None
    named = named_delay(policy, error)
    return named if named is not None else backoff(policy, attempt=attempt, jitter=jitter)


def ends_wait(error: KlingError, *, is_known: bool, failed_polls: int) -> bool:
    """Whether a failed poll ends the wait for a job: only if the service refuses a job that it has never shown to this key.

    Args:
        error: The error of the poll.
        is_known: Whether the service has ever shown the job to this key.
        failed_polls: How many polls in a row have failed, this one included.
    """
    grace = _UNSEEN_GRACE if isinstance(error, NotFoundError) else 1
    return not is_known and isinstance(error, _REFUSALS) and failed_polls >= grace


def is_wait_refused(error: KlingError, *, failed_polls: int) -> bool:
    """Whether so many polls in a row were refused that a person has to check the key, although the wait goes on."""
    return isinstance(error, _REFUSALS) and failed_polls >= _UNSEEN_GRACE


def poll_delay(policy: RetryPolicy, error: KlingError, *, failed_polls: int, jitter: float) -> float:
    """Seconds before a job is polled again after so many polls in a row that failed, the last with this error."""
    delay = backoff(policy, attempt=failed_polls - 1, jitter=jitter)
    return max(delay, named_delay(policy, error) or 0.0)


describe_fields(__name__)
