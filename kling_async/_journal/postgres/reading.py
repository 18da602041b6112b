"""Reads and makes entries in the tables of a journal, without holding them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from kling_async._journal.entry import Entry, Identity
from kling_async._journal.location import DatabaseUrl
from kling_async._journal.postgres import statements as sql
from kling_async._journal.postgres.connection import Connection, connect, execute, journal_errors
from kling_async._journal.postgres.rows import build_entry, columns_of_items, identity_digest
from kling_async._journal.postgres.schema import check_tables, has_tables
from kling_async._journal.shared_store import WantedItem

PAGE_ROWS = 500
OPEN_ADVICE = "check the URL, that the server runs, and that this user may connect and make tables"


def fetch_value(cursor: psycopg.Cursor[tuple[Any, ...]]) -> Any:
    """The one value of a statement."""
    row = cursor.fetchone()
    assert row is not None
    return row[0]


def read_page(work: Connection, after: int, *, unpriced: bool = False) -> list[Entry]:
    """The next entries by number; empty after the last. See `Store.page`."""
    statement = sql.UNPRICED_PAGE if unpriced else sql.PAGE
    return [build_entry(row) for row in execute(work, statement, [after, PAGE_ROWS]).fetchall()]


def make_missing_entries(work: Connection, items: Sequence[WantedItem]) -> dict[Identity, Entry]:
    """The entries of items, made if they are missing, by identity."""
    texts = [identity_digest(item.identity) for item in items]
    with work.transaction():
        execute(work, sql.MAKE, [None, *columns_of_items(items)])
        execute(work, sql.SET_INDEX, [texts, [item.index for item in items]])
        rows = execute(work, sql.FIND, [texts]).fetchall()
    entries = [build_entry(row, digest) for digest, *row in rows]
    return {entry.identity: entry for entry in entries}


def has_journal(url: DatabaseUrl) -> bool:
    """Whether a database has the tables of a journal.

    Raises:
        JournalError: The database cannot be read, or the tables are not those of a journal.
    """
    with journal_errors(url, "read", OPEN_ADVICE), connect(url) as connection:
        return has_tables(connection, url)


def read_entries(url: DatabaseUrl) -> Iterator[Entry]:
    """All entries of a journal that other processes may be writing.

    Raises:
        JournalError: There is no journal, or it cannot be read.
    """
    with journal_errors(url, "read", OPEN_ADVICE), connect(url) as connection:
        check_tables(connection, url)
    return _iterate_entries(url)


def _iterate_entries(url: DatabaseUrl) -> Iterator[Entry]:
    with journal_errors(url, "read", OPEN_ADVICE), connect(url) as connection:
        last = 0
        while entries := read_page(connection, last):
            yield from entries
            last = entries[-1].number
