"""The store over SQLite: one connection that writes, in worker threads, and one that reads beside it."""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path
from typing import Any

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.opening import check, connect, has_leftovers, hold, make_if_missing, resolved, told
from kling_async._journal.schema import MIGRATIONS, Migration, migrate, undo
from kling_async._journal.store import Changes
from kling_async.errors import JournalError

_PAGE = 500
_to_json = json.JSONEncoder(separators=(",", ":"), default=str).encode
"""Escapes what is not ASCII: so whatever text goes in comes out."""
_IN_WRITING = "free the disk or mend the folder, then run the same call again; what it holds already is safe"
_IN_READING = "check its disk; what it holds was left as it is"


def _text(text: str | None) -> str | bytes | None:
    """SQLite takes no lone surrogates, which a path may have: such a text goes as bytes."""
    if text is None or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")
    return text


def _text_back(stored: str | bytes | None) -> str | None:
    return stored.decode(errors="surrogatepass") if isinstance(stored, bytes) else stored


def _record(record: Mapping[str, Any] | None) -> str | None:
    """The record; none where it is nested too deep to be written."""
    try:
        return None if record is None else _to_json(record)
    except (RecursionError, ValueError):
        return None


def _record_back(stored: str | None) -> dict[str, Any] | None:
    try:
        record = json.loads(stored or "null")
    except (RecursionError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _money(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount)


def _money_back(stored: str | None) -> Decimal | None:
    return None if stored is None else Decimal(stored)


def _same(value: Any) -> Any:
    return value


_COLUMNS: Mapping[str, Callable[[Any], Any]] = {
    "model": _text,
    "payload": _to_json,
    "state": str,
    "sent_at": _same,
    "request_id": _text,
    "record": _record,
    "error": _text,
    "path": _text,
    "size_bytes": _same,
    "sha256": _same,
    "cost_usd": _money,
    "attempt_cost_usd": _money,
    "attempts": _same,
}
"""By column, how a field of an entry goes in; its number and its identity stand before them."""

_NAMES = ", ".join(["number", "key", "fingerprint", "occurrence", *_COLUMNS])
# A row that is written twice is the same row.
_INSERT = f"INSERT OR REPLACE INTO entries ({_NAMES}) VALUES ({', '.join('?' * (4 + len(_COLUMNS)))})"  # noqa: S608 - our own names
_SELECT = f"SELECT {_NAMES} FROM entries"  # noqa: S608 - our own names
_KEEP = "INSERT OR REPLACE INTO earlier_attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_IN_DOUBT = f"('{EntryState.INTENDED}', '{EntryState.AMBIGUOUS}')"
_WAS = {
    **{name: f"was.{name}" for name in ("state", "sent_at", "request_id", "record", "error")},
    "attempt_cost_usd": "was.cost_usd",
    "attempts": "was.attempt",
}
_SELECT_DOUBTS = (
    f"SELECT number, key, fingerprint, occurrence, {', '.join(_WAS.get(name, f'entries.{name}') for name in _COLUMNS)}"  # noqa: S608 - our own names
    " FROM earlier_attempts AS was JOIN entries USING (number) WHERE was.request_id IS NULL"
    f" AND was.state IN {_IN_DOUBT} AND was.attempt < attempts"
)
_OWNS = (
    "SELECT EXISTS (SELECT 1 FROM entries WHERE request_id = ?1)"
    " OR EXISTS (SELECT 1 FROM earlier_attempts WHERE request_id = ?1)"
)


def _entry(row: Sequence[Any]) -> Entry:
    number, key, fingerprint, occurrence, model, payload, state, sent_at, request_id, record, *rest = row
    error, path, size_bytes, sha256, cost_usd, attempt_cost_usd, attempts = rest
    return Entry(
        number=number,
        identity=Identity(_text_back(key), fingerprint, occurrence),
        model=str(_text_back(model)),
        payload=json.loads(payload),
        state=EntryState(state),
        sent_at=sent_at,
        request_id=_text_back(request_id),
        record=_record_back(record),
        error=_text_back(error),
        path=_text_back(path),
        size_bytes=size_bytes,
        sha256=sha256,
        cost_usd=_money_back(cost_usd),
        attempt_cost_usd=_money_back(attempt_cost_usd),
        attempts=attempts,
    )


class SqliteStore:
    """The entries in one file of SQLite, locked against everyone else who would write.

    Args:
        path: The file; it is made if there is none.
        migrations: What brings older files to the present version.

    Raises:
        JournalError: It is in use, no journal, damaged, of a newer version, or cannot be made there.
    """

    def __init__(self, path: str | os.PathLike[str], *, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        self.path = Path(path)
        place = resolved(path)
        if not place.with_name(place.name + "-lock").exists() and place.exists():
            check(place, newest=len(migrations), whole=False)  # a foreign file gets no lock beside it
        self._turn = threading.Lock()
        with ExitStack() as held:
            held.enter_context(closing(hold(place)))
            is_new = make_if_missing(place, migrations)
            version = len(migrations) if is_new else check(place, newest=len(migrations))
            with told(self.path, "opened", _IN_WRITING):
                self._writer = held.enter_context(closing(connect(place)))
                self._writer.execute("PRAGMA synchronous = FULL")
                migrate(self._writer, version=version, migrations=migrations)
                self._reader = held.enter_context(closing(connect(place)))
                ((self.last_number,),) = self._read("SELECT coalesce(max(number), 0) FROM entries")
            self._held = held.pop_all()

    def commit(self, changes: Changes) -> None:
        """Write the changes as one; see `Store`."""
        with self._turn, told(self.path, "written", _IN_WRITING):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                self._write(changes)
                self._writer.execute("COMMIT")
            except BaseException:
                undo(self._writer)
                raise

    def _write(self, changes: Changes) -> None:
        execute_many = self._writer.executemany
        if changes.earlier:
            execute_many(_KEEP, map(_earlier_row, changes.earlier))
        inserts = []
        updates: defaultdict[tuple[str, ...], list[list[Any]]] = defaultdict(list)
        for number, change in changes.fields.items():
            if "identity" in change:
                inserts.append(_row(change))
            else:
                updates[tuple(change)].append([*(_COLUMNS[name](change[name]) for name in change), number])
        if inserts:
            execute_many(_INSERT, inserts)
        for names, rows in updates.items():
            fields = ", ".join(f"{name} = ?" for name in names)
            execute_many(f"UPDATE entries SET {fields} WHERE number = ?", rows)  # noqa: S608 - names of our fields

    def find(self, identity: Identity) -> Entry | None:
        """The entry of this identity; see `Store`."""
        where = "WHERE fingerprint = ? AND occurrence = ? AND key IS ?"
        rows = self._read(
            f"{_SELECT} {where}", identity.fingerprint, identity.occurrence, _text(identity.key)
        )
        return _entry(rows[0]) if rows else None

    def entry(self, number: int) -> Entry | None:
        """The entry of this number; see `Store`."""
        rows = self._read(f"{_SELECT} WHERE number = ?", number)
        return _entry(rows[0]) if rows else None

    def page(self, after: int) -> Sequence[Entry]:
        """The next entries by number; see `Store`."""
        return _page(self._read, after)

    def has_job(self, request_id: str) -> bool:
        """Whether an entry has, or had, this id; see `Store`."""
        return bool(self._read(_OWNS, _text(request_id))[0][0])

    def unresolved(self) -> Sequence[int]:
        """The numbers of the entries with a POST whose fate is unknown; see `Store`."""
        where = f"WHERE request_id IS NULL AND state IN {_IN_DOUBT}"
        return [number for (number,) in self._read(f"SELECT number FROM entries {where}")]  # noqa: S608 - our own names

    def unknown_attempts(self) -> Sequence[Entry]:
        """Entries as they were where that POST's fate is unknown; see `Store`."""
        return [_entry(row) for row in self._read(_SELECT_DOUBTS)]

    def spent_usd(self) -> Decimal:
        """The sum of what all entries cost; see `Store`."""
        rows = self._read(
            "SELECT cost_usd, count(*) FROM entries WHERE cost_usd IS NOT NULL GROUP BY cost_usd"
        )
        return sum((Decimal(cost) * count for cost, count in rows), Decimal(0))

    def _read(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with told(self.path, "read", _IN_READING):
            return self._reader.execute(statement, values).fetchall()

    def close(self) -> None:
        """Let go of everything; see `Store`."""
        with self._turn:
            self._held.close()


def _row(change: Mapping[str, Any]) -> list[Any]:
    identity: Identity = change["identity"]
    values = [go_in(change[name]) for name, go_in in _COLUMNS.items()]
    return [change["number"], _text(identity.key), identity.fingerprint, identity.occurrence, *values]


def _earlier_row(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.number,
        entry.attempts,
        str(entry.state),
        entry.sent_at,
        _text(entry.request_id),
        _record(entry.record),
        _text(entry.error),
        _money(entry.attempt_cost_usd),
    )


def _page(read: Callable[..., list[tuple[Any, ...]]], after: int) -> list[Entry]:
    rows = read(f"{_SELECT} WHERE number > ? ORDER BY number LIMIT ?", after, _PAGE)
    return [_entry(row) for row in rows]


def read(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """All entries of a journal that another process may be writing; nothing is locked or changed.

    Raises:
        JournalError: There is no journal, or it cannot be read.
    """
    shown, place = Path(path), resolved(path)
    if not place.exists():
        raise JournalError(f"There is no journal {str(shown)!r}.")
    version = check(place, whole=False)
    if version < len(MIGRATIONS):
        raise JournalError(
            f"The journal {str(shown)!r} was made by an older version of kling_async; resuming it once brings it "
            "up to date."
        )
    return _entries(shown, place)


def _entries(shown: Path, place: Path) -> Iterator[Entry]:
    # A connection that may write takes its traces away when it goes; one that may not lets a kill's traces be.
    mode = "mode=ro" if has_leftovers(place) else "mode=rw"
    with told(shown, "read", _IN_READING), closing(connect(place, mode=mode)) as connection:
        last = 0
        while entries := _page(
            lambda statement, *values: connection.execute(statement, values).fetchall(), last
        ):
            yield from entries
            last = entries[-1].number
