from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._secrets import Secret
from kling_async._wire.codec import structure_job, structure_page
from kling_async._wire.endpoints import LIST, MODEL, MODELS, STATUS, SUBMIT, UPLOAD_URL
from kling_async._wire.json_reader import ShapeError
from kling_async._wire.replies import decode, error_for, excerpt, retry_after
from kling_async.errors import (
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    InsufficientCreditsError,
    InternalServerError,
    KlingError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)
from kling_async.lines import quote_value

REPLIES = Path(__file__).parent / "replies"
ID = "412767a6-5a1c-4c52-9f0a-2b7f3f0e6d11"
KEY = "eyJhbGciOiJIUzI1NiJ9.eyJzY29wZSI6ImFsbCJ9.c2lnbmF0dXJl"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = 24 * 3600.0

ERRORS = {
    # file: status, error, what its message says
    "error-400.json": (400, BadRequestError, "missing required parameters: prompt"),
    "error-400-with-id.json": (400, BadRequestError, "Generation rejected; please review the prompt"),
    "error-401.json": (401, AuthenticationError, "check GMI_API_KEY (HTTP 401: token signature is invalid)"),
    "error-402.json": (402, InsufficientCreditsError, "Insufficient credits. Please add more credits"),
    "error-403.json": (403, PermissionDeniedError, "forbidden"),
    "error-404-model.json": (404, NotFoundError, "model kling-v9 does not exist"),
    "error-404-access.json": (404, NotFoundError, "you do not have access to this model"),
    "error-404-job.json": (404, NotFoundError, "Request not found"),
    "error-429.json": (429, RateLimitError, "rate limit exceeded"),
    "error-500.json": (500, InternalServerError, "Backend error (400). Please try again."),
    "error-500-nested.json": (500, InternalServerError, "Backend request failed with status 400"),
    "error-502.html": (502, InternalServerError, "502 Bad Gateway 502 Bad Gateway nginx"),
    "error-403-storage.xml": (403, PermissionDeniedError, "SignatureDoesNotMatch Access denied."),
    "error-503-empty.txt": (503, InternalServerError, "the service failed (HTTP 503)."),
}

KEY_OF_CLIENT = Secret(KEY)


def error(
    status=500, headers=None, body=b"", *, about="the upload", endpoint=UPLOAD_URL, secret=KEY_OF_CLIENT
):
    return error_for(
        status, headers or {}, body, about=about, endpoint=endpoint, secret=secret, now=NOON.timestamp()
    )


def decode_body(body, structure=structure_job, *, secret=KEY_OF_CLIENT):
    return decode(body, structure, about="job a", status=200, secret=secret)


# Successes


def test_a_successful_reply_is_its_value():
    assert decode_body(b'{"request_id": "a", "status": "queued"}').request_id == "a"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>OK</html>", b"null", b"[]", b"{}", b'{"status": "queued"}', b"\xff\xfe", b"[" * 100_000],
    ids=quote_value,
)
def test_a_reply_that_breaks_the_contract_is_a_response_error_that_shows_it(body):
    with pytest.raises(
        APIResponseError, match=r"^job a: the reply of the service breaks its contract"
    ) as caught:
        decode_body(body)
    assert caught.value.status_code == 200
    assert caught.value.body == body.decode(errors="replace")[:500]
    assert isinstance(caught.value.__cause__, ShapeError)


@given(
    body=st.binary()
    | st.text().map(str.encode)
    | st.from_regex(rb'\{"[a-z_]{1,9}": ?("[^"]*"|[0-9.eE-]+|\[.*\])\}')
)
def test_any_bytes_are_a_value_or_a_response_error(body):
    for structure in (structure_job, structure_page):
        try:
            assert decode_body(body, structure) is not None
        except APIResponseError as error:
            assert len(error.message) < 600  # noqa: PT017 - either end is right, nothing else is


GOOD_BODIES = [path.read_bytes() for path in sorted(REPLIES.glob("*.json"))]


@given(body=st.sampled_from(GOOD_BODIES), data=st.data())
def test_a_mutated_reply_is_a_value_or_a_response_error(body, data):
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 40)))
    piece = data.draw(
        st.binary(max_size=8)
        | st.sampled_from([b"null", b"{}", b"[", b'"', b"NaN", b"9" * 5000, b"\\ud800", b"1e999"])
    )
    for structure in (structure_job, structure_page):
        try:
            assert decode_body(body[:start] + piece + body[end:], structure) is not None
        except APIResponseError as error:
            assert error.status_code == 200  # noqa: PT017 - either end is right, nothing else is


# Errors


def test_every_recorded_error_is_in_the_table():
    assert {path.name for path in REPLIES.glob("error-*")} == set(ERRORS)


