"""Which items of a shard are given back, and which errors end a worker."""

from __future__ import annotations

import pytest

from kling_async import (
    AmbiguousSubmitError,
    APIConnectionError,
    AuthenticationError,
    BudgetExceededError,
    CertificateError,
    ConfigurationError,
    DownloadError,
    InsufficientCreditsError,
    InternalServerError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    JournalError,
    NotFoundError,
    PermissionDeniedError,
    ProxyError,
    RateLimitError,
    Result,
    ResultState,
    WaitTimeoutError,
)
from kling_async._distributed.trouble import Trouble, ends_worker, find_trouble, is_end, is_outage_of_store
from kling_async.events import Finished
from kling_async.jobs import Job, JobStatus


def result_with_cause(state, error, fault):
    """A result whose error has a fault as its cause."""
    failure = error("Why.")
    failure.__cause__ = fault
    return Result(index=0, request=None, state=state, error=failure)


@pytest.mark.parametrize(
    "state, error, trouble",
    [
        (ResultState.NOT_SUBMITTED, AuthenticationError("401"), Trouble.REFUSED),
        (ResultState.NOT_SUBMITTED, CertificateError("untrusted"), Trouble.REFUSED),
        (ResultState.NOT_SUBMITTED, ConfigurationError("no folder"), Trouble.REFUSED),
        (ResultState.NOT_SUBMITTED, APIConnectionError("refused"), Trouble.TRANSIENT),
        (ResultState.NOT_SUBMITTED, JournalError("gone"), Trouble.TRANSIENT),
        (ResultState.NOT_SUBMITTED, AmbiguousSubmitError("the batch stopped after ten"), Trouble.TRANSIENT),
        (ResultState.NOT_SUBMITTED, InternalServerError("503"), Trouble.TRANSIENT),
        (ResultState.NOT_SUBMITTED, RateLimitError("429"), Trouble.TRANSIENT),
        (ResultState.NOT_SUBMITTED, NotFoundError("no such model"), None),
        (ResultState.AMBIGUOUS, AmbiguousSubmitError("its own"), None),
        (ResultState.NOT_SUBMITTED, None, None),
        (ResultState.NOT_SUBMITTED, BudgetExceededError("above the cap"), None),
        (ResultState.NOT_SUBMITTED, InvalidRequestError("no picture"), None),
        (ResultState.AMBIGUOUS, APIConnectionError("reset"), None),
        (ResultState.SUCCEEDED, None, None),
    ],
)
def test_an_item_is_given_back_where_the_fault_is_not_its_own(state, error, trouble):
    assert find_trouble(Result(index=0, request=None, state=state, error=error)) is trouble


@pytest.mark.parametrize(
    "fault, trouble",
    [
        (AuthenticationError("401"), Trouble.REFUSED),
        (InsufficientCreditsError("402"), Trouble.REFUSED),
        (ProxyError("407"), Trouble.REFUSED),
        (APIConnectionError("refused"), Trouble.TRANSIENT),
        (InternalServerError("503"), Trouble.TRANSIENT),
        (JournalError("gone"), Trouble.TRANSIENT),
        (NotFoundError("no list"), None),
        (BudgetExceededError("above the cap"), None),
        (OSError("no such thing"), None),
        (None, None),
    ],
)
@pytest.mark.parametrize(
    "state, error",
    [
        (ResultState.AMBIGUOUS, AmbiguousSubmitError),
        (ResultState.FAILED, JobFailedError),
        (ResultState.CANCELLED, JobCancelledError),
    ],
)
def test_an_item_that_was_sent_has_the_fault_as_the_cause(state, error, fault, trouble):
    assert find_trouble(result_with_cause(state, error, fault)) is trouble


@pytest.mark.parametrize(
    "fault, trouble",
    [
        (AuthenticationError("401"), Trouble.REFUSED),
        (JournalError("gone"), Trouble.TRANSIENT),
        (NotFoundError("404"), None),
    ],
)
def test_a_wait_that_the_service_refuses_is_no_end(fault, trouble):
    assert find_trouble(Result(index=0, request=None, state=ResultState.FAILED, error=fault)) is trouble


@pytest.mark.parametrize("status", [None, *JobStatus])
@pytest.mark.parametrize(
    "state, error, fault, can_end",
    [
        (ResultState.SUCCEEDED, None, None, True),
        (ResultState.FAILED, JobFailedError, None, True),
        (ResultState.CANCELLED, JobCancelledError, BudgetExceededError("above the cap"), True),
        (ResultState.FAILED, JobFailedError, AuthenticationError("not submitted again: 401"), False),
        (ResultState.CANCELLED, JobCancelledError, APIConnectionError("not submitted again"), False),
        (ResultState.TIMED_OUT, WaitTimeoutError, AuthenticationError("401"), False),
        (ResultState.AMBIGUOUS, AmbiguousSubmitError, InternalServerError("no list: 502"), False),
        (ResultState.NOT_SUBMITTED, AuthenticationError, None, False),
    ],
)
def test_an_item_has_ended_for_its_call_if_its_job_has_and_it_is_not_given_back(
    state, error, fault, can_end, status
):
    job = None if status is None else Job(request_id="j1", status=status)
    failure = None if error is None else error("Why.")
    if failure is not None:
        failure.__cause__ = fault
    has_ended = can_end and job is not None and job.is_final

    assert is_end(Finished(1.0, index=0, state=state, job=job, error=failure)) is has_ended
    assert is_end(Result(index=0, request=None, state=state, job=job, error=failure)) is has_ended


@pytest.mark.parametrize(
    "state, error, fault, trouble",
    [
        (ResultState.SUCCEEDED, DownloadError, ProxyError("407"), None),
        (ResultState.TIMED_OUT, WaitTimeoutError, InternalServerError("503"), None),
        (ResultState.TIMED_OUT, WaitTimeoutError, AuthenticationError("401"), Trouble.REFUSED),
    ],
)
def test_a_made_video_and_a_long_wait_are_ends_but_not_a_wait_with_a_wrong_key(state, error, fault, trouble):
    assert find_trouble(result_with_cause(state, error, fault)) is trouble


@pytest.mark.parametrize(
    "error, is_end",
    [
        (AuthenticationError("401"), True),
        (InsufficientCreditsError("402"), True),
        (PermissionDeniedError("403"), True),
        (CertificateError("untrusted"), True),
        (ProxyError("407"), True),
        (ConfigurationError("no folder"), False),
    ],
)
def test_a_worker_ends_only_if_it_can_run_no_batch(error, is_end):
    assert ends_worker(error) is is_end


@pytest.mark.parametrize(
    "cause, is_outage",
    [
        (APIConnectionError("503 SlowDown"), True),
        (DownloadError("there is no bucket of this name"), False),
        (OSError("no space"), False),
        (None, False),
    ],
)
def test_a_store_that_does_not_answer_is_no_refusal(cause, is_outage):
    error = ConfigurationError("Videos cannot be stored.")
    error.__cause__ = cause

    assert is_outage_of_store(error) is is_outage
