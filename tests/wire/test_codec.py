from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._wire.codec import (
    failure_text,
    structure_job,
    structure_model,
    structure_model_ids,
    structure_page,
    structure_upload,
)
from kling_async._wire.json_reader import ShapeError, load_json
from kling_async.catalog import ModelInfo
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.lines import quote_value

REPLIES = Path(__file__).parent / "replies"
ID = "412767a6-5a1c-4c52-9f0a-2b7f3f0e6d11"
STORAGE = "https://storage.googleapis.com/gmi-video-assests-prod/user-assets/org-1/"
VIDEO, PICTURE = f"{STORAGE}eagle.mp4", f"{STORAGE}eagle.jpg"

RECORDS = {
    # file: status, address of the video, of the thumbnail, reason
    "submit-minimal": (JobStatus.DISPATCHED, None, None, None),
    "submit-other-model": (JobStatus.QUEUED, None, None, None),
    "submit-final": (JobStatus.SUCCESS, VIDEO, PICTURE, None),
    "submit-final-bare": (JobStatus.SUCCESS, None, None, None),
    "submit-failed": (
        JobStatus.FAILED,
        None,
        None,
        "seed must be in [0,2147483647] (code: InvalidParameter)",
    ),
    "status-created": (JobStatus.CREATED, None, None, None),
    "status-queued": (JobStatus.QUEUED, None, None, None),
    "status-dispatched": (JobStatus.DISPATCHED, None, None, None),
    "status-processing": (JobStatus.PROCESSING, None, None, None),
    "status-unknown-word": (JobStatus.UNKNOWN, None, None, None),
    "status-upper-case": (JobStatus.SUCCESS, VIDEO, None, None),
    "status-cancelled": (JobStatus.CANCELLED, None, None, None),
    "status-canceled": (JobStatus.CANCELLED, None, None, "cancelled by the operator"),
    "outcome-video-url": (JobStatus.SUCCESS, VIDEO, PICTURE, None),
    "outcome-thumbnail-is-video": (JobStatus.SUCCESS, VIDEO, VIDEO, None),
    "outcome-media-urls": (JobStatus.SUCCESS, VIDEO, None, None),
    "outcome-media-strings": (JobStatus.SUCCESS, VIDEO, None, None),
    "outcome-both": (JobStatus.SUCCESS, VIDEO, None, None),
    "outcome-inner-status": (JobStatus.SUCCESS, None, None, None),
    "outcome-empty": (JobStatus.SUCCESS, None, None, None),
    "failed-text": (JobStatus.FAILED, None, None, "Music generation failed: rate limit exceeded(RPM)"),
    "failed-object": (
        JobStatus.FAILED,
        None,
        None,
        "Generation rejected; please review the prompt and parameters then retry",
    ),
    "failed-top-text": (JobStatus.FAILED, None, None, "Failed to download media"),
    "failed-top-object": (JobStatus.FAILED, None, None, "Backend request failed with status 400"),
    "failed-error-message": (JobStatus.FAILED, None, None, "out of memory"),
    "failed-reason": (JobStatus.FAILED, None, None, "moderated"),
    "failed-outcome-message": (JobStatus.FAILED, None, None, "no worker"),
    "failed-fail-reason": (
        JobStatus.FAILED,
        None,
        None,
        "OutputAudioSensitiveContentDetected.PolicyViolation",
    ),
    "failed-outcome-text": (JobStatus.FAILED, None, None, "Generation rejected"),
    "failed-silent": (JobStatus.FAILED, None, None, None),
    "times-zero": (JobStatus.QUEUED, None, None, None),
    "times-null": (JobStatus.QUEUED, None, None, None),
    "times-missing": (JobStatus.QUEUED, None, None, None),
    "payload-empty": (JobStatus.PROCESSING, None, None, None),
    "keys-extra": (JobStatus.PROCESSING, None, None, None),
}
PAGES = {
    # file: ids, rows, has_more
    "list": (2, 2, None),
    "list-paged": (2, 2, True),
    "list-last": (1, 1, False),
    "list-empty": (0, 0, None),
    "list-bare": (2, 2, None),
    "list-data": (2, 2, None),
    "list-items": (2, 2, None),
    "list-broken-rows": (1, 5, None),
}


def read_reply(name):
    return load_json((REPLIES / f"{name}.json").read_bytes())


def record(**fields):
    return {"request_id": ID, "status": "queued", **fields}


# Every recorded shape


def test_every_recorded_shape_is_named_with_its_source():
    index = (REPLIES / "README.md").read_text()
    files = {path.name for path in REPLIES.iterdir()} - {"README.md"}
    assert {name for name in files if f"| `{name}` |" not in index} == set()
    assert index.count("\n| `") == len(files)