@pytest.mark.parametrize("name", ERRORS)
def test_each_recorded_error_is_the_right_one_and_says_what_the_service_said(name):
    status, kind, said = ERRORS[name]
    body = (REPLIES / name).read_bytes()
    made = error(status, body=body)
    assert type(made) is kind
    assert made.message.startswith("the upload: ")
    assert said in made.message
    assert (made.status_code, made.body) == (status, body.decode()[:500])


def test_an_id_of_two_lines_makes_an_error_of_one():
    made = error(404, about="job x\ny", endpoint=STATUS)
    assert str(made).startswith("job x y: the service has no such job for this key (HTTP 404).")


@pytest.mark.parametrize(
    "endpoint, meaning, advice",
    [
        (SUBMIT, "no such model for this key", "client.list_models()"),
        (LIST, "no such model for this key", "client.list_models()"),
        (MODEL, "no such model", "client.list_models()"),
        (STATUS, "no such job for this key", "client.list_jobs()"),
        (MODELS, "nothing at this address", "KlingClient(base_url=...)"),
        (UPLOAD_URL, "nothing at this address", "KlingClient(base_url=...)"),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_a_404_says_what_the_service_does_not_have(endpoint, meaning, advice):
    made = error(404, endpoint=endpoint)
    assert meaning in made.message
    assert advice in made.advice


@pytest.mark.parametrize("endpoint", [SUBMIT, LIST, MODEL, STATUS, MODELS, UPLOAD_URL, None])
@pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 409, 410, 418, 422, 429, 500, 503])
def test_each_status_has_a_next_step_for_each_call(endpoint, status):
    made = error(status, endpoint=endpoint)
    assert made.advice
    assert str(made) == f"{made.message} {made.advice}"


@pytest.mark.parametrize("status", [408, 425])
def test_a_status_that_is_no_refusal_is_not_told_as_one(status):
    made = error(status, endpoint=SUBMIT)
    assert made.message == f"the upload: the service did not finish the request (HTTP {status})."
    assert made.advice == "Try again later."


@pytest.mark.parametrize("endpoint", [SUBMIT, STATUS])
def test_a_402_says_only_that_the_refused_call_is_not_charged(endpoint):
    assert error(402, endpoint=endpoint).advice.endswith("what was refused is not charged.")


def test_an_answer_of_a_storage_says_nothing_of_the_key_and_the_models():
    for status in (400, 401, 403, 404, 410):
        made = error(status, about="the storage", endpoint=None)
        assert made.message == f"the storage: it refused the request (HTTP {status})."


@pytest.mark.parametrize(
    "status, kind",
    [
        *((status, APIStatusError) for status in (302, 400, 401, 402, 403, 404, 408, 409, 410, 422)),
        (429, RateLimitError),
        *((status, InternalServerError) for status in (500, 503)),
    ],
)
def test_the_class_of_an_answer_of_a_storage_says_nothing_of_them_either(status, kind):
    made = error(status, about="the storage", endpoint=None)
    assert (type(made), made.status_code) == (kind, status)


def test_only_a_404_suggests_another_id():
    missing, refused = (
        error_for(status, {}, b"", about="job A", endpoint=STATUS, near="a", secret=Secret(KEY), now=0.0)
        for status in (404, 403)
    )
    assert missing.message == "job A: the service has no such job for this key (HTTP 404); did you mean 'a'?"
    assert refused.message == "job A: this key may not do that; check the rights of its account (HTTP 403)."


def test_an_id_in_an_error_is_kept():
    assert error(400, body=(REPLIES / "error-400-with-id.json").read_bytes()).request_id == ID
    assert error(400, body=b'{"request_id": 7}').request_id is None
    assert error(502, body=b'{"request_id": "a-1", "err').request_id == "a-1"


@pytest.mark.parametrize(
    "status, kind",
    [
        (302, APIStatusError),
        (408, APIStatusError),
        (409, APIStatusError),
        (422, APIStatusError),
        (599, InternalServerError),
        (999, InternalServerError),
    ],
)
def test_a_status_without_a_class_of_its_own_is_still_an_error(status, kind):
    assert type(error(status)) is kind


def test_what_the_service_said_is_one_short_line_without_control_characters():
    made = error(body=json.dumps({"error": "a\r\nb\x1b[31mc\x00 " + "x" * 1000}).encode())
    assert "a b\N{REPLACEMENT CHARACTER}[31mc\N{REPLACEMENT CHARACTER} x" in made.message
    assert len(made.message) < 400
    assert made.message.isprintable()


