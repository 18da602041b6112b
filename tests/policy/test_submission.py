from __future__ import annotations

import pytest

from kling_async import Job, JobStatus, Outcome, errors
from kling_async._policy.submission import (
    SubmitFailure,
    classify,
    is_throttled,
    may_resubmit,
    stops_the_batch,
)
from kling_async._secrets import Secret
from kling_async._wire.endpoints import SUBMIT
from kling_async._wire.replies import error_for
from kling_async.errors import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    KlingError,
    NotFoundError,
)


@pytest.mark.parametrize(
    "error, failure",
    [
        (APIConnectionError("refused", was_sent=False), SubmitFailure.NOT_SENT),
        (APITimeoutError("no connection", was_sent=False), SubmitFailure.NOT_SENT),
        (APIConnectionError("reset"), SubmitFailure.UNKNOWN),
        (APITimeoutError("stalled"), SubmitFailure.UNKNOWN),
        (APIResponseError("HTML", status_code=200), SubmitFailure.UNKNOWN),
        (KlingError("anything else"), SubmitFailure.UNKNOWN),
    ],
    ids=str,
)
def test_a_post_is_unsent_only_if_no_connection_was_made(error, failure):
    assert classify(error) is failure


def test_only_429_and_refusals_exclude_a_charge():
    failures = {
        status: classify(
            error_for(status, {}, b"", about="the submit", endpoint=SUBMIT, secret=Secret(""), now=0.0)
        )
        for status in range(300, 1000)
    }
    refused = set(range(400, 500)) - {408, 429}
    assert {status for status in failures if failures[status] is SubmitFailure.THROTTLED} == {429}
    assert {status for status in failures if failures[status] is SubmitFailure.REFUSED} == refused
    assert {status for status in failures if failures[status] is SubmitFailure.UNKNOWN} == set(
        failures
    ) - refused - {429}


def test_an_error_without_its_status_is_unknown():
    assert classify(NotFoundError("x")) is SubmitFailure.UNKNOWN


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 409, 422, 429, 500, 502])
def test_only_401_to_404_stop_the_batch(status):
    error = error_for(status, {}, b"", about="the submit", endpoint=SUBMIT, secret=Secret(""), now=0.0)
    assert stops_the_batch(error) is (status in {401, 402, 403, 404})


@pytest.mark.parametrize("error_class", [errors.CertificateError, errors.ProxyError])
def test_what_no_call_can_pass_on_its_way_stops_the_batch(error_class):
    assert stops_the_batch(error_class("x"))
    assert classify(error_class("x")) is SubmitFailure.NOT_SENT


def test_no_other_error_stops_the_batch():
    others = [
        errors.APIConnectionError,
        errors.APIResponseError,
        errors.AmbiguousSubmitError,
        errors.InvalidRequestError,
    ]
    assert not any(stops_the_batch(error_class("x")) for error_class in others)


@pytest.mark.parametrize(
    "status, reason, throttled",
    [
        (JobStatus.FAILED, "Music generation failed: rate limit exceeded(RPM)", True),
        (JobStatus.FAILED, "parallel task over resource pack limit", True),
        (JobStatus.FAILED, "Too Many Requests", True),
        (JobStatus.FAILED, "Generation rejected; please review the prompt", False),
        (JobStatus.FAILED, None, False),
        (JobStatus.SUCCESS, "rate limit", False),
        (JobStatus.CANCELLED, "rate limit", False),
    ],
)
def test_a_failed_job_that_names_a_rate_limit_is_throttled(status, reason, throttled):
    assert is_throttled(Job(request_id="x", status=status, outcome=Outcome(error=reason))) is throttled


@pytest.mark.parametrize(
    "reason, resubmits, is_stopped, expected",
    [
        ("rate limit exceeded", 0, False, True),
        ("rate limit exceeded", 4, False, True),
        ("rate limit exceeded", 5, False, False),
        ("rate limit exceeded", 0, True, False),
        ("rejected by moderation", 0, False, False),
    ],
)
def test_a_job_that_failed_for_a_rate_limit_is_submitted_again_five_times_unless_the_batch_has_stopped(
    reason, resubmits, is_stopped, expected
):
    job = Job(request_id="x", status=JobStatus.FAILED, outcome=Outcome(error=reason))
    assert may_resubmit(job, resubmits=resubmits, is_stopped=is_stopped) is expected
