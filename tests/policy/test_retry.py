from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import errors
from kling_async._policy.retry import (
    RetryPolicy,
    backoff,
    ends_wait,
    is_transient,
    is_wait_refused,
    named_delay,
    next_delay,
    poll_delay,
    throttle_delay,
)
from kling_async.errors import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    InternalServerError,
    KlingError,
    RateLimitError,
)

JITTERS = st.floats(0, 1)
DELAYS = st.floats(0, 1e6)
POLICIES = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 200),
    initial_delay=DELAYS,
    max_delay=DELAYS,
    max_retry_after=DELAYS,
)
TRANSIENT = {APIConnectionError, APITimeoutError, APIResponseError, RateLimitError, InternalServerError}
ERROR_CLASSES = [
    error_class
    for error_class in vars(errors).values()
    if isinstance(error_class, type) and issubclass(error_class, KlingError)
]


@given(policy=POLICIES, attempt=st.integers(0, 10_000), jitter=JITTERS)
def test_a_backoff_is_between_half_the_longest_wait_and_the_longest(policy, attempt, jitter):
    longest = backoff(policy, attempt=attempt, jitter=0.0)
    assert (
        0.0 <= longest / 2 <= backoff(policy, attempt=attempt, jitter=jitter) <= longest <= policy.max_delay
    )


@given(policy=POLICIES, attempt=st.integers(0, 10_000))
def test_the_longest_backoff_never_shrinks(policy, attempt):
    assert backoff(policy, attempt=attempt, jitter=0.0) <= backoff(policy, attempt=attempt + 1, jitter=0.0)


def test_a_backoff_doubles_up_to_its_bound():
    policy = RetryPolicy(initial_delay=0.5, max_delay=5.0)
    assert [backoff(policy, attempt=n, jitter=0.0) for n in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert [backoff(policy, attempt=n, jitter=1.0) for n in range(6)] == [0.25, 0.5, 1.0, 2.0, 2.5, 2.5]


@given(policy=POLICIES, retry_after=st.floats(0, 1e5), jitter=JITTERS)
def test_retry_after_replaces_the_backoff_up_to_its_limit(policy, retry_after, jitter):
    error = RateLimitError("slow down", status_code=429, retry_after=retry_after)
    delay = next_delay(policy, attempt=0, error=error, jitter=jitter)
    assert delay == (min(retry_after, policy.max_retry_after) if policy.max_retries else None)


@pytest.mark.parametrize("limit, delay", [(600.0, 600.0), (86400.0, 3600.0), (0.0, 0.0)])
def test_a_setting_limits_the_time_that_the_service_can_name(limit, delay):
    error = RateLimitError("slow down", status_code=429, retry_after=3600.0)
    policy = RetryPolicy(max_retry_after=limit)
    assert named_delay(policy, error) == delay
    assert next_delay(policy, attempt=0, error=error, jitter=0.5) == delay


@pytest.mark.parametrize(
    "retry_after, throttles_before, jitter, expected",
    [
        (7.0, 0, 0.5, 7.0),
        (0.0, 3, 0.5, 0.0),
        (None, 0, 0.0, 1.0),
        (None, 3, 0.0, 8.0),
        (None, 3, 1.0, 4.0),
        (None, 0, 1.0, 1.0),
    ],
)
def test_the_pause_after_a_sign_of_throttling_grows_with_those_before_unless_the_service_names_a_time(
    retry_after, throttles_before, jitter, expected
):
    error = RateLimitError("slow down", status_code=429, retry_after=retry_after)
    policy = RetryPolicy(initial_delay=0.5, max_delay=30.0)
    assert throttle_delay(policy, error, throttles_before=throttles_before, jitter=jitter) == expected


def test_without_retry_after_the_backoff_applies():
    policy = RetryPolicy()
    delay = next_delay(policy, attempt=2, error=InternalServerError("x"), jitter=0.5)
    assert delay == backoff(policy, attempt=2, jitter=0.5)


@given(policy=POLICIES, jitter=JITTERS)
def test_no_call_is_retried_more_often_than_max_retries(policy, jitter):
    attempt = 0
    while next_delay(policy, attempt=attempt, error=APIConnectionError("reset"), jitter=jitter) is not None:
        attempt += 1
    assert attempt == policy.max_retries


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_only_a_transient_error_is_retried(error_class):
    assert is_transient(error_class("x")) is (error_class in TRANSIENT)
    delay = next_delay(RetryPolicy(), attempt=0, error=error_class("x"), jitter=0.0)
    assert (delay is not None) is (error_class in TRANSIENT)


@pytest.mark.parametrize(
    "status, expected", [(408, True), (425, True), (409, False), (422, False), (302, True)]
)
def test_a_timeout_and_a_redirect_of_the_service_are_transient_and_a_refusal_is_not(status, expected):
    assert is_transient(APIStatusError("x", status_code=status)) is expected


REFUSALS = {
    errors.BadRequestError,
    errors.AuthenticationError,
    errors.PermissionDeniedError,
    errors.NotFoundError,
    errors.InvalidRequestError,
}


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
@pytest.mark.parametrize("failed_polls", [1, 2, 3, 50])
def test_only_the_refusal_of_a_job_that_was_never_seen_ends_a_wait(error_class, failed_polls):
    error = error_class("x")
    patience = 3 if error_class is errors.NotFoundError else 1

    assert not ends_wait(error, is_known=True, failed_polls=failed_polls)
    ends = any(issubclass(error_class, refusal) for refusal in REFUSALS) and failed_polls >= patience
    assert ends_wait(error, is_known=False, failed_polls=failed_polls) is ends


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
@pytest.mark.parametrize("failed_polls", [1, 2, 3, 50])
def test_a_wait_is_refused_after_some_refusals_in_a_row_and_after_no_other_failure(error_class, failed_polls):
    is_refusal = any(issubclass(error_class, refusal) for refusal in REFUSALS)
    assert is_wait_refused(error_class("x"), failed_polls=failed_polls) is (is_refusal and failed_polls >= 3)


@given(policy=POLICIES, failed_polls=st.integers(1, 10_000), jitter=JITTERS, retry_after=DELAYS)
def test_a_job_is_polled_again_after_its_backoff_and_not_before_the_time_that_the_service_names(
    policy, failed_polls, jitter, retry_after
):
    usual = poll_delay(policy, InternalServerError("x"), failed_polls=failed_polls, jitter=jitter)
    assert usual == backoff(policy, attempt=failed_polls - 1, jitter=jitter)

    named = RateLimitError("x", status_code=429, retry_after=retry_after)
    delay = poll_delay(policy, named, failed_polls=failed_polls, jitter=jitter)
    assert delay == max(usual, min(retry_after, policy.max_retry_after))
