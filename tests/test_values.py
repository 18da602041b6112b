from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import attrs
import pytest

from kling_async import catalog
from kling_async._calls import check_options
from kling_async.batch_result import BatchResult
from kling_async.catalog import ModelInfo
from kling_async.errors import (
    AmbiguousSubmitError,
    DownloadError,
    InvalidRequestError,
    JobFailedError,
    KlingError,
)
from kling_async.jobs import Job, JobStatus, Media, Outcome, canonical_id, spellings
from kling_async.lines import quote_value
from kling_async.requests import RequestRow, VideoOptions, VideoRequest
from kling_async.results import Result, ResultState

UUID = "550e8400-e29b-41d4-a716-446655440000"
TOMORROW = "a-model-of-tomorrow"
MODEL = catalog.DEFAULT_MODEL
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
JOB = Job(
    request_id="id",
    status=JobStatus.SUCCESS,
    model="kling-v2-6",
    payload={"prompt": "x"},
    outcome=Outcome(
        media=(Media("https://host/a.mp4", "0"),), thumbnail_url="https://host/a.jpg", raw={"x": 1}
    ),
    created_at=NOON,
    raw={"request_id": "id"},
)
GOOD = Result(index=0, request=VideoRequest("a"), state=ResultState.SUCCEEDED, job=JOB, path=Path("a.mp4"))
BAD = Result(
    index=1,
    request=VideoRequest("b"),
    state=ResultState.FAILED,
    error=JobFailedError("b failed"),
    cost_usd=Decimal("0.35"),
)
LATE = Result(index=2, request=None, state=ResultState.NOT_SUBMITTED)


# What a request takes


@pytest.mark.parametrize(
    "word, sound",
    [
        ("on", True),
        ("off", False),
        ("yes", True),
        ("no", False),
        (" ON ", True),
        ("False", False),
        (True, True),
        ("1", True),
        ("0.0", False),
        (1.0, True),
        (0, False),
    ],
)
def test_sound_is_read_in_every_word_that_the_vendor_uses(word, sound):
    assert VideoRequest("x", sound=word).sound is sound


@pytest.mark.parametrize("written", [5, "5", " 5 ", 5.0, "5.0", "5,0", Decimal(5)], ids=repr)
def test_a_duration_is_whole_seconds_however_it_was_written(written):
    request = VideoRequest("x", duration=written)
    assert (request.duration, type(request.duration)) == (5, int)


@pytest.mark.parametrize(
    "written", [5.5, "5.5", "-5", "five", True, float("inf"), "inf", "1,000", "9" * 12], ids=repr
)
def test_a_duration_that_is_no_whole_number_of_seconds_is_refused(written):
    with pytest.raises(InvalidRequestError, match="duration must be 5 or 10, not"):
        VideoRequest("x", model=MODEL, duration=written)


@pytest.mark.parametrize(
    "written, scale", [(0, 0), ("0.5", 0.5), (" 1 ", 1.0), ("0,5", 0.5), (Decimal("0.5"), 0.5)], ids=repr
)
def test_a_cfg_scale_is_a_number_also_when_it_came_as_text(written, scale):
    assert VideoRequest("x", cfg_scale=written).cfg_scale == scale


@pytest.mark.parametrize("written", ["nan", "inf", "a lot", "1e999", True, "2"], ids=repr)
def test_a_cfg_scale_outside_its_range_is_refused(written):
    with pytest.raises(InvalidRequestError, match="cfg_scale must be"):
        VideoRequest("x", model=MODEL, cfg_scale=written)


def test_every_broken_rule_stands_in_one_error_that_is_a_value_error_too():
    with pytest.raises(ValueError, match=r"^kling-v2-6: ") as caught:
        VideoRequest("", model=MODEL, duration=7, mode="std", resolution="4k", extra={1: 2}, key=3)
    assert isinstance(caught.value, InvalidRequestError)
    for word in ("extra", "key", "prompt", "duration", "mode", "resolution"):
        assert word in caught.value.message


