from __future__ import annotations

import pytest

from kling_async._policy.circuit_breaker import CircuitBreaker, LostStreak
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
def test_a_systemic_failure_stops_the_batch_at_once_and_stays_the_reason(error_class):
    breaker = CircuitBreaker()
    first = error_class("no")
    breaker.record_failure(first)
    breaker.record_failure(error_class("no again"))
    breaker.record_accepted()
    assert breaker.reason is first


@pytest.mark.parametrize("error_class", [BadRequestError, AmbiguousSubmitError, APIConnectionError])
def test_the_tenth_equal_failure_in_a_row_stops_the_batch(error_class):
    breaker = CircuitBreaker()
    for _ in range(9):
        breaker.record_failure(error_class("no"))
        assert breaker.reason is None
    tenth = error_class("no")
    breaker.record_failure(tenth)
    assert breaker.reason is tenth


def test_an_accepted_submit_between_failures_resets_the_count():
    breaker = CircuitBreaker()
    for _ in range(5):
        for _ in range(9):
            breaker.record_failure(BadRequestError("no", status_code=400))
        breaker.record_accepted()
    assert breaker.reason is None


def test_failures_with_different_status_codes_are_not_equal():
    breaker = CircuitBreaker()
    for _ in range(50):
        breaker.record_failure(APIStatusError("no", status_code=409))
        breaker.record_failure(APIStatusError("no", status_code=422))
        breaker.record_failure(BadRequestError("no", status_code=400))
    assert breaker.reason is None


def test_in_an_outage_one_failure_stops_the_batch():
    breaker, error = CircuitBreaker(), AmbiguousSubmitError("no")
    breaker.record_failure(error, is_outage=True)
    assert breaker.reason is error


def lose(streak, count):
    return [streak.record_lost(AmbiguousSubmitError("no answer")) for _ in range(count)]


def test_ten_lost_submits_in_a_row_let_one_in_half_a_minute_leave():
    streak = LostStreak()
    for _ in range(9):
        assert lose(streak, 1) == [False]
        streak.take_turn(0.0)
        assert (streak.is_outage, streak.next_at) == (False, float("-inf"))
    assert lose(streak, 2) == [True, False]
    assert (streak.is_outage, streak.next_at) == (True, float("-inf"))
    streak.take_turn(5.0)
    assert streak.next_at == 35.0


def test_an_answer_ends_an_outage():
    streak = LostStreak()
    for _ in range(2):
        lose(streak, 12)
        streak.take_turn(5.0)
        assert (streak.next_at, str(streak.last_error)) == (35.0, "no answer")
        streak.record_answer()
        streak.take_turn(5.0)
        assert (streak.is_outage, streak.next_at, streak.last_error) == (False, float("-inf"), None)


def test_the_last_turn_of_an_outage_is_free_again_when_it_is_put_back():
    streak = LostStreak()
    lose(streak, 10)
    first = streak.take_turn(5.0)
    streak.put_back_turn(first)
    assert streak.next_at <= 5.0
    first, second = streak.take_turn(5.0), streak.take_turn(35.0)
    streak.put_back_turn(first)
    assert streak.next_at == 65.0
    streak.put_back_turn(second)
    assert streak.next_at <= 35.0


def test_a_submit_of_before_an_outage_puts_no_turn_of_the_outage_back():
    streak = LostStreak()
    before = streak.take_turn(0.0)
    lose(streak, 10)
    streak.take_turn(5.0)
    streak.put_back_turn(before)
    assert streak.next_at == 35.0
