"""Opens a journal, or reads one, by the value that names it: a file of SQLite, or the URL of a PostgreSQL database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

from kling_async._journal.entry import Entry
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.location import (
    DatabaseUrl,
    JournalReference,
    journal_location,
    require_driver,
)
from kling_async._journal.shared_store import SharedStore
from kling_async._journal.store import SoleStore


def open_journal(path: str | os.PathLike[str] | DatabaseUrl | JournalReference) -> WriteAheadJournal:
    """The journal at a path or URL, made if it is missing.

    A file is locked until `WriteAheadJournal.close`; a database is shared with other processes.

    Raises:
        ConfigurationError: It is neither a path nor the URL of a PostgreSQL database.
        JournalError: The file is in use, not a journal, damaged, of a newer version, or cannot be made; or the database
            cannot be used.
    """
    location = journal_location(path, name="path")
    if isinstance(location, DatabaseUrl):
        require_driver(location)
        from kling_async._journal.postgres.store import PostgresStore

        return _make_journal(PostgresStore(location))
    from kling_async._journal.sqlite.store import SqliteStore

    return _make_journal(SqliteStore(location))


def _make_journal(store: SoleStore | SharedStore) -> WriteAheadJournal:
    """The journal over an open store, which is closed if its entries cannot be read."""
    with ExitStack() as opened:
        opened.callback(store.close)
        journal = WriteAheadJournal(store)
        opened.pop_all()
    return journal


def journal_exists(path: str | os.PathLike[str] | DatabaseUrl | JournalReference) -> bool:
    """Whether there is a journal, or another file in its place.

    Raises:
        JournalError: The database cannot be read.
    """
    location = journal_location(path, name="path")
    if isinstance(location, DatabaseUrl):
        require_driver(location)
        from kling_async._journal.postgres.reading import has_journal

        return has_journal(location)
    return os.path.exists(location)  # noqa: PTH110 - never raises


def read_journal(path: str | os.PathLike[str] | DatabaseUrl | JournalReference) -> Iterator[Entry]:
    """The entries of a journal, in order, also while another process writes it; it is not locked or changed.

    Raises:
        JournalError: There is no journal at the path, or it cannot be read.
    """
    location = journal_location(path, name="path")
    if isinstance(location, DatabaseUrl):
        require_driver(location)
        from kling_async._journal.postgres import reading

        return reading.read_entries(location)
    from kling_async._journal.sqlite.reading import read_entries

    return read_entries(location)
