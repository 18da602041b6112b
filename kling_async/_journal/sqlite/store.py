"""The store over SQLite: one connection writes, in worker threads, and another reads."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

from kling_async._callbacks import SafeLogger
from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.sqlite.journal_files import (
    OpenFiles,
    check_files,
    check_folder,
    check_for_copy,
    describe_loss,
    lock_of,
    reserve_files,
)
from kling_async._journal.sqlite.opening import (
    acquire_lock,
    check_file,
    connect,
    journal_errors,
    make_copy,
    make_if_missing,
    resolve_path,
)
from kling_async._journal.sqlite.rows import (
    COLUMNS,
    HAS_JOB,
    INSERT,
    INSERT_EARLIER,
    SELECT,
    SELECT_UNKNOWN_ATTEMPTS,
    build_earlier_row,
    build_entry,
    build_row,
    quote,
    read_money,
    read_page,
)
from kling_async._journal.sqlite.schema import (
    MIGRATIONS,
    Migration,
    decode_text,
    encode_text,
    migrate,
    roll_back,
)
from kling_async._journal.store import PendingWrites, StoreStart
from kling_async._journal.transitions import UNKNOWN_STATES_IN_SQL
from kling_async.errors import JournalError
from kling_async.lines import one_line

_log = SafeLogger("kling_async")
_WRITE_ADVICE = (
    "free some disk space or fix the folder, then run the same call again; what the journal holds is safe"
)
READ_ADVICE = "check the disk; the journal was left as it is"


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
        self.name = str(self.path)
        real_path = resolve_path(path)
        self.location = str(real_path)
        check_folder(real_path)
        check_files(real_path)
        check_for_copy(real_path)
        if not lock_of(real_path).exists() and real_path.exists():
            # Before the lock is made: a foreign file gets none beside it.
            check_file(real_path, newest=len(migrations), whole=False)
        self._lock = threading.Lock()
        self._loss: str | None = None
        """Why nothing is written to the file any more."""
        self._copy: Path | None = None
        """Where everything is written since then; None if there is no copy."""
        self._is_closed = False
        with ExitStack() as resources:
            resources.enter_context(closing(acquire_lock(real_path)))
            is_new = make_if_missing(real_path, migrations)
            version = len(migrations) if is_new else check_file(real_path, newest=len(migrations))
            with journal_errors(self.path, "opened", _WRITE_ADVICE):
                resources.enter_context(reserve_files(real_path))
                self._writer = resources.enter_context(closing(connect(real_path)))
                _prepare(self._writer)
                migrate(self._writer, version=version, migrations=migrations)
                self._reader = resources.enter_context(closing(connect(real_path)))
                self._files = OpenFiles(real_path)
                self._version = _read_version(self._writer)
            self._resources = resources.pop_all()

    def commit(self, changes: PendingWrites) -> None:
        """Write the changes as one; see `Store`.

        The files are compared before, so that nothing is written into another journal, and after, so that no POST relies
        on an intent that no later run will find.

        Raises:
            JournalError: Also if a file of the journal is lost. The changes are in the copy then.
        """
        with self._lock, journal_errors(self.path, "written", _WRITE_ADVICE):
            self._note_loss()
            if self._loss is None or self._copy is not None:
                self._write_as_one(changes)
                self._note_loss()
            if self._loss is not None:
                raise JournalError(self._loss)

    def _write_as_one(self, changes: PendingWrites) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._check_version()
            self._write(changes)
            self._writer.execute("COMMIT")
        except BaseException:
            roll_back(self._writer)
            raise
        finally:
            self._files.mark_written()

    def _check_version(self) -> None:
        """Do nothing unless another process has written to the file, which has to be locked against it.

        Such a lock can get lost: where this process closes any other descriptor of the lock file, as to copy the folder
        does, and on file systems without locks. Both processes would then submit the same items.
        Source: https://www.sqlite.org/howtocorrupt.html#posix_close_bug

        Raises:
            JournalError: It has.
        """
        if _read_version(self._writer) != self._version:
            raise JournalError(
                f"The journal {self.name!r} was written by another process while it was in use, so nothing more is sent: "
                "end one of the two, and run the same call again. It continues all items."
            )

    def _note_loss(self) -> None:
        """Note whether a file of the journal is lost; if so, all that the connections still have is saved in a copy."""
        if self._is_closed or self._loss is not None or (what := self._files.find_loss()) is None:
            return
        jobs = self._list_jobs()
        with suppress(JournalError, OSError, sqlite3.Error):  # the message says that there is no copy
            if not self._files.is_overwritten():
                self._copy = self._start_copy()
                self._files.remove_orphans()
        self._loss = describe_loss(self.path, what, copy=self._copy)
        if self._copy is None:
            _log.warning("%s These jobs were in the journal: %s", self._loss, ", ".join(jobs) or "none")

    def _start_copy(self) -> Path:
        """Write to a copy from now on; its path."""
        path = make_copy(self._writer, self._files.path)
        self._resources.enter_context(reserve_files(path))
        self._writer = self._resources.enter_context(closing(connect(path)))
        _prepare(self._writer)
        self._version = _read_version(self._writer)
        return path

    def _list_jobs(self) -> list[str]:
        """The ids of all jobs in the journal, as far as they can be read."""
        try:
            rows = self._writer.execute(
                "SELECT request_id FROM entries WHERE request_id IS NOT NULL"
            ).fetchall()
        except sqlite3.Error:
            return []
        return [one_line(str(decode_text(request_id))) for (request_id,) in rows]

    def _write(self, changes: PendingWrites) -> None:
        execute_many = self._writer.executemany
        if changes.earlier:
            execute_many(INSERT_EARLIER, map(build_earlier_row, changes.earlier))
        inserts = []
        updates: defaultdict[tuple[str, ...], list[list[Any]]] = defaultdict(list)
        for number, change in changes.fields.items():
            if "identity" in change:
                inserts.append(build_row(change))
            else:
                values = (COLUMNS[name].encode(value) for name, value in change.items())
                updates[tuple(change)].append([*values, number])
        if inserts:
            execute_many(INSERT, inserts)
        for names, rows in updates.items():
            fields = ", ".join(f"{quote(name)} = ?" for name in names)
            execute_many(f"UPDATE entries SET {fields} WHERE number = ?", rows)  # noqa: S608 - names of our fields

    def find(self, identity: Identity) -> Entry | None:
        """The entry of this identity; see `Store`."""
        where = "WHERE fingerprint = ? AND occurrence = ? AND key IS ?"
        rows = self._query(
            f"{SELECT} {where}", identity.fingerprint, identity.occurrence, encode_text(identity.key)
        )
        return build_entry(rows[0]) if rows else None

    def entry(self, number: int) -> Entry | None:
        """The entry of this number; see `Store`."""
        rows = self._query(f"{SELECT} WHERE number = ?", number)
        return build_entry(rows[0]) if rows else None

    def page(self, after: int, *, unpriced: bool = False) -> Sequence[Entry]:
        """The next entries by number; see `Store`."""
        return read_page(self._query, after, unpriced=unpriced)

    def has_job(self, request_id: str) -> bool:
        """Whether an entry has, or had, this id; see `Store`."""
        wanted = encode_text(request_id)
        return bool(self._query(HAS_JOB, wanted, wanted)[0][0])

    def read_start(self) -> StoreStart:
        """What there is before the first commit; see `SoleStore`."""
        ((last_number,),) = self._query("SELECT coalesce(max(number), 0) FROM entries")
        where = f"WHERE request_id IS NULL AND state IN {UNKNOWN_STATES_IN_SQL}"
        rows = self._query(f"SELECT number, state FROM entries {where}")  # noqa: S608 - our own names
        return StoreStart(
            last_number=last_number,
            unknown_states={number: EntryState(state) for number, state in rows},
            unknown_attempts=[build_entry(row) for row in self._query(SELECT_UNKNOWN_ATTEMPTS)],
        )

    def spent_usd(self) -> Decimal:
        """The sum of what all entries cost; see `Store`."""
        rows = self._query(
            "SELECT cost_usd, count(*) FROM entries WHERE cost_usd IS NOT NULL GROUP BY cost_usd"
        )
        with journal_errors(self.path, "read", READ_ADVICE):
            return sum((read_money(cost) * count for cost, count in rows), Decimal(0))

    def _query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with journal_errors(self.path, "read", READ_ADVICE):
            return self._reader.execute(statement, values).fetchall()

    def close(self) -> None:
        """Unlock the file; see `Store`.

        Raises:
            JournalError: A file of the journal was lost since the last commit. The file is unlocked all the same.
        """
        with self._lock:
            known_loss = self._loss
            try:
                self._note_loss()
            finally:
                self._is_closed = True
                self._resources.close()
            if self._loss != known_loss:
                raise JournalError(self._loss or "")


def _read_version(writer: sqlite3.Connection) -> int:
    """A number that changes when another connection commits. Source: PRAGMA data_version in the documentation of SQLite."""
    (version,) = writer.execute("PRAGMA data_version").fetchone()
    return int(version)


def _prepare(writer: sqlite3.Connection) -> None:
    """Make each commit last, and bring a file without a write-ahead log, such as one that was recovered, to the WAL mode."""
    writer.execute("PRAGMA synchronous = FULL")
    if writer.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        # SQLite would use the reserved rollback journal for the one sector that it writes now, and remove it then.
        writer.execute("PRAGMA journal_mode = OFF")
        writer.execute("PRAGMA journal_mode = WAL")
