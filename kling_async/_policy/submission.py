"""What the end of a paid POST means for the money: refused, never sent, or unknown."""

from __future__ import annotations

from enum import Enum, auto

from kling_async.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    InsufficientCreditsError,
    KlingError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)

_CLIENT_ERRORS = range(400, 500)
_REQUEST_TIMEOUT = 408


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


def stops_the_batch(error: KlingError) -> bool:
    """Whether every further submit would be refused too: the key, the credits, the rights or the model are wrong."""
    systemic = AuthenticationError | InsufficientCreditsError | PermissionDeniedError | NotFoundError
    return isinstance(error, systemic)