@pytest.mark.parametrize(
    "fields, rule",
    [
        ({"model": 5}, "model must be text, not 5"),
        ({"model": ["kling-v2-6"]}, "model must be text, not"),
        ({"model": "\ud800"}, "model is not valid Unicode"),
        ({"model": "Kling-V2-6"}, "model must be 'kling-v2-6' in this case of its letters, not 'Kling-V2-6'"),
        ({"key": b"7"}, "key must be text, not b'7'"),
        ({"key": "\ud800"}, "key is not valid Unicode"),
        ({"extra": [1]}, r"extra must be a mapping with text keys, not \[1\]"),
        ({"extra": {1: 2}}, "extra must be a mapping with text keys"),
        ({"extra": {"a": float("nan")}}, "extra must hold plain JSON values"),
        pytest.param({"extra": {"a": object()}}, "extra must hold plain JSON values", id="extra-object"),
        ({"extra": {"a": "\ud800"}}, "extra must hold plain JSON values"),
        ({"extra": {"a": 10**5000}}, "extra must hold plain JSON values"),
        ({"extra": "{seed"}, "extra is not JSON: '{seed'"),
        ({"extra": "7"}, "extra must be a mapping with text keys, not 7"),
        ({"model": TOMORROW, "cfg_scale": float("inf")}, "cfg_scale must hold plain JSON values"),
        ({"model": TOMORROW, "cfg_scale": "a lot"}, "cfg_scale must be a number, not 'a lot'"),
        ({"model": TOMORROW, "duration": True}, "duration must be a number, not True"),
        ({"model": TOMORROW, "sound": "loud"}, "sound must be True or False, not 'loud'"),
        ({"model": TOMORROW, "sound": 2}, "sound must be True or False, not 2"),
        ({"model": TOMORROW, "image": 5}, "image must be a URL, a data URI or a path, not 5"),
    ],
    ids=quote_value,
)
def test_what_no_model_takes_is_refused(fields, rule):
    with pytest.raises(InvalidRequestError, match=rule):
        VideoRequest("x", **fields)


def test_a_knotted_extra_is_refused():
    knot = {}
    knot["knot"] = knot
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for extra in (knot, {"deep": deep}):
        with pytest.raises(InvalidRequestError, match="extra must hold plain JSON values"):
            VideoRequest("x", extra=extra)


def test_any_mapping_is_taken_for_extra_and_kept_as_a_copy():
    shared = {"seed": 7}
    request = VideoRequest("x", extra=MappingProxyType(shared))
    shared["seed"] = 8
    assert request.extra == {"seed": 7}


def test_a_model_of_tomorrow_passes_unchecked():
    request = VideoRequest("", model=TOMORROW, duration=60, mode="ultra", resolution="8k", image="a.webp")
    assert request.duration == 60


@pytest.mark.parametrize("nothing", ["", " \u00a0", float("nan"), Decimal("nan"), None], ids=repr)
@pytest.mark.parametrize("field", [field.name for field in attrs.fields(VideoRequest)[1:]])
def test_a_gap_of_a_table_is_a_field_that_is_not_given(field, nothing):
    assert VideoRequest("x", **{field: nothing}) == VideoRequest("x")


@pytest.mark.parametrize("field", ["model", "mode", "aspect_ratio", "resolution"])
def test_white_space_around_a_word_does_not_count(field):
    assert getattr(VideoRequest("x", **{"model": TOMORROW, field: " pro\n"}), field) == "pro"


@pytest.mark.parametrize("written, key", [(7, "7"), (7.0, "7"), ("8", "8"), (" 07", " 07")])
def test_a_key_can_be_a_whole_number(written, key):
    assert VideoRequest("x", key=written).key == key


@pytest.mark.parametrize("key", [7.5, True, 2.0**60, float("inf")], ids=repr)
def test_a_key_that_may_not_be_unique_as_text_is_refused(key):
    with pytest.raises(InvalidRequestError, match="key must be text, not"):
        VideoRequest("x", key=key)


def test_extra_can_be_the_text_of_its_json():
    assert VideoRequest("x", extra='{"seed": 7}').extra == {"seed": 7}


# What a request is


