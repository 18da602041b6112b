from __future__ import annotations

import pytest

from kling_async._policy.circuit_breaker import CircuitBreaker
from kling_async.errors import (
    AmbiguousSubmitError,
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InsufficientCreditsError,
    NotFoundError,
    PermissionDeniedError,
)


@pytest.mark.parametrize(
    "kind", [AuthenticationError, InsufficientCreditsError, PermissionDeniedError, NotFoundError]
)
def test_a_systemic_refusal_stops_at_once_and_stays_the_reason(kind):
    stop = CircuitBreaker()
    first = kind("no")
    stop.refused(first)
    stop.refused(kind("no again"))
    stop.accepted()
    assert stop.reason is first


@pytest.mark.parametrize("kind", [BadRequestError, AmbiguousSubmitError, APIConnectionError])
def test_the_tenth_same_failure_in_a_row_stops(kind):
    stop = CircuitBreaker()
    for _ in range(9):
        stop.refused(kind("no"))
        assert stop.reason is None
    tenth = kind("no")
    stop.refused(tenth)
    assert stop.reason is tenth


def test_a_success_between_failures_starts_the_count_again():
    stop = CircuitBreaker()
    for _ in range(5):
        for _ in range(9):
            stop.refused(BadRequestError("no", status_code=400))
        stop.accepted()
    assert stop.reason is None


def test_failures_of_different_kinds_are_not_the_same():
    stop = CircuitBreaker()
    for _ in range(50):
        stop.refused(APIStatusError("no", status_code=409))
        stop.refused(APIStatusError("no", status_code=422))
        stop.refused(BadRequestError("no", status_code=400))
    assert stop.reason is None
