"""The file of a journal: locked by one process, made completely or not at all, and checked before it is changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from kling_async._descriptors import find_lack_of_descriptors
from kling_async._durable import move_into_place
from kling_async._journal.sqlite.journal_files import check_files, check_link, copy_of, lock_of, reserve_files
from kling_async._journal.sqlite.schema import APPLICATION_ID, MIGRATIONS, Migration, migrate
from kling_async._own_files import create, create_if_missing
from kling_async.errors import JournalError
from kling_async.lines import reason_of

_BUSY_TIMEOUT = 5.0
"""Seconds to wait for another program that reads the journal."""
_FILE_SUFFIXES = ("", "-wal", "-shm", "-journal")


@contextmanager
def journal_errors(path: Path, action: str, advice: str) -> Iterator[None]:
    """Translate errors of SQLite and of the system to a `JournalError` of one sentence."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as error:
        cause = _real_cause(error)
        reason = reason_of(cause)
        raise JournalError(
            f"The journal {str(path)!r} could not be {action} ({reason}): {advice}."
        ) from cause


def _real_cause(error: Exception) -> Exception:
    """The lack of file descriptors, which SQLite does not name, if that is why a file could not be opened."""
    if _primary_code(error) != sqlite3.SQLITE_CANTOPEN:
        return error
    return find_lack_of_descriptors() or error


def connect(path: Path, *, mode: str = "mode=rw", busy_timeout: float = _BUSY_TIMEOUT) -> sqlite3.Connection:
    """A connection without automatic transactions, for any thread, one at a time."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
    )


def resolve_path(path: str | os.PathLike[str]) -> Path:
    """The real path of the file, with links followed.

    Raises:
        JournalError: The path is a folder, its folder does not exist, or it is a link of another user.
    """
    given = Path(path)
    with journal_errors(given, "opened", "give the path of a file"):
        real = Path(os.path.realpath(given))
        if real.is_dir():
            raise JournalError(
                f"The journal {str(given)!r} is a folder: give the path of a file, such as 'run.db'."
            )
        if not real.parent.is_dir():
            raise JournalError(
                f"The journal {str(given)!r} cannot be made: there is no folder {str(real.parent)!r}. Make it first."
            )
        check_link(given)
    with journal_errors(given, "opened", "give it a shorter name"), suppress(FileNotFoundError):
        os.lstat(f"{real}{_FILE_SUFFIXES[-1]}")  # the longest name of the files beside it
    return real


def acquire_lock(path: Path) -> sqlite3.Connection:
    """A lock on the journal, until it is closed or this process ends in any way.

    The lock is a file of its own that is never removed: removing it while another process waits would give both the
    lock.

    Raises:
        JournalError: Another process has the lock, the folder cannot be written, or a file of the journal is not ours.
    """
    advice = f"check that the folder {str(path.parent)!r} exists and can be written"
    with journal_errors(path, "opened", advice):
        create_if_missing(lock_of(path))
        check_files(path)
        lock = connect(lock_of(path), busy_timeout=0.0)
        try:
            lock.execute("PRAGMA journal_mode = MEMORY")  # nothing is written to it
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            lock.close()
            if _primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
            raise JournalError(
                f"The journal {str(path)!r} is in use by another process, or by another Journal in this one: "
                "wait until that ends, or give this run a journal of its own."
            ) from error
    return lock


def _primary_code(error: Exception) -> int:
    """The primary error code of SQLite; 0 for an error of Python's own module."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def make_if_missing(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> bool:
    """Make an empty journal if the file is missing; True if it did. Call it only under the lock.

    The file is made under another name and renamed when it is complete.

    Raises:
        JournalError: The file cannot be made.
    """
    if path.exists():
        return False
    if has_leftovers(path):
        raise JournalError(
            f"There is no journal {str(path)!r}, but '{path}-wal', which may hold paid jobs of one that was moved "
            "or deleted: put the journal back beside it, or choose another path."
        )
    new = path.with_name(path.name + "-new")
    advice = f"remove {str(new)!r} if it is there, and check that the folder can be written and the disk is not full"
    with journal_errors(path, "made", advice):
        _remove_files(new)
        try:
            _make_empty(new, migrations)
            move_into_place(new, path)
        except BaseException:
            with suppress(OSError):  # the first error says what is wrong
                _remove_files(new)
            raise
    return True