@pytest.mark.parametrize("name", RECORDS)
def test_each_recorded_record_is_read(name):
    raw = read_reply(name)
    job = structure_job(raw)
    assert (job.status, job.video_url, job.thumbnail_url, job.failure_reason) == RECORDS[name]
    assert job.request_id == ID
    assert job.raw == raw


@pytest.mark.parametrize("name", PAGES)
def test_each_recorded_list_is_read(name):
    page = structure_page(read_reply(name))
    jobs, rows, has_more = PAGES[name]
    assert (len(page.jobs), page.rows, page.has_more) == (jobs, rows, has_more)
    assert all(job.request_id for job in page.jobs)


def test_a_whole_record_is_read_field_by_field():
    assert structure_job(read_reply("submit-final")) == Job(
        request_id=ID,
        status=JobStatus.SUCCESS,
        model="kling-v2-6",
        payload={"prompt": "A majestic eagle at sunset", "duration": "5", "sound": "on"},
        outcome=Outcome(
            media=(Media(VIDEO, "0"),), thumbnail_url=PICTURE, raw=read_reply("submit-final")["outcome"]
        ),
        created_at=datetime(2026, 9, 5, 6, 2, 25, tzinfo=UTC),
        queued_at=datetime(2026, 9, 5, 6, 2, 25, tzinfo=UTC),
        updated_at=datetime(2026, 9, 5, 6, 2, 39, tzinfo=UTC),
        organization_id="org-1",
        user_id="user-1",
        raw=read_reply("submit-final"),
    )


@pytest.mark.parametrize("name", ["times-zero", "times-null", "times-missing"])
def test_a_missing_time_is_none(name):
    job = structure_job(read_reply(name))
    assert (job.created_at, job.queued_at, job.updated_at) == (None, None, None)


def test_an_empty_payload_and_unknown_keys_stay_as_they_are():
    assert structure_job(read_reply("payload-empty")).payload == {}
    assert structure_job(read_reply("keys-extra")).raw["eta"] == {"seconds": 40}
    assert structure_job(read_reply("status-dispatched")).raw["qworker_id"] == "qw-17"


def test_an_unknown_status_is_not_final_and_stays_in_raw():
    job = structure_job(read_reply("status-unknown-word"))
    assert not job.is_final
    assert job.raw["status"] == "finished"


def test_several_files_are_kept_in_their_order():
    job = structure_job(read_reply("outcome-media-strings"))
    assert [media.url for media in job.outcome.media] == [
        VIDEO,
        "https://storage.googleapis.com/b/second.mp4",
    ]


def test_model_ids_are_unique_in_the_order_of_the_reply():
    assert structure_model_ids(read_reply("models")) == [
        "Kling-Image2Video-V2.1-Master",
        "Veo3",
        "kling-v2-6",
    ]


def test_a_model_is_read_with_its_price_in_dollars():
    info = structure_model(read_reply("model"), model_id="ignored")
    assert (info.id, info.kind, info.price) == ("kling-v2-6", "video", Decimal("0.231"))
    assert [entry["name"] for entry in info.parameters] == ["prompt", "duration"]
    assert info.raw["pricing_details"].startswith("480P")


def test_missing_fields_of_a_model_are_none_and_its_price_is_not_zero():
    raw = read_reply("model-bare")
    assert structure_model(raw, model_id="asked-for") == ModelInfo(id="asked-for", raw=raw)


def test_an_upload_ticket_is_read():
    ticket = structure_upload(read_reply("upload"))
    assert ticket.upload_url.startswith("https://storage.googleapis.com/b/in.png?X-Goog-Expires=899")
    assert ticket.public_url == "https://storage.googleapis.com/b/in.png"


# What is not promised


@pytest.mark.parametrize("word", ["Queued", " QUEUED\n", "queued"])
def test_a_status_is_read_in_any_case(word):
    assert structure_job(record(status=word)).status is JobStatus.QUEUED


@pytest.mark.parametrize("word", ["unknown", "", "succeeded", "x" * 1_000_000], ids=quote_value)
def test_any_other_word_is_an_unknown_status(word):
    assert structure_job(record(status=word)).status is JobStatus.UNKNOWN


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "queued",
        {},
        {"status": "queued"},
        {"request_id": ID},
        {"request_id": "", "status": "queued"},
        {"request_id": " ", "status": "queued"},
        {"request_id": 7, "status": "queued"},
        {"request_id": None, "status": "queued"},
        {"request_id": ID, "status": None},
        {"request_id": ID, "status": 1},
        {"data": {"request_id": ID, "status": "queued"}},
    ],
)
def test_a_record_needs_an_id_and_a_status(value):
    with pytest.raises(ShapeError, match="record"):
        structure_job(value)


