"""Makes values of the decoded replies of the service: records, lists, models and upload tickets.

A record needs an id and a status word. Every other field may be missing, null, 0 or of another type, and then reads as
absent; the whole record stays in `raw`. A paid job must not be lost because its `created_at` is a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import attrs
from cattrs import Converter

from kling_async._wire.json_reader import ShapeError
from kling_async.catalog import ModelInfo
from kling_async.jobs import NO_ACCOUNT_ID, Job, JobStatus, Media, Outcome
from kling_async.lines import one_line

T = TypeVar("T")

_NUMBERS = (int, float)
# Compared by identity: the hash of an Enum is computed in Python, and every record is read here.
_FAILED, _CANCELLED = JobStatus.FAILED, JobStatus.CANCELLED

_STATUSES: dict[str, JobStatus] = {
    **{status.value: status for status in JobStatus if status is not JobStatus.UNKNOWN},
    "canceled": JobStatus.CANCELLED,
}

_converter = Converter(detailed_validation=False)
"""Has one hook, `_read_job`, that reads a record field by field: with a hook of cattrs for each field a record takes a
third more time, because the outcome and `raw` need the whole record, which must then be copied first."""

_MAX_NESTED_ERRORS = 5
_LONGEST_TEXT = 5000
"""Characters of a text of the service that are shown, at the most. The record keeps the whole text."""
_LARGEST_TOTAL = 10**9
"""More rows than a queue has. A search of the end of a list doubles its steps up to the total, so a larger one, such as
one of 4,000 digits, would cost thousands of calls."""


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


def _read_account_id(value: object) -> str | None:
    """The id of a user or of an organization as text: a whole number is the id that it writes.

    A value that is no id is `NO_ACCOUNT_ID`, and not absent: the job may be of another user.
    """
    if value is None or isinstance(value, str):
        return value
    return str(value) if type(value) is int else NO_ACCOUNT_ID


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
        organization_id=_read_account_id(value.get("org_id")),
        user_id=_read_account_id(value.get("user_id")),
        raw=value,
    )
