"""Reads the entries of a journal that another process may be writing, without locking the file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from kling_async._journal.entry import Entry
from kling_async._journal.sqlite.journal_files import (
    check_readable,
    is_in_shared_folder,
    is_own,
    reserve_writes,
)
from kling_async._journal.sqlite.opening import (
    check_file,
    connect,
    has_leftovers,
    journal_errors,
    resolve_path,
)
from kling_async._journal.sqlite.rows import read_page
from kling_async._journal.sqlite.schema import MIGRATIONS, Migration
from kling_async._journal.sqlite.store import READ_ADVICE, SqliteStore


def read_entries(
    path: str | os.PathLike[str], *, migrations: Sequence[Migration] = MIGRATIONS
) -> Iterator[Entry]:
    """All entries of a journal that another process may be writing; the file is not locked.

    Args:
        path: The file; it is changed only if it is of an older version, which is brought up to date first.
        migrations: What brings older files to the present version.

    Raises:
        JournalError: There is no journal, it cannot be read, or it is of an older version and in use.
    """
    given, real_path = Path(path), resolve_path(path)
    check_readable(real_path)
    if check_file(real_path, newest=len(migrations), whole=False) < len(migrations):
        SqliteStore(path, migrations=migrations).close()
    return _iterate_entries(given, real_path)


def _iterate_entries(given: Path, real_path: Path) -> Iterator[Entry]:
    with journal_errors(given, "read", READ_ADVICE), closing(_connect_to_read(real_path)) as connection:
        last = 0
        while entries := read_page(
            lambda statement, *values: connection.execute(statement, values).fetchall(), last
        ):
            yield from entries
            last = entries[-1].number


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that brings no file of another user into the journal.

    A read-write connection removes its side files when it closes; a read-only one leaves those of a killed process, and
    writes nothing that it finds beside the journal into the journal.
    """
    if is_in_shared_folder(path):
        if is_own(path):
            reserve_writes(path)
        return connect(path, mode="mode=ro")
    return connect(path, mode="mode=ro" if has_leftovers(path) else "mode=rw")
