from __future__ import annotations

import copy
import inspect
import pickle

import attrs
import pytest

import kling_async
from kling_async import errors
from kling_async.errors import (
    AmbiguousSubmitError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BatchInterruptedError,
    BudgetExceededError,
    CertificateError,
    ClientClosedError,
    ConfigurationError,
    DownloadError,
    InsufficientCreditsError,
    InternalServerError,
    InvalidRequestError,
    JobCancelledError,
    JobError,
    JobFailedError,
    JournalError,
    KlingError,
    NotFoundError,
    PermissionDeniedError,
    ProxyError,
    RateLimitError,
    WaitTimeoutError,
)
from kling_async.jobs import Job, JobStatus, Media, Outcome

TREE = {
    KlingError: (Exception,),
    ConfigurationError: (KlingError,),
    InvalidRequestError: (KlingError, ValueError),
    APIConnectionError: (KlingError,),
    APITimeoutError: (APIConnectionError,),
    CertificateError: (APIConnectionError,),
    ProxyError: (APIConnectionError,),
    ClientClosedError: (APIConnectionError,),
    APIStatusError: (KlingError,),
    BadRequestError: (APIStatusError,),
    AuthenticationError: (APIStatusError,),
    InsufficientCreditsError: (APIStatusError,),
    PermissionDeniedError: (APIStatusError,),
    NotFoundError: (APIStatusError,),
    RateLimitError: (APIStatusError,),
    InternalServerError: (APIStatusError,),
    APIResponseError: (KlingError,),
    AmbiguousSubmitError: (KlingError,),
    JobError: (KlingError,),
    JobFailedError: (JobError,),
    JobCancelledError: (JobError,),
    WaitTimeoutError: (KlingError, TimeoutError),
    DownloadError: (KlingError,),
    BudgetExceededError: (KlingError,),
    JournalError: (KlingError,),
    BatchInterruptedError: (KlingError,),
}
JOB = Job(
    request_id="412767a6-0000-4000-8000-000000000000",
    status=JobStatus.FAILED,
    payload={"prompt": "x"},
    outcome=Outcome(media=(Media("https://host/a.mp4"),), error="rejected", raw={"error": "rejected"}),
    raw={"status": "failed"},
)
FIELDS = {
    "request_id": "id",
    "status_code": 429,
    "body": "slow down",
    "retry_after": 2.5,
    "job": JOB,
    "advice": "wait",
}


@pytest.mark.parametrize("kind", TREE)
def test_each_error_has_its_place_in_the_tree(kind):
    assert kind.__bases__ == TREE[kind]


def test_the_tree_has_every_error_and_all_of_them_are_at_the_top():
    defined = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert defined == set(TREE)
    assert all(getattr(kling_async, kind.__name__) is kind for kind in TREE)


def pickle_again(error):
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes


@pytest.mark.parametrize("remake", [pickle_again, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", TREE)
def test_each_error_survives_pickle_and_copy_with_all_its_fields(kind, remake):
    error = kind("submit: what happened.")
    vars(error).update(FIELDS)
    error.add_note("seen in a batch")
    made = remake(error)
    assert type(made) is kind
    assert vars(made) == vars(error)
    assert str(made) == "submit: what happened. wait"
    assert made.message == "submit: what happened."
    assert made.__notes__ == ["seen in a batch"]


def test_a_group_of_errors_survives_pickle():
    group = ExceptionGroup("2 of 2", [JobFailedError("a", job=JOB), APIConnectionError("b", was_sent=False)])
    made = pickle_again(group)
    assert [str(error) for error in made.exceptions] == ["a", "b"]
    assert made.exceptions[0].job == JOB
    assert made.exceptions[1].was_sent is False


@pytest.mark.parametrize("name", FIELDS)
def test_an_error_carries_what_is_known_and_none_for_the_rest(name):
    error = KlingError("x", **{name: FIELDS[name]})
    assert {field: getattr(error, field) for field in FIELDS} == {**dict.fromkeys(FIELDS), name: FIELDS[name]}


def test_a_lost_connection_counts_as_sent_unless_it_is_known_not_to_be():
    assert APIConnectionError("reset").was_sent is True
    assert APITimeoutError("refused", was_sent=False).was_sent is False


def test_the_text_names_the_call_once_and_ends_with_the_advice():
    error = KlingError("Job a failed.", advice="Try again.")
    assert str(error) == "Job a failed. Try again."
    error.call = "wait"
    assert str(error) == "wait(): Job a failed. Try again."
    named = KlingError("wait() was interrupted.")
    named.call = "wait"
    assert str(named) == "wait() was interrupted."


def test_the_repr_names_the_error_and_its_message():
    assert repr(RateLimitError("submit: too fast.", status_code=429)) == "RateLimitError('submit: too fast.')"


def test_a_record_within_an_error_is_a_frozen_value():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        JobFailedError("x", job=JOB).job.status = JobStatus.SUCCESS