@given(
    status=st.integers(300, 999),
    headers=st.dictionaries(st.just("retry-after"), st.text(max_size=30)),
    body=st.binary() | st.text().map(str.encode),
    before=st.integers(0, 2500),
)
def test_every_reply_has_an_error_and_none_shows_the_key(status, headers, body, before):
    echo = body[:before] + b"x" * (before - len(body)) + KEY.encode() * 3 + body
    for full in (echo, json.dumps({"error": echo.decode(errors="replace"), "request_id": KEY}).encode()):
        made = error(status, headers, full)
        assert isinstance(made, KlingError)
        for text in (made.message, made.body, str(made.request_id), repr(made)):
            assert KEY not in text
            assert KEY[:12] not in text


@pytest.mark.unmeasured
@pytest.mark.parametrize("filler", ["x", "\N{GRINNING FACE}"])
def test_a_cut_through_the_key_shows_no_part_of_it(filler):
    for before in range(2100):
        beginning = excerpt(filler.encode() * before + KEY.encode() * 40, secret=Secret(KEY))
        assert KEY[:8] not in beginning
        assert len(beginning) <= 500


def test_without_a_key_nothing_is_hidden():
    assert Secret("").hide_in("text") == "text"
    assert excerpt(b"x" * 5000, secret=Secret("")) == "x" * 500


def test_the_key_is_hidden_in_an_answer_that_breaks_the_contract():
    with pytest.raises(APIResponseError) as caught:
        decode_body(f"no such key: {KEY}".encode())
    assert KEY not in caught.value.message
    assert caught.value.body == "no such key: ***"


# Retry-After


@pytest.mark.parametrize(
    "wish, seconds",
    [
        ("30", 30.0),
        (" 2.5 ", 2.5),
        ("1e2", 100.0),
        ("99999999", DAY),
        ("9" * 400, DAY),
        ("inf", DAY),
        ("0", None),
        ("-5", None),
        ("-inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0),
        ("Sunday, 22-Nov-26 12:00:30 GMT", 30.0),
        ("22 Nov 2026 12:00:30", 30.0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", 30.0),
        ("Sun, 22 Nov 2026 14:00:30 +0200", 30.0),
        ("Sun, 22 Nov 2026 11:59:59 GMT", None),
        ("Mon, 23 Nov 2099 12:00:00 GMT", DAY),
        ("Sun, 99 Nov 2026 12:00:30 GMT", None),
        ("Sun, 22 Nov 99999 12:00:30 GMT", None),
    ],
    ids=quote_value,
)
def test_retry_after_is_seconds_or_a_date_and_at_most_a_day(wish, seconds):
    assert retry_after({"retry-after": wish}, None, now=NOON.timestamp()) == seconds


def test_a_date_without_a_zone_is_one_of_utc_wherever_the_client_runs(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        for date in ("22 Nov 2026 12:00:30", "Sun, 22 Nov 2026 12:00:30 -0000"):
            assert retry_after({"retry-after": date}, None, now=NOON.timestamp()) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "value, seconds",
    [
        ({"retry_after": 12}, 12.0),
        ({"retryAfter": "12"}, 12.0),
        ({"error": {"retry_after": 12.5}}, 12.5),
        ({"error": {"retryAfter": 10**4000}}, DAY),
        ({"retry_after": None, "error": {"retry_after": 3}}, 3.0),
        ({"retry_after": "soon", "error": {"retry_after": 3}}, 3.0),
        ({"retry_after": 4, "error": {"retry_after": 3}}, 4.0),
        ({"retry_after": True}, None),
        ({"retry_after": -1}, None),
        ({"retry_after": [5]}, None),
        ({"error": "retry_after"}, None),
        ({"error": ["retry_after"]}, None),
        (["retry_after"], None),
        (None, None),
    ],
    ids=quote_value,
)
def test_retry_after_in_the_body_counts_at_both_levels(value, seconds):
    assert retry_after({}, value, now=NOON.timestamp()) == seconds


def test_retry_after_in_the_header_overrides_the_body():
    assert retry_after({"retry-after": "7"}, {"retry_after": 12}, now=0.0) == 7.0
    assert retry_after({"retry-after": "soon"}, {"retry_after": 12}, now=0.0) == 12.0


def test_the_error_has_the_retry_after():
    assert error(429, body=(REPLIES / "error-429.json").read_bytes()).retry_after == 12.0
    assert error(503, {"retry-after": "9"}).retry_after == 9.0
    assert error(429).retry_after is None


@given(wish=st.text() | st.floats().map(str) | st.integers().map(str))
def test_any_retry_after_is_at_most_a_day_or_none(wish):
    seconds = retry_after({"retry-after": wish}, {"retry_after": wish}, now=NOON.timestamp())
    assert seconds is None or 0 < seconds <= DAY


@given(ahead=st.timedeltas(timedelta(seconds=1), timedelta(hours=23)))
def test_a_date_means_the_seconds_until_then(ahead):
    date = format_datetime(NOON + ahead, usegmt=True)
    seconds = retry_after({"retry-after": date}, None, now=NOON.timestamp())
    assert seconds == int(ahead.total_seconds())
