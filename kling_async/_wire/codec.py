"""Reads records and lists of the service, and makes the payloads that are sent.

A record needs an id and a status word. Every other field may be missing, null, 0 or of another type, and then reads as
absent; the whole record stays in `raw`. A paid job must not be lost because its `created_at` is a text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import attrs
from cattrs import Converter

from kling_async._secrets import Secret
from kling_async._wire.endpoints import MAX_VALUES
from kling_async.catalog import ModelInfo, wire_name
from kling_async.jobs import NO_OWNER_ID, Job, JobStatus, Media, Outcome
from kling_async.lines import one_line
from kling_async.requests import VideoRequest, model_of, parameters_of

T = TypeVar("T")

_NUMBERS = (int, float)
_PLAIN = frozenset({str, int, float, bool, type(None)})
_encode = json.JSONEncoder(allow_nan=False).encode
# Compared by identity: the hash of an Enum is computed in Python, and every record is read here.
_FAILED, _CANCELLED = JobStatus.FAILED, JobStatus.CANCELLED

_STATUSES: dict[str, JobStatus] = {
    **{status.value: status for status in JobStatus if status is not JobStatus.UNKNOWN},
    "canceled": JobStatus.CANCELLED,
}


# Its only hook is `_read_job`.
_converter = Converter(detailed_validation=False)

_MAX_NESTED_ERRORS = 5
_LONGEST_TEXT = 5000
"""Characters of a text of the service that are shown, at the most. The record keeps the whole text."""
_LARGEST_TOTAL = 10**9
"""More rows than a queue has. A search of the end of a list doubles its steps up to the total, so a larger one, such as
one of 4,000 digits, would cost thousands of calls."""


class ShapeError(ValueError):
    """A reply lacks something that the contract promises; `decode` makes an `APIResponseError` of it.

    Args:
        message: The missing part.
        value: The reply, as far as it could be read.
    """

    def __init__(self, message: str, value: object = None) -> None:
        super().__init__(message)
        self.value = value


@attrs.frozen
class JobPage:
    """One page of the list of requests."""

    jobs: tuple[Job, ...]
    rows: int
    """The number of rows, readable or not: the step to the next offset."""
    has_more: bool | None
    """Whether the service says that more pages follow; None if it says nothing."""
    total: int | None = None
    """The number of rows on all pages; None if the service says nothing."""


@attrs.frozen
class RowPage:
    """One page of the list with its rows as JSON: most of them need not be read."""

    rows: list[Any]
    has_more: bool | None
    """Whether the service says that more pages follow; None if it says nothing."""
    total: int | None
    """The number of rows on all pages; None if the service says nothing."""


@attrs.frozen
class UploadTicket:
    """The URL to send a picture to, and the URL to read it from."""

    upload_url: str
    public_url: str


def payload_of(request: VideoRequest) -> dict[str, Any]:
    """The payload of a request: fields that the caller left out are left out, and `extra` overwrites the others.

    The payload is the identity of a paid item: a later run recognises the item in its journal by the fingerprint of this
    value. If the form of a value changes here, every finished item is a new one, and the same call buys it again. A
    test pins the fingerprints (`tests/engine/test_identity_of_paid_items.py`).

    Sound is sent as on/off, duration as text, cfg_scale as a number.
    Source: docs.gmicloud.ai/model-quickstarts/video/kling-v2-6, read as `docs/explanation/wire.md` argues.
    """
    payload: dict[str, Any] = {}
    for field, value in parameters_of(request).items():
        if field == "sound" and isinstance(value, bool):
            value = "on" if value else "off"  # noqa: PLW2901 - the service's word
        elif field == "duration" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # noqa: PLW2901 - the service's form
        payload[wire_name(model_of(request), field)] = value
    return {**payload, **request.extra}


def to_plain(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload with values of plain types alone.

    The caller's values can be of classes that override `==` or `str()`, and after a POST nothing of the caller may raise.
    """
    if all(type(value) in _PLAIN for value in payload.values()):
        return payload
    plain: dict[str, Any] = json.loads(_encode(payload))
    return plain


def submit_body(model: str, payload: Mapping[str, Any]) -> bytes:
    """The body of a submit."""
    return _encode({"model": model, "payload": payload}).encode()


def upload_body(file_type: str) -> bytes:
    """The body that asks for an upload URL; the file type is a suffix without its dot."""
    return json.dumps({"file_type": file_type}).encode()


def _parse_finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _parse_int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


_decoder = json.JSONDecoder(parse_float=_parse_finite, parse_constant=lambda _: None)
_patient_decoder = json.JSONDecoder(
    parse_float=_parse_finite, parse_int=_parse_int, parse_constant=lambda _: None
)
_MARKS = (b",", b":", b"[", b"{")
_COUNTED_BYTES = 256 * 1024
_ID_BYTES = 1024
_LEADING_ID = re.compile(r'\s*\{\s*"request_id"\s*:\s*"([^"\\]+)"')
"""Every recorded reply about a job begins with its id, so the id is known even if the rest is broken."""


