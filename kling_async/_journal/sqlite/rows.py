"""The rows of a journal's tables in SQLite, and the statements that read and write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.json_text import decode_record, encode_record, to_json
from kling_async._journal.sqlite.schema import decode_text, encode_text
from kling_async._journal.store import EARLIER_COLUMNS
from kling_async._journal.stored_entry import (
    Decoder,
    build_stored_entry,
    is_amount,
    list_decoders,
    pass_through,
)
from kling_async._journal.transitions import UNKNOWN_STATES_IN_SQL, UNPRICED_IN_SQL

_PAGE_ROWS = 500


def _encode_money(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)


def _decode_money(stored: str | None) -> Decimal | None:
    return None if stored is None else read_money(stored)


def read_money(stored: object) -> Decimal:
    """An amount that the table has.

    Raises:
        ValueError: Another program wrote it.
    """
    try:
        amount = Decimal(str(stored))
    except ArithmeticError:
        amount = Decimal("NaN")
    if not is_amount(amount):
        raise ValueError(f"{stored!r} is no amount of money")
    return amount


def _decode_flag(stored: object) -> object:
    return bool(stored) if stored in {0, 1} else stored


class _Column(NamedTuple):
    encode: Callable[[Any], Any] = pass_through
    decode: Decoder = pass_through


COLUMNS: Mapping[str, _Column] = {
    "model": _Column(encode_text, decode_text),
    "payload": _Column(to_json, json.loads),
    "state": _Column(str, EntryState),
    "sent_at": _Column(),
    "has_service_time": _Column(decode=_decode_flag),
    "timeout": _Column(),
    "request_id": _Column(encode_text, decode_text),
    "record": _Column(encode_record, decode_record),
    "error": _Column(encode_text, decode_text),
    "path": _Column(encode_text, decode_text),
    "size_bytes": _Column(),
    "sha256": _Column(),
    "cost_usd": _Column(_encode_money, _decode_money),
    "attempt_cost_usd": _Column(_encode_money, _decode_money),
    "attempts": _Column(),
    "index": _Column(),
}
"""By field of an entry, how its column stores it. The number and the identity come before these columns."""
_DECODERS = list_decoders({name: column.decode for name, column in COLUMNS.items()}, decode_text=decode_text)


def quote(name: str) -> str:
    """The name of a column in SQL."""
    return f'"{name}"'  # INDEX is a word of SQL


_NAMES = ", ".join(["number", "key", "fingerprint", "occurrence", *map(quote, COLUMNS)])
# Writing a row twice leaves one row.
INSERT = f"INSERT OR REPLACE INTO entries ({_NAMES}) VALUES ({', '.join('?' * (4 + len(COLUMNS)))})"  # noqa: S608 - our own names
SELECT = f"SELECT {_NAMES} FROM entries"  # noqa: S608 - our own names
INSERT_EARLIER = (
    f"INSERT OR REPLACE INTO earlier_attempts (number, {', '.join(EARLIER_COLUMNS.values())})"  # noqa: S608 - our own names
    f" VALUES ({', '.join('?' * (1 + len(EARLIER_COLUMNS)))})"
)
_SOURCES = {field: f"was.{column}" for field, column in EARLIER_COLUMNS.items()} | {
    "payload": "coalesce(was.payload, entries.payload)"  # a journal of version 1 has no payload there
}
SELECT_UNKNOWN_ATTEMPTS = (
    f"SELECT number, key, fingerprint, occurrence, {', '.join(_SOURCES.get(name, f'entries.{quote(name)}') for name in COLUMNS)}"  # noqa: S608 - our own names
    " FROM earlier_attempts AS was JOIN entries USING (number) WHERE was.request_id IS NULL"
    f" AND was.state IN {UNKNOWN_STATES_IN_SQL} AND was.attempt < attempts"
)
HAS_JOB = (
    "SELECT EXISTS (SELECT 1 FROM entries WHERE request_id = ?)"
    " OR EXISTS (SELECT 1 FROM earlier_attempts WHERE request_id = ?)"
)


def build_entry(row: Sequence[Any]) -> Entry:
    """The entry of a row that `SELECT` reads.

    Raises:
        JournalError: Another program has changed the row.
    """
    return build_stored_entry(row, _DECODERS)


def read_page(
    query: Callable[..., list[tuple[Any, ...]]], after: int, *, unpriced: bool = False
) -> list[Entry]:
    """The next entries by number; empty after the last.

    Args:
        query: Returns the rows of a statement with its values.
        after: The number of the last entry before them.
        unpriced: See `Store.page`.
    """
    where = f"number > ? AND {UNPRICED_IN_SQL}" if unpriced else "number > ?"
    rows = query(f"{SELECT} WHERE {where} ORDER BY number LIMIT ?", after, _PAGE_ROWS)
    return [build_entry(row) for row in rows]


def build_row(change: Mapping[str, Any]) -> list[Any]:
    """The row of a change of all fields, for `INSERT`."""
    identity: Identity = change["identity"]
    values = [column.encode(change[name]) for name, column in COLUMNS.items()]
    return [change["number"], encode_text(identity.key), identity.fingerprint, identity.occurrence, *values]


def build_earlier_row(entry: Entry) -> list[Any]:
    """The row of an entry as it was before a new attempt, for `INSERT_EARLIER`."""
    return [entry.number, *(COLUMNS[field].encode(getattr(entry, field)) for field in EARLIER_COLUMNS)]
