from __future__ import annotations

import pytest

from kling_async._policy.job_end import error_of, lacks_video, state_of, state_without_end
from kling_async._secrets import Secret
from kling_async.errors import (
    AmbiguousSubmitError,
    APIConnectionError,
    JobCancelledError,
    JobFailedError,
    NotFoundError,
    WaitTimeoutError,
)
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.results import ResultState

SECRET = Secret("key-of-the-tests")


def job(status, error=None):
    return Job(request_id="id-1", status=status, outcome=Outcome(error=error))


def test_a_success_has_no_error():
    assert error_of(job(JobStatus.SUCCESS, "a warning"), secret=SECRET) is None


@pytest.mark.parametrize(
    "status, error_class, verb",
    [(JobStatus.FAILED, JobFailedError, "failed"), (JobStatus.CANCELLED, JobCancelledError, "was cancelled")],
)
def test_the_error_of_a_job_carries_the_services_reason_and_the_job(status, error_class, verb):
    ended = job(status, "Generation rejected.")
    error = error_of(ended, secret=SECRET)
    assert type(error) is error_class
    assert error.message == f"Job id-1 {verb} at the service: Generation rejected. It may have been charged."
    assert (error.request_id, error.job) == ("id-1", ended)


def test_the_error_says_that_no_reason_was_given_and_cuts_a_long_one():
    assert "no reason given" in error_of(job(JobStatus.FAILED), secret=SECRET).message
    assert len(error_of(job(JobStatus.FAILED, "x" * 2**20), secret=SECRET).message) < 600


@pytest.mark.parametrize(
    "end, state",
    [
        (job(JobStatus.SUCCESS), ResultState.SUCCEEDED),
        (job(JobStatus.FAILED), ResultState.FAILED),
        (job(JobStatus.CANCELLED), ResultState.CANCELLED),
        (WaitTimeoutError("late"), ResultState.TIMED_OUT),
        (AmbiguousSubmitError("lost"), ResultState.AMBIGUOUS),
        (NotFoundError("vanished"), ResultState.FAILED),
        (APIConnectionError("reset"), ResultState.FAILED),
    ],
    ids=["success", "failed", "cancelled", "late", "lost", "vanished", "reset"],
)
def test_each_outcome_has_its_state(end, state):
    assert state_of(end) is state


def test_an_error_after_a_post_is_no_failure_of_the_job():
    assert state_without_end(has_job=True) is ResultState.TIMED_OUT
    assert state_without_end(has_job=False) is ResultState.AMBIGUOUS


@pytest.mark.parametrize("status", list(JobStatus))
def test_only_a_success_can_lack_its_video(status):
    video = Outcome(media=(Media(url="https://storage.test/v.mp4"),))

    for outcome in [None, Outcome(), Outcome(thumbnail_url="https://storage.test/v.jpg"), video]:
        lacks = status is JobStatus.SUCCESS and outcome is not video
        assert lacks_video(Job(request_id="id-1", status=status, outcome=outcome)) is lacks
