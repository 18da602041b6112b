from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import attrs
import pytest

from kling_async._distributed.outcomes import (
    dump_error,
    dump_outcome,
    is_end_of_job,
    is_in_journal,
    load_error,
    load_outcome,
    parse_error,
    result_of_end,
    result_of_entry,
    result_of_outcome,
)
from kling_async.errors import (
    AmbiguousSubmitError,
    AuthenticationError,
    DownloadError,
    JobCancelledError,
    JobFailedError,
    JournalError,
    KlingError,
    NotFoundError,
    WaitTimeoutError,
)
from kling_async.jobs import Job, JobStatus
from kling_async.journal import Entry, EntryState, Identity
from kling_async.requests import VideoRequest
from kling_async.results import Result, ResultState

REQUEST = VideoRequest("A comet")
UNSENT = Entry(
    number=1,
    identity=Identity(None, "f", 0),
    model="kling-v2-6",
    payload={"prompt": "A comet"},
    state=EntryState.NOT_SUBMITTED,
)
SUBMITTED = attrs.evolve(
    UNSENT, state=EntryState.SUBMITTED, request_id="j1", record={"status": "processing"}, attempts=1
)
MADE = attrs.evolve(
    SUBMITTED,
    state=EntryState.SUCCEEDED,
    record={"status": "success", "outcome": {"video_url": "https://x.example/v.mp4"}},
    cost_usd=Decimal("0.35"),
)
BROKEN = attrs.evolve(
    SUBMITTED, state=EntryState.FAILED, record={"status": "failed", "outcome": {"error": "policy"}}
)
REASON = AuthenticationError("401: the key is wrong.", status_code=401)


def relay(result, entry):
    outcome = json.loads(json.dumps(dump_outcome(result)))
    return result_of_outcome(outcome, entry, index=result.index, request=result.request)


WRITTEN = {"state": "failed", "request_id": "j1", "path": None, "error": dump_error(REASON), "retry": 2}


@pytest.mark.parametrize(
    "change", [{}, {"error": None}, {"retry": None}, {"state": "succeeded", "path": "/v/a.mp4"}]
)
def test_an_outcome_is_read_as_it_was_written(change):
    outcome = {**WRITTEN, **change}
    assert load_outcome(json.dumps(outcome)) == outcome


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "{}",
        "[" * 100_000,
        *(
            json.dumps({**WRITTEN, name: value})
            for name, value in [
                ("state", "done"),
                ("state", []),
                ("request_id", 3),
                ("path", {}),
                ("error", "no"),
                ("error", {}),
                ("error", {"type": [], "message": "no"}),
                ("error", {"type": "KlingError", "message": None}),
                ("retry", "2"),
            ]
        ),
    ],
)
def test_an_outcome_that_another_program_has_changed_is_none(text):
    assert load_outcome(text) is None


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "[" * 100_000, '{"type": 3, "message": "no"}'])
def test_a_reason_that_another_program_has_changed_is_an_error_all_the_same(text):
    assert parse_error(text).message == "another program has changed the reason in the database."


@pytest.mark.parametrize("kind", ["Any", "annotations", "__file__", "NoSuchError"])
def test_an_error_of_a_class_that_this_release_does_not_have_is_a_plain_one(kind):
    error = load_error({"type": kind, "message": "no way", "status_code": 401})
    assert (type(error), error.message, error.status_code) == (KlingError, "no way", 401)


def test_a_success_comes_back_with_its_job_its_file_and_its_cost():
    result = Result(
        index=4,
        request=REQUEST,
        state=ResultState.SUCCEEDED,
        job=MADE.job,
        path=Path("/v/a.mp4"),
        cost_usd=Decimal("0.35"),
    )

    assert relay(result, MADE) == result


@pytest.mark.parametrize(
    "error, state, entry",
    [
        (REASON, ResultState.NOT_SUBMITTED, UNSENT),
        (AmbiguousSubmitError("Unknown.", absent=True), ResultState.AMBIGUOUS, UNSENT),
        (JobFailedError("Failed.", request_id="j1", job=BROKEN.job), ResultState.FAILED, BROKEN),
        (WaitTimeoutError("Late.", request_id="j1", job=SUBMITTED.job), ResultState.TIMED_OUT, SUBMITTED),
        (DownloadError("No disk.", request_id="j1", job=MADE.job), ResultState.SUCCEEDED, MADE),
    ],
)
def test_an_error_comes_back_as_the_same_class_with_its_fields(error, state, entry):
    result = relay(Result(index=0, request=REQUEST, state=state, job=entry.job, error=error), entry)

    assert type(result.error) is type(error)
    assert vars(result.error) == vars(error)
    assert (result.state, result.job) == (state, entry.job)


def test_an_error_of_a_newer_release_is_a_plain_one():
    error = load_error({**dump_error(REASON), "type": "NewError"})

    assert (type(error), error.message, error.status_code) == (KlingError, REASON.message, 401)


