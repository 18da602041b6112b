"""Entries as rows of a table: any text survives, also text that PostgreSQL refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.json_text import decode_record, encode_record, to_json
from kling_async._journal.shared_store import WantedItem
from kling_async._journal.store import EARLIER_COLUMNS, refuse_row
from kling_async._journal.stored_entry import Decoder, build_stored_entry, list_decoders, pass_through


def encode_text(text: str | None) -> str | None:
    """The text; as JSON if it has a NUL or a lone surrogate, which PostgreSQL refuses, or begins as JSON does."""
    if text is None or (not text.startswith('"') and "\0" not in text and _is_utf8(text)):
        return text
    return json.dumps(text)


def decode_text(stored: str | None) -> str | None:
    """The text that was encoded."""
    if stored is None or not stored.startswith('"'):
        return stored
    return str(json.loads(stored))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Column(NamedTuple):
    type: str
    """In PostgreSQL."""
    encode: Callable[[Any], Any] = pass_through
    decode: Decoder = pass_through


COLUMNS: Mapping[str, _Column] = {
    "model": _Column("text", encode_text, decode_text),
    "payload": _Column("text", to_json, json.loads),
    "state": _Column("text", str, EntryState),
    "sent_at": _Column("double precision"),
    "has_service_time": _Column("boolean"),
    "timeout": _Column("double precision"),
    "request_id": _Column("text", encode_text, decode_text),
    "record": _Column("text", encode_record, decode_record),
    "error": _Column("text", encode_text, decode_text),
    "path": _Column("text", encode_text, decode_text),
    "size_bytes": _Column("bigint"),
    "sha256": _Column("text"),
    "cost_usd": _Column("numeric"),
    "attempt_cost_usd": _Column("numeric"),
    "attempts": _Column("integer"),
    "index": _Column("bigint"),
}
"""By field of an entry, its column. The number and the identity have columns of their own."""
_DECODERS = list_decoders({name: column.decode for name, column in COLUMNS.items()}, decode_text=decode_text)


def quote_name(name: str) -> str:
    """The name of a column in a statement."""
    return f'"{name}"'


NAMES = ", ".join(map(quote_name, COLUMNS))
IDENTITY = "number, key, fingerprint, occurrence"


def identity_digest(identity: Identity) -> str:
    """The digest by which the table finds an entry: an index takes no text as long as a key can be."""
    text = to_json([identity.key, identity.fingerprint, identity.occurrence])
    return hashlib.sha256(text.encode()).hexdigest()


def build_row(entry: Entry) -> list[Any]:
    """The values of `COLUMNS`."""
    return [column.encode(getattr(entry, name)) for name, column in COLUMNS.items()]


def build_entry(row: Sequence[Any], digest: str | None = None) -> Entry:
    """The entry of a row with the columns of `IDENTITY` and `COLUMNS`.

    Args:
        row: The values, as the table has them.
        digest: The digest by which the table has found the entry; None if it was found in another way.

    Raises:
        JournalError: Another program has changed the row.
    """
    entry = build_stored_entry(row, _DECODERS)
    if digest is not None and identity_digest(entry.identity) != digest:
        refuse_row(entry.number, "identity")
    return entry


def columns_of(rows: Sequence[Sequence[Any]], *, width: int) -> list[list[Any]]:
    """Rows as columns, which a statement takes as arrays."""
    return [[row[place] for row in rows] for place in range(width)]


def columns_of_items(items: Sequence[WantedItem]) -> list[list[Any]]:
    """The columns of `MAKE`."""
    rows = [
        [
            identity_digest(item.identity),
            encode_text(item.identity.key),
            item.identity.fingerprint,
            item.identity.occurrence,
            encode_text(item.model),
            to_json(item.payload),
            item.index,
        ]
        for item in items
    ]
    return columns_of(rows, width=7)


def build_earlier_row(entry: Entry) -> list[Any]:
    """The values of `EARLIER_COLUMNS`."""
    return [COLUMNS[field].encode(getattr(entry, field)) for field in EARLIER_COLUMNS]
