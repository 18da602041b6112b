"""Events of workers as small JSON texts for `NOTIFY`, and back. A text can get lost: the rows of the database are the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import attrs

from kling_async import events
from kling_async._distributed.outcomes import dump_error, load_error, saved_place
from kling_async.errors import KlingError
from kling_async.events import Event
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.results import ResultState

MAX_PAYLOAD_BYTES = 7_900
"""PostgreSQL takes payloads shorter than 8,000 bytes. Source: its documentation of NOTIFY."""
_MAX_TEXT = 400
"""Characters of one text: a message that is longer is cut."""
_KINDS: Mapping[str, type[Event]] = {
    name: value
    for name in events.__all__
    if isinstance(value := getattr(events, name), type) and issubclass(value, Event)
}


def dump_event(number: int, event: Event) -> str:
    """The event as a JSON text without what is long: the payload and the raw record of a job.

    Args:
        number: The number of the entry that the event is about: an index has a meaning for one call alone.
        event: The event.
    """
    values: dict[str, Any] = {"number": number, "kind": type(event).__name__}
    for field in attrs.fields(type(event)):
        value = getattr(event, field.name)
        if value is not None:
            values[field.name] = _dump(value)
    return json.dumps(values, separators=(",", ":"))


def _dump(value: Any) -> Any:
    match value:
        case Job():
            return _dump_job(value)
        case KlingError():
            return {
                name: part[:_MAX_TEXT] if isinstance(part, str) else part
                for name, part in dump_error(value).items()
                if name != "body"
            }
        case Enum():
            return value.value
        case Decimal() | Path():
            return str(value)
    return value


def _dump_job(job: Job) -> dict[str, Any]:
    values: dict[str, Any] = {"request_id": job.request_id, "status": job.status.value, "model": job.model}
    if job.outcome is not None:
        values |= {"video": job.video_url, "thumbnail": job.thumbnail_url, "error": job.outcome.error}
    return {
        name: value
        for name, value in values.items()
        if value is not None and (name == "request_id" or len(value) <= _MAX_TEXT)
    }


def pack_events(texts: Iterable[str]) -> Iterator[str]:
    """Payloads for `NOTIFY`, each a JSON list of as many events as fit; an event that is too long is left out."""
    pack: list[str] = []
    size = 2
    for text in texts:
        needed = len(text.encode()) + 1
        if needed + 2 > MAX_PAYLOAD_BYTES:
            continue
        if size + needed > MAX_PAYLOAD_BYTES:
            yield f"[{','.join(pack)}]"
            pack, size = [], 2
        pack.append(text)
        size += needed
    if pack:
        yield f"[{','.join(pack)}]"


def unpack_events(payload: str) -> list[tuple[int, Event]]:
    """The events of a payload, each with the number of its entry, without those that this release cannot read."""
    try:
        values = json.loads(payload)
    except ValueError:
        return []
    if not isinstance(values, list):
        return []
    return [event for value in values if (event := _load_event(value)) is not None]


def _load_event(value: Any) -> tuple[int, Event] | None:
    try:
        fields = dict(value)
        number = int(fields.pop("number"))
        kind = _KINDS[fields.pop("kind")]
        return number, kind(**{name: _LOADERS[name](part) for name, part in fields.items()})
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None


def _load_job(value: Mapping[str, Any]) -> Job:
    outcome = None
    if "video" in value or "thumbnail" in value or "error" in value:
        media = (Media(value["video"]),) if "video" in value else ()
        outcome = Outcome(media=media, thumbnail_url=value.get("thumbnail"), error=value.get("error"))
    return Job(
        request_id=value["request_id"],
        status=JobStatus(value["status"]),
        model=value.get("model"),
        outcome=outcome,
    )


_LOADERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("at", "delay"), float),
    **dict.fromkeys(("index", "size_bytes", "total_bytes", "attempt"), int),
    **dict.fromkeys(("request_id", "call"), str),
    **dict.fromkeys(("cost_usd", "total_usd"), Decimal),
    **dict.fromkeys(("status", "previous"), JobStatus),
    "state": ResultState,
    "path": saved_place,
    "job": _load_job,
    "error": load_error,
}
