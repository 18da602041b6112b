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
    "error_class", [AuthenticationError, InsufficientCreditsError, PermissionDeniedError, NotFoundError]
)
def test_a_systemic_refusal_stops_at_once_and_stays_the_reason(error_class):
    breaker = CircuitBreaker()
    first = error_class("no")
    breaker.record_failure(first)
    breaker.record_failure(error_class("no again"))
    breaker.record_accepted()
    assert breaker.reason is first


@pytest.mark.parametrize("error_class", [BadRequestError, AmbiguousSubmitError, APIConnectionError])
def test_the_tenth_same_failure_in_a_row_stops(error_class):
    breaker = CircuitBreaker()
    for _ in range(9):
        breaker.record_failure(error_class("no"))
        assert breaker.reason is None
    tenth = error_class("no")
    breaker.record_failure(tenth)
    assert breaker.reason is tenth


def test_a_success_between_failures_starts_the_count_again():
    breaker = CircuitBreaker()
    for _ in range(5):
        for _ in range(9):
            breaker.record_failure(BadRequestError("no", status_code=400))
        breaker.record_accepted()
    assert breaker.reason is None


def test_failures_of_different_kinds_are_not_the_same():
    breaker = CircuitBreaker()
    for _ in range(50):
        breaker.record_failure(APIStatusError("no", status_code=409))
        breaker.record_failure(APIStatusError("no", status_code=422))
        breaker.record_failure(BadRequestError("no", status_code=400))
    assert breaker.reason is None