def load_json(body: bytes, *, max_values: int = MAX_VALUES, secret: Secret | None = None) -> Any:
    """The JSON value of a body, in UTF-8 with or without a byte order mark.

    A body of more values than `max_values`, roughly counted, is not read: to make a million values of a body blocks the
    event loop for most of a second.

    NaN, infinities, and numbers beyond a float or with more digits than Python reads become null. Broken bytes and lone
    surrogates become a replacement character.

    Args:
        body: The body.
        max_values: The most values that it may have.
        secret: The API key; `***` replaces it where it stands with characters as escapes.

    Raises:
        ShapeError: The body is not JSON, is nested too deep, or has too many values. Its `value` has the `request_id` if
            the body begins with one.
    """
    if _has_more_values(body, max_values):
        begins = body[:_ID_BYTES].decode(errors="replace")
        raise ShapeError(f"the body has more than {max_values:,} values", _read_leading_id(begins))
    text = body.decode(errors="replace").removeprefix("\ufeff")
    try:
        value = _decode(text)
        if "\\ud" in text or "\\uD" in text:
            # A lone surrogate cannot be printed, stored or sent.
            repaired = json.dumps(value, ensure_ascii=False).encode(errors="replace")
            value = _decode(repaired.decode())
        if secret is not None and secret.may_be_escaped_in(body):
            # The decoder and the encoder read escapes a hundred times as fast as Python code could.
            plain = json.dumps(value, ensure_ascii=False).encode()
            hidden = secret.hide_in_json(plain)
            value = value if hidden == plain else _decode(hidden.decode())
    except (ValueError, RecursionError) as error:
        kind = type(error).__name__
        raise ShapeError(f"the body is not readable JSON ({kind})", _read_leading_id(text)) from error
    return value


def _read_leading_id(text: str) -> dict[str, str] | None:
    found = _LEADING_ID.match(text)
    return {"request_id": found[1]} if found else None


def _has_more_values(body: bytes, limit: int) -> bool:
    """Whether a body has more of the marks that go with each value of JSON; those in its texts count too."""
    if len(body) <= limit:
        return False
    count = 0
    for start in range(0, len(body), _COUNTED_BYTES):
        count += sum(body.count(mark, start, start + _COUNTED_BYTES) for mark in _MARKS)
        if count > limit:
            return True
    return False


