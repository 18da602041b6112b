from __future__ import annotations

from decimal import Decimal
from pathlib import PurePosixPath

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import JobStatus, ResultState, VideoRequest
from kling_async._journal.entry import Entry, EntryState, Identity, fingerprint
from kling_async._wire.payloads import payload_of
from kling_async.requests import model_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
PAYLOADS = st.dictionaries(st.text(), JSON, max_size=6)


def entry(payload, *, model="kling-v2-6", key=None, **fields):
    return Entry(
        number=1,
        identity=Identity(key, fingerprint(model, payload), 0),
        model=model,
        payload=payload,
        state=EntryState.INTENDED,
        **fields,
    )


def turned_round(value):
    """The same value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        return {key: turned_round(value[key]) for key in reversed(value)}
    return [turned_round(each) for each in value] if isinstance(value, list) else value


# The fingerprint


@given(PAYLOADS)
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(payload):
    assert fingerprint("m", payload) == fingerprint("m", turned_round(payload))


@given(PAYLOADS, st.text(max_size=3))
def test_one_more_key_is_another_fingerprint(payload, name):
    assert (fingerprint("m", payload) == fingerprint("m", {**payload, name: "other"})) == (
        payload.get(name) == "other"
    )


@pytest.mark.parametrize(
    "one, other",
    [
        ({"cfg_scale": 1}, {"cfg_scale": 1.0}),
        ({"extra": {1: [2.0], "b": (3,)}}, {"extra": {"b": [3], "1": [2]}}),
        ({"image": PurePosixPath("cat.png")}, {"image": "cat.png"}),
    ],
    ids=["numbers", "nested", "paths"],
)
def test_equal_payloads_have_one_fingerprint(one, other):
    assert fingerprint("m", one) == fingerprint("m", other)


@pytest.mark.parametrize(
    "one, other",
    [
        (("m", {"x": 1}), ("m", {"x": True})),
        (("m", {"x": "5"}), ("m", {"x": 5})),
        (("m", {"x": 0.5}), ("m", {"x": 0.6})),
        (("m", {"x": 1}), ("n", {"x": 1})),
    ],
)
def test_different_payloads_have_different_fingerprints(one, other):
    assert fingerprint(*one) != fingerprint(*other)


def test_a_fingerprint_is_the_same_in_every_run():
    assert (
        fingerprint("kling-v2-6", {"prompt": "rain", "duration": "5"}) == "7f3f375513539c284367b7e3224a9d1c"
    )


@pytest.mark.parametrize("value", [object(), {"x": {object()}}], ids=["object", "set"])
def test_a_payload_that_is_not_json_has_no_fingerprint(value):
    with pytest.raises(TypeError):
        fingerprint("m", {"x": value})


# The states


def test_every_state_of_a_result_is_a_state_of_an_entry():
    assert {state.value for state in ResultState} < {state.value for state in EntryState}


# The job


RECORD = {
    "request_id": "r-1",
    "status": "success",
    "outcome": {"media_urls": [{"id": "0", "url": "https://storage.example/r-1.mp4"}]},
}


def test_an_entry_without_an_id_has_no_job():
    assert entry({"prompt": "rain"}).job is None


def test_an_entry_gives_the_job_of_its_record_with_the_payload_that_was_sent():
    job = entry({"prompt": "rain"}, request_id="r-1", record=RECORD).job
    assert (job.request_id, job.status, job.payload) == ("r-1", JobStatus.SUCCESS, {"prompt": "rain"})
    assert job.video_url == "https://storage.example/r-1.mp4"


@pytest.mark.parametrize("record", [None, {}, {"status": 5}], ids=repr)
def test_a_job_whose_record_cannot_be_read_keeps_its_id(record):
    job = entry({"prompt": "rain"}, request_id="r-1", record=record).job
    assert (job.request_id, job.status, job.model) == ("r-1", JobStatus.UNKNOWN, "kling-v2-6")
    assert job.payload == {"prompt": "rain"}


def test_the_id_of_a_job_is_that_of_its_entry_whatever_the_record_lacks():
    job = entry({"prompt": "rain"}, request_id="r-1", record={"status": "queued"}).job
    assert (job.request_id, job.status) == ("r-1", JobStatus.QUEUED)


# The request


@pytest.mark.parametrize(
    "request_",
    [
        VideoRequest("rain"),
        VideoRequest("rain", duration=10, sound=True, mode="pro", cfg_scale=0.5, key="a"),
        VideoRequest("rain", image="https://host/cat.png", sound=False),
        VideoRequest("rain", extra={"negative_prompt": "snow", "seed": 5}),
        VideoRequest("rain", extra={"prompt": "snow"}),
        VideoRequest("rain", extra={"prompt": "x" * 3000, "duration": 7, "sound": True}),
        VideoRequest("rain", duration=5, extra={"sound": None}),
        VideoRequest("rain", model="of-tomorrow", aspect_ratio="16:9", resolution="4k", duration=7),
        VideoRequest("rain", model="of-tomorrow", extra={"prompt": 5, "x": {"y": [1.5, None]}}),
    ],
    ids=str,
)
def test_a_request_is_made_that_makes_the_payload_again(request_):
    payload = payload_of(request_)

    made = entry(payload, model=model_of(request_), key=request_.key).request

    assert payload_of(made) == payload
    assert (made.model, made.key) == (model_of(request_), request_.key)


@pytest.mark.parametrize(
    "request_",
    [
        VideoRequest("rain", model="kling-v2-6", duration=10, sound=True, mode="pro", cfg_scale=0.5, key="a"),
        VideoRequest("rain", model="kling-v2-6", duration=5, extra={"negative_prompt": "snow"}),
    ],
    ids=str,
)
def test_fields_are_read_back_as_fields(request_):
    assert entry(payload_of(request_), key=request_.key).request == request_


@pytest.mark.parametrize(
    "entry_",
    [
        entry({}),
        entry({"duration": "5"}),
        attrs.evolve(entry({"prompt": "rain"}), model="\ud800"),
        entry({"prompt": "rain", "x": float("nan")}),
        attrs.evolve(entry({"prompt": "rain"}), identity=Identity("\ud800", "f", 0)),
    ],
    ids=["nothing", "no-prompt", "no-model", "no-json", "no-text"],
)
def test_a_payload_that_no_valid_request_makes_has_no_request(entry_):
    assert entry_.request is None


def test_an_entry_shows_no_payload_and_no_record():
    shown = repr(entry({"prompt": "a secret plan"}, record=RECORD, cost_usd=Decimal("0.35")))
    assert "secret" not in shown
    assert "storage.example" not in shown