def test_the_error_of_a_refused_record_holds_the_record_so_that_its_id_can_be_saved():
    with pytest.raises(ShapeError) as caught:
        structure_job({"request_id": ID})
    assert caught.value.value == {"request_id": ID}


def test_any_other_field_of_a_wrong_type_reads_as_absent():
    odd = {
        "model": {},
        "payload": "x",
        "created_at": "now",
        "queued_at": True,
        "updated_at": [],
    }
    assert structure_job(record(**odd)) == Job(request_id=ID, status=JobStatus.QUEUED, raw=record(**odd))


@pytest.mark.parametrize(
    "value, read",
    [
        (None, None),
        ("", ""),
        ("7", "7"),
        (7, "7"),
        (7.0, "?"),
        (0, "0"),
        (10**30, str(10**30)),
        (True, "?"),
        ([], "?"),
        (["u2"], "?"),
        ({"id": "u2"}, "?"),
    ],
    ids=quote_value,
)
def test_a_user_who_is_named_by_a_value_of_any_type_is_named(value, read):
    job = structure_job(record(user_id=value, org_id=value))
    assert (job.user_id, job.organization_id) == (read, read)


@pytest.mark.parametrize(
    "time",
    [-1, 0, False, True, "1788588145", 1e300, 10**400, math.nan, math.inf, 1788588145000],
    ids=quote_value,
)
def test_an_invalid_time_reads_as_none(time):
    assert structure_job(record(created_at=time)).created_at is None


def test_a_fraction_of_a_second_is_kept():
    assert structure_job(record(created_at=1.5)).created_at == datetime(
        1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "outcome, urls",
    [
        ({"media_urls": [{"id": 0, "url": "a"}, {"url": None}, {"id": "1"}, None, 7, "", "b"]}, ["a", "b"]),
        ({"media_urls": [], "video_url": "a"}, ["a"]),
        ({"media_urls": None, "video_url": "a"}, ["a"]),
        ({"media_urls": "a"}, []),
        ({"media_urls": {"url": "a"}}, []),
        ({"video_url": ["a"]}, []),
        ({"video_url": ""}, []),
        ({"thumbnail_image_url": "a", "image_url": "b", "url": "c"}, []),
    ],
)
def test_a_video_is_read_by_name_only(outcome, urls):
    job = structure_job(record(status="success", outcome=outcome))
    assert [media.url for media in job.outcome.media] == urls


@pytest.mark.parametrize("outcome", [None, [], "text", 7, True])
def test_an_outcome_that_is_not_an_object_is_no_outcome(outcome):
    assert structure_job(record(status="processing", outcome=outcome)).outcome is None


def test_the_status_within_an_outcome_decides_nothing():
    outcome = {"status": "failed", "video_url": "a", "error": "a warning"}
    job = structure_job(record(status="success", outcome=outcome))
    assert (job.is_success, job.outcome.error, job.failure_reason) == (True, "a warning", None)


def test_the_most_reliable_place_of_a_reason_wins():
    places = [("outcome", {"error": "1"}), ("error", "2"), ("error_message", "3"), ("reason", "4")]
    for kept in range(len(places)):
        fields = dict(places[kept:])
        assert structure_job(record(status="failed", **fields)).failure_reason == str(kept + 1)


@pytest.mark.parametrize(
    "error, text",
    [
        (
            " because\r\n\x1b[31m of\x00this ",
            "because \N{REPLACEMENT CHARACTER}[31m of\N{REPLACEMENT CHARACTER}this",
        ),
        ({"message": "", "code": "InvalidParameter"}, "InvalidParameter"),
        ({"error": {"error": {"detail": "deep"}}}, "deep"),
        ({"code": 1303}, None),
        ({}, None),
        ([{"message": "x"}], None),
        ("", None),
        (None, None),
    ],
)
def test_a_reason_is_one_line_of_the_services_words(error, text):
    assert failure_text(error) == text


def test_a_reason_that_is_nested_too_deep_is_no_reason():
    knot = {}
    knot["error"] = knot
    assert failure_text(knot) is None


@pytest.mark.parametrize(
    "value", [None, True, 7, "text", {}, {"requests": 7}, {"requests": {}}, {"requests": ""}, {"total": 0}]
)
def test_a_list_needs_its_rows(value):
    with pytest.raises(ShapeError, match=r"the contract promises .*a list of requests"):
        structure_page(value)


@pytest.mark.parametrize("has_more", [None, 0, 1, "true", [True]])
def test_only_a_plain_yes_or_no_says_whether_there_is_more(has_more):
    assert structure_page({"requests": [], "has_more": has_more}).has_more is None