def test_a_request_is_frozen_hashable_and_survives_pickle():
    request = VideoRequest("x", image=Path("a.png"), extra={"seed": 7}, key="k")
    assert pickle.loads(pickle.dumps(request)) == request  # noqa: S301 - our own bytes
    assert len({request, attrs.evolve(request)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.duration = 10


def test_requests_that_differ_only_in_extra_are_different():
    assert VideoRequest("x", extra={"seed": 7}) != VideoRequest("x", extra={"seed": 8})


def test_everything_but_the_prompt_goes_by_name():
    with pytest.raises(TypeError):
        VideoRequest("x", "kling-v2-6")


def test_every_field_but_those_of_one_item_is_an_option():
    fields = {field.name for field in attrs.fields(VideoRequest)}
    assert set(VideoOptions.__annotations__) == fields - {"prompt", "key", "labels"}


def test_a_row_has_every_field():
    assert set(RequestRow.__annotations__) == {field.name for field in attrs.fields(VideoRequest)}


@pytest.mark.parametrize(
    "value", [JOB, GOOD, LATE, BatchResult((GOOD, LATE)), ModelInfo(id="m", raw={"a": [1]})]
)
def test_every_value_is_frozen_hashable_and_survives_pickle(value):
    made = pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes
    assert made == value
    assert hash(made) == hash(value)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(type(value))[0].name, None)


# Options


def test_an_unknown_option_is_a_type_error_that_lists_the_known_ones():
    with pytest.raises(
        TypeError, match=r"^submit\(\) has no option 'colour'; its options are .*duration.*sound\.$"
    ):
        check_options({"duration": 5, "colour": 5}, VideoOptions.__annotations__, call="submit")


def test_an_unknown_option_is_answered_with_the_nearest_one():
    with pytest.raises(TypeError, match="no option 'durations'; did you mean 'duration'"):
        check_options({"durations": 5}, VideoOptions.__annotations__, call="submit")


def test_known_options_pass():
    check_options({"duration": 5, "sound": None, "extra": {}}, VideoOptions.__annotations__, call="submit")


@pytest.mark.parametrize("name", ["prompt", "key", "labels"])
def test_what_is_said_once_for_an_item_is_no_option(name):
    with pytest.raises(TypeError):
        check_options({name: "x"}, VideoOptions.__annotations__, call="generate")


# Jobs and results


@pytest.mark.parametrize("status", JobStatus)
def test_only_success_failed_and_cancelled_are_final(status):
    is_final = status in {JobStatus.SUCCESS, JobStatus.FAILED, JobStatus.CANCELLED}
    job = Job(request_id="id", status=status)
    assert (status.is_final, job.is_final) == (is_final, is_final)
    assert job.is_success is (status is JobStatus.SUCCESS)


def test_ids_are_compared_exactly_unless_they_are_uuids():
    assert canonical_id(UUID.upper()) == canonical_id(UUID.title()) == UUID
    for other in ("JOB-A", "Ünit", UUID.upper() + "0", UUID[1:], "JOB A ", "{job}"):
        assert canonical_id(other) == other


@pytest.mark.parametrize("form", ["{}", "{{{}}}", "urn:uuid:{}", " {}\n", "\u00a0{}"])
@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_each_spelling_of_a_uuid_is_one_id(form, change):
    assert canonical_id(form.format(change(UUID))) == UUID
    assert canonical_id(form.format(change(UUID.replace("-", "")))) == UUID


def test_the_usual_spellings_of_a_uuid_are_looked_for():
    plain = UUID.replace("-", "")
    usual = {UUID, plain, f"{{{UUID}}}"}
    assert spellings(UUID.title()) == {UUID.title(), *usual, *map(str.upper, usual)}
    assert spellings("JOB-A") == {"JOB-A"}


def test_a_job_shows_the_addresses_of_its_outcome():
    assert (JOB.video_url, JOB.thumbnail_url) == ("https://host/a.mp4", "https://host/a.jpg")


@pytest.mark.parametrize("outcome", [None, Outcome()])
def test_a_job_without_an_outcome_has_no_addresses(outcome):
    job = Job(request_id="id", status=JobStatus.QUEUED, outcome=outcome)
    assert (job.video_url, job.thumbnail_url, job.failure_reason) == (None, None, None)


@pytest.mark.parametrize(
    "status, reason",
    [
        (JobStatus.FAILED, "because"),
        (JobStatus.CANCELLED, "because"),
        (JobStatus.SUCCESS, None),
        (JobStatus.UNKNOWN, None),
    ],
)
def test_only_a_job_that_ended_badly_has_a_reason(status, reason):
    assert Job(request_id="id", status=status, outcome=Outcome(error="because")).failure_reason == reason


def test_what_a_repr_shows_fits_a_line_and_leaves_the_record_out():
    assert "raw" not in repr(JOB)
    assert "payload" not in repr(JOB)


def test_job_or_raise_gives_the_job_or_raises_the_error_of_the_result():
    assert GOOD.job_or_raise() is JOB
    with pytest.raises(JobFailedError, match="b failed"):
        BAD.job_or_raise()
    with pytest.raises(KlingError, match="Item 2 has no job: not_submitted"):
        LATE.job_or_raise()


def test_a_success_whose_file_was_not_saved_is_still_a_success():
    result = attrs.evolve(GOOD, path=None, error=KlingError("disk full"))
    assert result.ok
    assert result.job_or_raise() is JOB


def test_a_batch_is_a_sequence_of_its_results_in_input_order():
    batch = BatchResult((GOOD, BAD, LATE))
    assert (len(batch), batch[0], batch[-1], batch[1:]) == (3, GOOD, LATE, (BAD, LATE))
    assert list(batch) == [GOOD, BAD, LATE]
    assert BAD in batch
    assert (batch.succeeded, batch.failed) == ((GOOD,), (BAD, LATE))
    assert batch.paths == (Path("a.mp4"),)
    assert repr(batch) == "<BatchResult: 1 of 3 succeeded>"


def test_an_unknown_cost_is_none_and_not_free():
    assert BatchResult((GOOD, LATE)).cost_usd is None
    assert BatchResult((GOOD, BAD)).cost_usd == Decimal("0.35")


def test_failures_are_raised_together_and_only_when_asked_for():
    BatchResult((GOOD,)).raise_for_failures()
    with pytest.raises(ExceptionGroup, match="2 of 3 videos were not made") as caught:
        BatchResult((GOOD, BAD, LATE)).raise_for_failures()
    assert [str(error) for error in caught.value.exceptions] == ["b failed", "Item 2: not_submitted."]


# Values as plain JSON

DONE = Job(
    request_id="r1",
    model="kling-v2-6",
    status=JobStatus.SUCCESS,
    payload={"prompt": "a cat"},
    outcome=Outcome(media=(Media("https://example.com/v.mp4"),), thumbnail_url="https://example.com/t.jpg"),
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


def test_a_job_is_a_flat_record_with_none_for_what_is_not_known():
    assert DONE.to_dict() == {
        "request_id": "r1",
        "model": "kling-v2-6",
        "status": "success",
        "prompt": "a cat",
        "video_url": "https://example.com/v.mp4",
        "thumbnail_url": "https://example.com/t.jpg",
        "failure_reason": None,
        "created_at": "2026-01-02T03:04:05+00:00",
        "queued_at": None,
        "updated_at": None,
    }


def test_an_echoed_prompt_that_is_no_text_is_left_out_of_a_record():
    assert attrs.evolve(DONE, payload={"prompt": [{"text": float("nan")}]}).to_dict()["prompt"] is None


def test_a_result_is_a_flat_record_of_its_request_job_and_error():
    result = Result(
        index=3,
        request=VideoRequest("a cat", model="kling-v2-6", duration=5, sound=True, key="mine"),
        state=ResultState.SUCCEEDED,
        job=DONE,
        error=DownloadError("disk full"),
        path=Path("videos/a.mp4"),
        cost_usd=Decimal("0.35"),
    )
    assert result.to_dict() == {
        "index": 3,
        "key": "mine",
        "prompt": "a cat",
        "model": "kling-v2-6",
        "duration": 5,
        "sound": True,
        "state": "succeeded",
        "request_id": "r1",
        "video_url": "https://example.com/v.mp4",
        "thumbnail_url": "https://example.com/t.jpg",
        "created_at": "2026-01-02T03:04:05+00:00",
        "updated_at": None,
        "path": "videos/a.mp4",
        "cost_usd": 0.35,
        "error": "disk full",
        "error_type": "DownloadError",
    }


def test_a_result_as_a_record_has_the_labels_of_its_request():
    request = VideoRequest("x", labels={"concept": "sky", "state": "mine"})
    record = Result(index=0, request=request, state=ResultState.NOT_SUBMITTED).to_dict()
    assert (record["label_concept"], record["label_state"], record["state"]) == (
        "sky",
        "mine",
        "not_submitted",
    )


def test_a_result_without_a_job_has_the_id_that_its_error_knows():
    error = AmbiguousSubmitError("who knows", request_id="r9")
    lost = Result(index=0, request=None, state=ResultState.AMBIGUOUS, error=error).to_dict()
    assert (lost["request_id"], lost["prompt"], lost["error_type"]) == ("r9", None, "AmbiguousSubmitError")
    bare = Result(index=0, request=None, state=ResultState.NOT_SUBMITTED).to_dict()
    assert (bare["request_id"], bare["error"]) == (None, None)


def test_the_records_of_a_batch_have_the_same_keys_and_are_json():
    records = BatchResult((GOOD, BAD, LATE)).to_records()
    assert [record["index"] for record in records] == [GOOD.index, BAD.index, LATE.index]
    assert len({tuple(record) for record in records}) == 1
    assert json.loads(json.dumps(records, allow_nan=False)) == records
