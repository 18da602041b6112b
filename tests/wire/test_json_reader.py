from __future__ import annotations

import base64
import json

import pytest

from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import LIST
from kling_async._wire.json_reader import ShapeError, load_json
from kling_async.lines import quote_value


@pytest.mark.parametrize(
    "body, value",
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b" \r\n[1] ", [1]),
        (b'{"a": NaN, "b": -Infinity, "c": 1e999, "d": 1e-999}', {"a": None, "b": None, "c": None, "d": 0.0}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\N{GRINNING FACE}"}),
        (b'{"a": "x\\ud800", "\\uDFFF": 1}', {"a": "x?", "?": 1}),
        (b'{"a": "\xff\xed\xa0\x80"}', {"a": "\N{REPLACEMENT CHARACTER}" * 4}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'"\\u0000"', "\x00"),
        (b"1" + b"0" * 1000, 10**1000),
        (b'{"a": %b, "b": 2}' % (b"1" * 5000), {"a": None, "b": 2}),
    ],
    ids=quote_value,
)
def test_json_values_that_python_cannot_hold_are_replaced(body, value):
    assert load_json(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{} {}",
        b"{'a': 1}",
        b'{"a": 1,}',
        b"<html>",
        b'"\n"',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-32-le"),
    ],
    ids=lambda body: f"{body[:12]}{len(body)}",
)
def test_a_body_that_is_not_json_is_a_shape_error(body):
    with pytest.raises(ShapeError, match="not readable JSON"):
        load_json(body, max_values=10**6)


@pytest.mark.parametrize(
    "body, left",
    [
        (b'{"request_id": "a-1", "status": "que', {"request_id": "a-1"}),
        (b' \n{ "request_id" : "a-1" , "payload": ' + b"[" * 100_000, {"request_id": "a-1"}),
        (b'\xef\xbb\xbf{"request_id":"a-1"', {"request_id": "a-1"}),
        (b'{"request_id": "a-', None),
        (b'{"request_id": ""', None),
        (b'{"request_id": "a\\u0031"', None),
        (b'{"payload": {"request_id": "a-1"}', None),
        (b'[{"request_id": "a-1"}', None),
    ],
)
def test_a_broken_body_that_begins_with_its_id_keeps_the_id(body, left):
    with pytest.raises(ShapeError) as caught:
        load_json(body)
    assert caught.value.value == left


@pytest.mark.parametrize("depth", range(50, 1000, 50))
def test_a_body_of_any_depth_is_read_or_refused(depth):
    deep = b'{"error":' * depth + b'"x\\ud800"' + b"}" * depth
    body = b'{"request_id": "a", "status": "failed", "outcome": ' + deep + b"}"
    try:
        assert structure_job(load_json(body)).request_id == "a"
    except ShapeError as error:
        assert "not readable JSON" in str(error)  # noqa: PT017 - either end is right, nothing else is


def test_a_body_with_more_values_than_any_record_is_not_read():
    for many in ["[]", "1", '{"a":1}', '"a"', "[[[]]]"]:
        body = '{"request_id":"job-1","status":"success","more":[' + ",".join([many] * 30_000) + "]}"
        with pytest.raises(ShapeError, match="the body has more than 25,000 values") as caught:
            load_json(body.encode())
        assert caught.value.value == {"request_id": "job-1"}
        assert load_json(body.encode(), max_values=10**6)["request_id"] == "job-1"


def test_values_that_stand_behind_a_long_text_are_counted_too():
    body = b'["' + b"a" * 10**6 + b'"' + b",[]" * 30_000 + b"]"
    with pytest.raises(ShapeError, match="more than 25,000 values") as caught:
        load_json(body)
    assert caught.value.value is None


def test_a_record_with_a_picture_and_a_page_of_long_rows_are_read():
    picture = base64.b64encode(bytes(10 * 1024 * 1024)).decode()
    assert load_json(json.dumps({"request_id": "a", "image": picture}).encode())["image"] == picture
    row = {"request_id": "a", "payload": {"prompt": "a, b: " * 40, **dict.fromkeys(map(str, range(30)), 1)}}
    page = json.dumps({"requests": [row] * 1000}).encode()
    assert len(load_json(page, max_values=LIST.max_values)["requests"]) == 1000