@pytest.mark.parametrize(
    "value", [None, [], {}, {"model_ids": None}, {"model_ids": {"a": 1}}, {"models": []}]
)
def test_the_models_need_their_ids(value):
    with pytest.raises(ShapeError, match=r"the contract promises .*model_ids"):
        structure_model_ids(value)


def test_invalid_model_ids_are_left_out():
    assert structure_model_ids({"model_ids": [None, 7, {"id": "a"}, "b"]}) == ["b"]


@pytest.mark.parametrize("value", [None, [], "kling-v2-6"])
def test_a_model_is_an_object(value):
    with pytest.raises(ShapeError, match="the contract promises an object, not"):
        structure_model(value, model_id="x")


@pytest.mark.parametrize(
    "price_info", [None, 7, {}, {"price": True}, {"price": "231000"}, {"price": 0.5}, {"price": -1}]
)
def test_a_price_that_is_not_a_whole_number_of_micro_dollars_is_unknown(price_info):
    assert structure_model({"price_info": price_info}, model_id="x").price is None


@pytest.mark.parametrize("parameters", [None, {}, "text", [1, "a", None]])
def test_parameters_that_are_not_objects_are_left_out(parameters):
    assert structure_model({"parameters": parameters}, model_id="x").parameters == ()


@pytest.mark.parametrize(
    "value", [None, [], {}, {"upload_url": "a"}, {"public_url": "a"}, {"upload_url": "", "public_url": "a"}]
)
def test_an_upload_needs_both_addresses(value):
    with pytest.raises(ShapeError):
        structure_upload(value)


@pytest.mark.parametrize("text", ["x" * 2**20, "\u202e" * 2**20, "\n x" * 2**20], ids=ascii)
@pytest.mark.parametrize("place", ["error", "message"])
def test_of_a_reason_of_a_megabyte_the_beginning_is_shown_and_the_record_keeps_all(text, place):
    job = structure_job(record(outcome={place: text}, status="failed"))
    assert len(job.failure_reason) <= 5001
    assert job.failure_reason.endswith("…")
    assert job.outcome.raw[place] == text


def test_a_reason_is_shown_to_its_end_if_that_is_near_and_behind_any_white_space():
    for text in ("x" * 5000, "\n" * 10_000 + "x" * 5000):
        assert structure_job(record(outcome={"error": text}, status="failed")).failure_reason == "x" * 5000


KEYS = [
    *read_reply("submit-final"),
    *(
        "error",
        "error_message",
        "reason",
        "message",
        "thumbnail_image_url",
        "media_urls",
        "video_url",
        "url",
        "id",
    ),
    *(
        "requests",
        "data",
        "has_more",
        "model_ids",
        "parameters",
        "price_info",
        "price",
        "upload_url",
        "public_url",
    ),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.just(10**4000),
    st.just("success"),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=6,
)


def read_or_refused(value):
    for structure in (structure_job, structure_page, structure_model_ids, structure_upload):
        try:
            made = structure(value)
        except ShapeError:
            continue
        assert isinstance(made, list) or isinstance(hash(made), int)
    if isinstance(value, dict):
        assert isinstance(structure_model(value, model_id="x"), ModelInfo)


@pytest.mark.unmeasured
@pytest.mark.parametrize("key", KEYS)
def test_any_kind_of_value_at_any_key_is_read_or_refused(key):
    for value in (
        None,
        True,
        0,
        -1,
        0.5,
        math.nan,
        math.inf,
        10**4000,
        "",
        "x",
        [],
        [None],
        {},
        {"url": 1},
        {"": {}},
    ):
        for whole in (
            record(),
            read_reply("submit-final"),
            read_reply("failed-object"),
            read_reply("model"),
            read_reply("list"),
        ):
            read_or_refused({**whole, key: value})
            read_or_refused(record(status="failed", outcome={key: value}))
            read_or_refused({"requests": [{**whole, key: value}], key: value})


@given(value=JSON, key=st.sampled_from(KEYS))
def test_any_value_whatever_it_is_nested_in_is_read_or_refused(value, key):
    for whole in (value, {**read_reply("submit-final"), key: value}, {key: [record(outcome=value), value]}):
        read_or_refused(whole)


@pytest.mark.parametrize(
    "total, read",
    [
        (0, 0),
        (7, 7),
        (10**9, 10**9),
        (10**9 + 1, None),
        (10**4000, None),
        (-1, None),
        (True, None),
        ("7", None),
    ],
    ids=["0", "7", "most", "more", "4,000 digits", "negative", "bool", "text"],
)
def test_a_number_of_rows_that_no_queue_has_is_not_known(total, read):
    assert structure_page({"requests": [], "total": total}).total == read