@pytest.mark.parametrize(
    "state, error, entry, is_known",
    [
        ("succeeded", None, MADE, True),
        ("succeeded", DownloadError, MADE, True),
        ("succeeded", None, SUBMITTED, False),
        ("failed", JobFailedError, BROKEN, True),
        ("failed", JobFailedError, MADE, False),
        ("cancelled", JobCancelledError, SUBMITTED, False),
        ("failed", JobFailedError, attrs.evolve(BROKEN, state=EntryState.SUBMITTED), True),
        ("failed", JobFailedError, attrs.evolve(BROKEN, state=EntryState.TIMED_OUT), True),
        ("cancelled", JobCancelledError, attrs.evolve(BROKEN, state=EntryState.SUBMITTED), False),
        ("succeeded", None, attrs.evolve(MADE, state=EntryState.SUBMITTED), True),
        ("succeeded", None, attrs.evolve(SUBMITTED, record={"status": "success"}), False),
        ("failed", JobFailedError, attrs.evolve(BROKEN, state=EntryState.INTENDED, request_id=None), False),
        ("not_submitted", KlingError, UNSENT, True),
        ("ambiguous", AmbiguousSubmitError, UNSENT, True),
        ("timed_out", WaitTimeoutError, SUBMITTED, True),
    ],
)
def test_an_end_counts_only_if_the_journal_has_it_too(state, error, entry, is_known):
    assert is_in_journal(outcome_of(state, error), entry) is is_known


@pytest.mark.parametrize("error", [NotFoundError, JournalError, AuthenticationError])
@pytest.mark.parametrize("entry", [SUBMITTED, UNSENT])
def test_a_wait_that_failed_is_no_end_of_a_job(error, entry):
    assert not is_end_of_job(outcome_of("failed", error))
    assert is_in_journal(outcome_of("failed", error), entry)


def outcome_of(state, error):
    return {"state": state, "error": error and dump_error(error("Why."))}


@pytest.mark.parametrize(
    "entry, state, kind",
    [
        (UNSENT, ResultState.NOT_SUBMITTED, AuthenticationError),
        (attrs.evolve(UNSENT, state=EntryState.DROPPED), ResultState.NOT_SUBMITTED, AuthenticationError),
        (attrs.evolve(UNSENT, state=EntryState.INTENDED), ResultState.AMBIGUOUS, AmbiguousSubmitError),
        (SUBMITTED, ResultState.TIMED_OUT, WaitTimeoutError),
        (BROKEN, ResultState.FAILED, JobFailedError),
        (attrs.evolve(BROKEN, state=EntryState.SUBMITTED), ResultState.FAILED, JobFailedError),
        (MADE, ResultState.SUCCEEDED, AuthenticationError),
    ],
)
def test_an_item_that_no_worker_ended_is_reported_as_its_entry_stands(entry, state, kind):
    result = result_of_entry(entry, index=2, request=REQUEST, reason=REASON)

    assert (result.index, result.state, type(result.error)) == (2, state, kind)
    assert "the key is wrong" in result.error.message
    assert result.job == entry.job


ENDS = {
    "success": (ResultState.SUCCEEDED, AuthenticationError),
    "failed": (ResultState.FAILED, JobFailedError),
    "cancelled": (ResultState.CANCELLED, JobCancelledError),
}


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("state", EntryState)
def test_the_record_of_a_job_says_how_it_ended_whatever_the_state_of_its_entry(state, status):
    """A failed job whose resubmit was refused, a POST that is final at once, a worker that died before it wrote the end."""
    entry = attrs.evolve(SUBMITTED, state=state, record={"status": status}, cost_usd=Decimal("0.35"))

    result = result_of_entry(entry, index=2, request=REQUEST, reason=REASON)

    assert (result.state, type(result.error)) == ENDS[status]
    assert "the key is wrong" in result.error.message
    assert (result.job, result.cost_usd) == (entry.job, Decimal("0.35"))


@pytest.mark.parametrize("record", [None, {"status": "processing"}, {"status": "new"}, {"status": 3}])
@pytest.mark.parametrize("state", EntryState)
def test_a_job_whose_record_says_no_end_continues_whatever_the_state_of_its_entry(state, record):
    entry = attrs.evolve(SUBMITTED, state=state, record=record)

    result = result_of_entry(entry, index=2, request=REQUEST, reason=REASON)

    assert (result.state, result.job) == (ResultState.TIMED_OUT, entry.job)
    assert "continues at the service" in result.error.message


def test_an_item_that_an_earlier_run_ended_needs_no_worker():
    made = result_of_end(attrs.evolve(MADE, path="/v/a.mp4"), index=1, request=REQUEST)
    failed = result_of_end(BROKEN, index=2, request=None)

    assert (made.state, made.path, made.cost_usd) == (
        ResultState.SUCCEEDED,
        Path("/v/a.mp4"),
        Decimal("0.35"),
    )
    assert isinstance(made.job, Job)
    assert made.job.status is JobStatus.SUCCESS
    assert (failed.state, failed.path) == (ResultState.FAILED, None)
    assert isinstance(failed.error, JobFailedError)


def test_an_error_of_a_worker_names_no_call_of_the_worker():
    error = KlingError("no room")
    error.call = "stream_many"
    assert str(load_error(dump_error(error))) == "no room"