def _decode(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer with thousands of digits
        return _patient_decoder.decode(text)


def structure_job(value: object) -> Job:
    """The job of a record, as `_read_job` reads it.

    Raises:
        ShapeError: The record is not an object, or has no id or no status.
    """
    return _converter.structure(value, Job)


def structure_page(value: object) -> JobPage:
    """One page of jobs; rows that cannot be read are left out.

    Raises:
        ShapeError: The reply has no list of rows.
    """
    page = structure_rows(value)
    return JobPage(
        jobs=tuple(_structure_readable(page.rows, structure_job)),
        rows=len(page.rows),
        has_more=page.has_more,
        total=page.total,
    )


def structure_rows(value: object) -> RowPage:
    """One page of rows; they may be under `requests`, `data`, `items`, or bare.

    Raises:
        ShapeError: The reply has no list of rows.
    """
    envelope: Mapping[str, Any] = value if isinstance(value, dict) else {"requests": value}
    name = next((key for key in ("requests", "data", "items") if key in envelope), "requests")
    rows = envelope.get(name, value)
    if rows is None and isinstance(value, dict):
        rows = []  # a service written in Go may answer null for an empty list
    if not isinstance(rows, list):
        _refuse("a list of requests", value)
    total, has_more = envelope.get("total"), envelope.get("has_more")
    return RowPage(
        rows=rows,
        has_more=has_more if isinstance(has_more, bool) else None,
        total=total if type(total) is int and 0 <= total <= _LARGEST_TOTAL else None,
    )


def structure_model_ids(value: object) -> list[str]:
    """The ids of all models, each once, in the order of the reply.

    Raises:
        ShapeError: The reply has no list of ids.
    """
    ids = value.get("model_ids") if isinstance(value, dict) else None
    if not isinstance(ids, list):
        _refuse("an object with model_ids", value)
    return list(dict.fromkeys(id_ for id_ in ids if isinstance(id_, str)))


def structure_model(value: object, *, model_id: str) -> ModelInfo:
    """The service's description of a model.

    Raises:
        ShapeError: The reply is not an object.
    """
    if not isinstance(value, dict):
        _refuse("an object", value)
    price = value["price_info"].get("price") if isinstance(value.get("price_info"), dict) else None
    parameters = value.get("parameters")
    return ModelInfo(
        id=_text_or_none(value.get("model")) or model_id,
        kind=_text_or_none(value.get("model_type")),
        parameters=tuple(entry for entry in parameters if isinstance(entry, dict))
        if isinstance(parameters, list)
        else (),
        # Source: replies of the service; whole micro-dollars, and 0 where a model has no published price.
        price=Decimal(price) / 1_000_000 if type(price) is int and price > 0 else None,
        raw=value,
    )


def structure_upload(value: object) -> UploadTicket:
    """The upload ticket of a reply.

    Raises:
        ShapeError: One of the two URLs is missing.
    """
    if not isinstance(value, dict):
        _refuse("an object", value)
    upload, public = _text_or_none(value.get("upload_url")), _text_or_none(value.get("public_url"))
    if not upload or not public:
        _refuse("an object with upload_url and public_url", value)
    return UploadTicket(upload_url=upload, public_url=public)


def parse_status(word: str) -> JobStatus:
    """The status that a word of the service stands for; `UNKNOWN` for any other word."""
    return _STATUSES.get(word) or _STATUSES.get(word.strip().lower(), JobStatus.UNKNOWN)


def _refuse(wanted: str, value: object) -> NoReturn:
    raise ShapeError(f"the contract promises {wanted}, not {type(value).__name__}", value)


def _structure_readable(rows: Iterable[object], structure: Callable[[object], T]) -> Iterable[T]:
    for row in rows:
        try:
            yield structure(row)
        except ShapeError:
            continue


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _read_owner(value: object) -> str | None:
    """The id of a user or of an organization as text: a whole number is the id that it writes.

    A value that is no id is `NO_OWNER_ID`, and not absent: the job may be of another user.
    """
    if value is None or isinstance(value, str):
        return value
    return str(value) if type(value) is int else NO_OWNER_ID


def _mapping_or_empty(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_time(value: Any) -> datetime | None:
    """Unix seconds to UTC; null, 0 and absent are None. Source: optional fields of the official SDK."""
    return _to_utc(value) if type(value) in _NUMBERS and value > 0 else None


@lru_cache(maxsize=1024)
def _to_utc(seconds: float) -> datetime | None:
    """The time in UTC; cached, because many records share one second."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _read_media(outcome: Mapping[str, Any]) -> tuple[Media, ...]:
    """The media, read by name only: an outcome holds other URLs too. Older models answer `video_url`."""
    listed = outcome.get("media_urls")
    found = []
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, str) and entry:
            found.append(Media(entry))
        elif isinstance(entry, dict) and (url := _text_or_none(entry.get("url"))):
            found.append(Media(url, _text_or_none(entry.get("id"))))
    if not found and (url := _text_or_none(outcome.get("video_url"))):
        found.append(Media(url))
    return tuple(found)


def shorten_spaces(text: str) -> str:
    """The text on one line, with one space for each run of white space; of a long text its beginning.

    It is cut before it is read: a reason of millions of characters would keep the event loop.
    """
    text = text.lstrip()
    shown = " ".join(one_line(text[:_LONGEST_TEXT]).split())
    return shown if len(text) <= _LONGEST_TEXT else f"{shown}…"


def failure_text(value: object, *, depth: int = _MAX_NESTED_ERRORS) -> str | None:
    """The text of an error in one line: a text, an object with `message`, or such an object inside `error`."""
    if isinstance(value, str):
        return shorten_spaces(value) or None
    if isinstance(value, dict) and depth > 0:
        for key in ("message", "error", "detail", "details", "reason", "code"):
            if text := failure_text(value.get(key), depth=depth - 1):
                return text
    return None


def _find_failure(record: Mapping[str, Any], outcome: Mapping[str, Any]) -> str | None:
    """Why a job failed. Source: the places that other clients of the service read, most reliable first."""
    places = (
        outcome.get("error"),
        record.get("error"),
        record.get("error_message"),
        record.get("reason"),
        outcome.get("message"),
        outcome.get("fail_reason"),
        record.get("outcome"),
    )
    return next((text for place in places if (text := failure_text(place))), None)


def _read_outcome(record: Mapping[str, Any], *, failed: bool) -> Outcome | None:
    raw = record.get("outcome")
    if raw is None and not failed:
        return None
    outcome = _mapping_or_empty(raw)
    error = _find_failure(record, outcome) if failed else failure_text(outcome.get("error"))
    if not isinstance(raw, dict) and error is None:
        return None
    return Outcome(
        media=_read_media(outcome),
        thumbnail_url=_text_or_none(outcome.get("thumbnail_image_url")) or None,
        error=error,
        raw=outcome,
    )


@_converter.register_structure_hook
def _read_job(value: object, _: object) -> Job:
    """The job of a record, each field read by hand.

    A wrong field loses only itself. Reading records takes most of the time of a list scan.
    """
    if not isinstance(value, dict):
        _refuse("a record", value)
    request_id, word = value.get("request_id"), value.get("status")
    if not isinstance(request_id, str) or not request_id.strip():
        raise ShapeError("a record has no request_id", value)
    if not isinstance(word, str):
        raise ShapeError("a record has no status word", value)
    status = parse_status(word)
    return Job(
        request_id=request_id,
        status=status,
        model=_text_or_none(value.get("model")),
        payload=_mapping_or_empty(value.get("payload")),
        outcome=_read_outcome(value, failed=status is _FAILED or status is _CANCELLED),
        created_at=_read_time(value.get("created_at")),
        queued_at=_read_time(value.get("queued_at")),
        updated_at=_read_time(value.get("updated_at")),
        organization_id=_read_owner(value.get("org_id")),
        user_id=_read_owner(value.get("user_id")),
        raw=value,
    )