def _make_empty(path: Path, migrations: Sequence[Migration]) -> None:
    create_if_missing(path)
    with reserve_files(path), closing(connect(path)) as connection:
        # Off first, else the way to WAL would use the reserved file, and remove it.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection, version=0, migrations=migrations)


def _remove_files(path: Path) -> None:
    for end in _FILE_SUFFIXES:
        Path(str(path) + end).unlink(missing_ok=True)


def make_copy(connection: sqlite3.Connection, path: Path) -> Path:
    """The path of a new file beside the journal, with all that the connection reads, also from a file that was deleted.

    Raises:
        OSError: The folder takes no file.
        sqlite3.Error: The content cannot be read, or the copy cannot be written.
    """
    number = 1
    while (descriptor := create(copy := copy_of(path, number))) is None:
        number += 1
    os.close(descriptor)
    try:
        with closing(connect(copy)) as target:
            target.execute(
                "PRAGMA journal_mode = OFF"
            )  # a failed copy is removed: it needs no rollback journal
            connection.backup(target)
    except BaseException:
        copy.unlink()
        raise
    return copy


def check_file(path: Path, *, newest: int = len(MIGRATIONS), whole: bool = True) -> int:
    """The version of the journal in this file. Neither the file nor the files beside it are changed.

    Args:
        path: The file.
        newest: The newest known version.
        whole: Check the whole file for damage.

    Raises:
        JournalError: The file is not a journal, of a newer version, or damaged.
    """
    try:
        with closing(connect(path, mode=_read_only_mode(path))) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            _check_kind(path, application=application, version=version, newest=newest)
            if whole and (damage := _find_damage(connection, path)):
                raise _damaged_error(path, damage)
    except sqlite3.Error as error:
        match _primary_code(error):
            case sqlite3.SQLITE_NOTADB:
                raise _foreign_error(path) from error
            case sqlite3.SQLITE_CORRUPT:
                raise _damaged_error(path, str(error)) from error
            case _:
                raise JournalError(
                    f"The journal {str(path)!r} could not be read ({error}): check its permissions."
                ) from _real_cause(error)
    return int(version)


def _find_damage(connection: sqlite3.Connection, path: Path) -> str | None:
    """A description of the damage; None if there is none."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    size_bytes = path.stat().st_size
    if size_bytes < pages * page_bytes and not has_leftovers(path):
        # SQLite would read the missing end of the last page as zeros.
        return f"{size_bytes:,} of {pages * page_bytes:,} bytes"
    found: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    return None if found == "ok" else found.splitlines()[-1]


def _check_kind(path: Path, *, application: int, version: int, newest: int) -> None:
    if application != APPLICATION_ID:
        raise _foreign_error(path)
    if version > newest:
        raise JournalError(
            f"The journal {str(path)!r} was made by a newer version of kling_async (format {version}, this one "
            f"knows up to {newest}). It was left as it is: update kling_async, or choose another path."
        )


def _damaged_error(path: Path, damage: str) -> JournalError:
    return JournalError(
        f"The journal {str(path)!r} is damaged or cut short ({damage}). It was left as it is: put back a copy, or "
        "save what can be read with the sqlite3 shell's .recover.",
        advice="`client.list_jobs()` shows what the service has.",
    )


def _foreign_error(path: Path) -> JournalError:
    return JournalError(
        f"{str(path)!r} is not a journal of kling_async. It was left as it is: choose another path."
    )


def _read_only_mode(path: Path) -> str:
    """A mode that makes no file beside the journal and leaves the writes of a killed process where they are."""
    return "mode=ro" if has_leftovers(path) else "mode=ro&immutable=1"


def has_leftovers(path: Path) -> bool:
    """Whether the write-ahead log beside the file holds writes: a process has it open, or was killed."""
    try:
        return Path(str(path) + "-wal").stat().st_size > 0
    except OSError:
        return False
