from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async import InvalidRequestError
from kling_async._wire.json_reader import load_json
from kling_async._wire.payloads import payload_of, submit_body, upload_body
from kling_async.requests import VideoRequest


def test_only_given_fields_are_sent_in_the_words_of_the_service():
    request = VideoRequest(
        "x", sound=True, duration=10, cfg_scale=0.5, mode="pro", image="https://host/a.png"
    )
    payload = payload_of(request)
    assert payload == {
        "prompt": "x",
        "image": "https://host/a.png",
        "sound": "on",
        "duration": "10",
        "mode": "pro",
        "cfg_scale": 0.5,
    }
    assert list(payload) == ["prompt", "image", "sound", "duration", "mode", "cfg_scale"]
    assert payload_of(VideoRequest("x")) == {"prompt": "x"}
    assert payload_of(VideoRequest("x", sound=False)) == {"prompt": "x", "sound": "off"}


def test_extra_keys_overwrite_the_others():
    request = VideoRequest("x", duration=5, extra={"seed": 7, "duration": 6})
    assert payload_of(request) == {"prompt": "x", "duration": 6, "seed": 7}
    assert list(payload_of(request)) == ["prompt", "duration", "seed"]


def test_values_of_an_unknown_model_are_sent_unchanged():
    request = VideoRequest(
        "x", model="a-model-of-tomorrow", mode="loud", extra={"sound": 7, "duration": "auto"}
    )
    assert payload_of(request) == {"prompt": "x", "mode": "loud", "sound": 7, "duration": "auto"}


def test_the_key_of_an_item_is_not_sent():
    assert payload_of(VideoRequest("x", key="mine")) == {"prompt": "x"}


@given(prompt=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map("x".__add__))
def test_any_prompt_is_sent_unchanged(prompt):
    body = submit_body("kling-v2-6", payload_of(VideoRequest(prompt)))
    assert json.loads(body) == {"model": "kling-v2-6", "payload": {"prompt": prompt}}


@pytest.mark.parametrize(
    "text, is_sent",
    [
        ("," * 23_000, True),
        ("," * 25_000, False),
        ("[" * 25_000, False),
        ("x" * 15_000_000, True),
        ("x" * 17_000_000, False),
        ("\u732b" * 3_000_000, False),  # each is six bytes in JSON
    ],
)
def test_a_payload_whose_job_could_not_be_read_is_refused(text, is_sent):
    payload = {"prompt": text}
    if is_sent:
        record = json.dumps({"request_id": "job-1", "model": "m", "payload": payload}).encode()
        assert submit_body("m", payload)
        assert load_json(record)["payload"] == payload
    else:
        with pytest.raises(InvalidRequestError, match="shorten the longest text"):
            submit_body("m", payload)


def test_an_upload_asks_for_its_type():
    assert json.loads(upload_body("png")) == {"file_type": "png"}
