"""The rows of a journal's tables in SQLite, and the statements that read and write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.json_text import decode_record, encode_record, to_json
from kling_async._journal.schema import decode_text, encode_text
from kling_async._journal.transitions import UNKNOWN_STATES_IN_SQL


def _encode_money(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)


def _decode_money(stored: str | None) -> Decimal | None:
    return None if stored is None else Decimal(stored)


def _pass_through(value: Any) -> Any:
    return value


COLUMNS: Mapping[str, Callable[[Any], Any]] = {
    "model": encode_text,
    "payload": to_json,
    "state": str,
    "sent_at": _pass_through,
    "has_service_time": _pass_through,
    "timeout": _pass_through,
    "request_id": encode_text,
    "record": encode_record,
    "error": encode_text,
    "path": encode_text,
    "size_bytes": _pass_through,
    "sha256": _pass_through,
    "cost_usd": _encode_money,
    "attempt_cost_usd": _encode_money,
    "attempts": _pass_through,
    "index": _pass_through,
}
"""By column, how a field of an entry is stored. The number and the identity come before these columns."""


def quote(name: str) -> str:
    """The name of a column in SQL."""
    return f'"{name}"'  # INDEX is a word of SQL


_NAMES = ", ".join(["number", "key", "fingerprint", "occurrence", *map(quote, COLUMNS)])
# Writing a row twice leaves one row.
INSERT = f"INSERT OR REPLACE INTO entries ({_NAMES}) VALUES ({', '.join('?' * (4 + len(COLUMNS)))})"  # noqa: S608 - our own names
SELECT = f"SELECT {_NAMES} FROM entries"  # noqa: S608 - our own names
INSERT_EARLIER = "INSERT OR REPLACE INTO earlier_attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_EARLIER_COLUMNS = {
    **{
        name: f"was.{name}"
        for name in ("state", "sent_at", "has_service_time", "timeout", "request_id", "record", "error")
    },
    "payload": "coalesce(was.payload, entries.payload)",
    "attempt_cost_usd": "was.cost_usd",
    "attempts": "was.attempt",
}
SELECT_UNKNOWN_ATTEMPTS = (
    f"SELECT number, key, fingerprint, occurrence, {', '.join(_EARLIER_COLUMNS.get(name, f'entries.{quote(name)}') for name in COLUMNS)}"  # noqa: S608 - our own names
    " FROM earlier_attempts AS was JOIN entries USING (number) WHERE was.request_id IS NULL"
    f" AND was.state IN {UNKNOWN_STATES_IN_SQL} AND was.attempt < attempts"
)
HAS_JOB = (
    "SELECT EXISTS (SELECT 1 FROM entries WHERE request_id = ?)"
    " OR EXISTS (SELECT 1 FROM earlier_attempts WHERE request_id = ?)"
)


def build_entry(row: Sequence[Any]) -> Entry:
    """The entry of a row that `SELECT` reads."""
    number, key, fingerprint, occurrence, model, payload, state, sent_at, *rest = row
    (
        has_service_time,
        timeout,
        request_id,
        record,
        error,
        path,
        size_bytes,
        sha256,
        cost_usd,
        attempt_cost_usd,
        attempts,
        index,
    ) = rest
    return Entry(
        number=number,
        index=index,
        identity=Identity(decode_text(key), fingerprint, occurrence),
        model=str(decode_text(model)),
        payload=json.loads(payload),
        state=EntryState(state),
        sent_at=sent_at,
        has_service_time=bool(has_service_time),
        timeout=timeout,
        request_id=decode_text(request_id),
        record=decode_record(record),
        error=decode_text(error),
        path=decode_text(path),
        size_bytes=size_bytes,
        sha256=sha256,
        cost_usd=_decode_money(cost_usd),
        attempt_cost_usd=_decode_money(attempt_cost_usd),
        attempts=attempts,
    )


def build_row(change: Mapping[str, Any]) -> list[Any]:
    """The row of a change of all fields, for `INSERT`."""
    identity: Identity = change["identity"]
    values = [encode(change[name]) for name, encode in COLUMNS.items()]
    return [change["number"], encode_text(identity.key), identity.fingerprint, identity.occurrence, *values]


def build_earlier_row(entry: Entry) -> tuple[Any, ...]:
    """The row of an entry as it was before a new attempt, for `INSERT_EARLIER`."""
    return (
        entry.number,
        entry.attempts,
        str(entry.state),
        entry.sent_at,
        encode_text(entry.request_id),
        encode_record(entry.record),
        encode_text(entry.error),
        _encode_money(entry.attempt_cost_usd),
        to_json(entry.payload),
        entry.has_service_time,
        entry.timeout,
    )
