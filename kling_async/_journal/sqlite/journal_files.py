"""The files of a journal: of this user alone when they are opened, and still the same files at each commit."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kling_async._own_files import create_if_missing, describe_foreign, is_link_of_another
from kling_async.errors import JournalError

_MAIN, _WRITES, _INDEX, _ROLLBACK, _LOCK, _COPY = "", "-wal", "-shm", "-journal", "-lock", "-saved"
_SQLITE_FILES = (_MAIN, _WRITES, _INDEX, _ROLLBACK)
"""What SQLite opens. SQLite brings the content of a `-wal` or `-journal` that lies there into the main file.

Source: https://www.sqlite.org/tempfiles.html
"""
_HAS_MODES = os.name == "posix"
"""Whether the mode of a folder says who can write it. Windows shows 0o777 for every folder."""
_SHOWS_WRITES = os.name == "posix"
"""Whether the time of a file changes at once with its content. Windows can wait until the file is closed."""


def lock_of(path: Path) -> Path:
    """The lock file of a journal."""
    return _beside(path, _LOCK)


def copy_of(path: Path, number: int = 1) -> Path:
    """The path of a copy that was made when a file of the journal was lost."""
    return _beside(path, _COPY if number == 1 else f"{_COPY}-{number}")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def check_files(path: Path) -> None:
    """Do nothing if each file of the journal that is there is a regular file of this user with one name.

    Args:
        path: The journal, with links followed.

    Raises:
        JournalError: One of the files is a link, a pipe or another user's.
    """
    for file, status in _find_files(_beside(path, suffix) for suffix in (*_SQLITE_FILES, _LOCK)):
        _refuse_foreign(path, file, describe_foreign(status))


def check_readable(path: Path) -> None:
    """Do nothing if the journal is a regular file with one name, and each file beside it is of the same user.

    Raises:
        JournalError: There is no journal, or one of the files is a link, a pipe or a third user's.
    """
    files = dict(_find_files(_beside(path, suffix) for suffix in _SQLITE_FILES))
    if path not in files:
        raise JournalError(f"There is no journal {str(path)!r}.")
    for file, status in files.items():
        _refuse_foreign(path, file, describe_foreign(status, owner=files[path].st_uid))


def check_for_copy(path: Path) -> None:
    """Do nothing unless a run has lost this journal and saved a copy: then the user decides which of both is right.

    Raises:
        JournalError: There is a copy.
    """
    copy = copy_of(path)
    if os.path.lexists(copy):
        raise JournalError(
            f"The journal {str(path)!r} was lost during a run, and {str(copy)!r} has the paid jobs of that run: rename "
            f"the copy to {path.name!r}, or give the copy as the journal; remove it only if you do not need these jobs."
        )


def check_folder(path: Path) -> None:
    """Do nothing unless every user can replace files in the folder of the journal: it has mode 0777, and no sticky bit.

    Raises:
        JournalError: Every user can.
    """
    mode = _mode_of_folder(path)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise JournalError(
            f"The journal {str(path)!r} cannot be used, because every user can replace files in the folder "
            f"{str(path.parent)!r}: keep the journal in a folder that no other user can write, or take that right away "
            "with `chmod o-w`."
        )


def is_in_shared_folder(path: Path) -> bool:
    """Whether other users can make files beside the journal, as in `/tmp`.

    Users of the group of a folder without the sticky bit do not count: such a folder belongs to the group.
    """
    return bool(_mode_of_folder(path) & (stat.S_IWOTH | stat.S_ISVTX))


def is_own(path: Path) -> bool:
    """Whether the journal is a file of this user."""
    return describe_foreign(path.lstat()) is None


def _mode_of_folder(path: Path) -> int:
    return path.parent.stat().st_mode if _HAS_MODES else 0


@contextmanager
def reserve_files(path: Path) -> Iterator[None]:
    """Have a file of ours at each name from which SQLite reads, for as long as the block lasts; call it under the lock.

    SQLite would bring the content of another user's file into the journal. In a folder with the sticky bit no other user
    can replace or remove a file of ours. SQLite ignores an empty rollback journal, and neither removes it nor writes to it
    while the journal is in the WAL mode.
    Source: hasHotJournal in https://www.sqlite.org/src/file/src/pager.c, unixAccess in src/os_unix.c

    Raises:
        JournalError: See `check_files`.
        OSError: The folder takes no file.
    """
    rollback = _beside(path, _ROLLBACK)
    create_if_missing(rollback)
    reserve_writes(path)
    try:
        yield
    finally:
        rollback.unlink(missing_ok=True)


def reserve_writes(path: Path) -> None:
    """Make the file of the newest writes and its index, so that no other user makes them first.

    Raises:
        JournalError: See `check_files`.
        OSError: The folder takes no file.
    """
    create_if_missing(_beside(path, _WRITES))
    create_if_missing(_beside(path, _INDEX))
    check_files(path)


def check_link(path: Path) -> None:
    """Do nothing unless the path is a symbolic link that another user has made; links of the administrator are followed.

    Raises:
        JournalError: It is one.
    """
    if is_link_of_another(path):
        raise JournalError(
            f"The journal {str(path)!r} is a symbolic link of another user, which was not followed: choose another path, "
            "in a folder that no other user can write."
        )


def _find_files(files: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """The files that are there, each with its own status: no link is followed."""
    for file in files:
        try:
            yield file, file.lstat()
        except FileNotFoundError:
            continue


def _refuse_foreign(path: Path, file: Path, reason: str | None) -> None:
    if reason is None:
        return
    advice = "remove it if no process uses the journal" if file != path else "choose another path"
    raise JournalError(
        f"The journal {str(path)!r} cannot be used, because {str(file)!r} is {reason}: {advice}, and keep the journal in "
        "a folder that no other user can write."
    )


def describe_loss(path: Path, what: str, *, copy: Path | None) -> str:
    """The message about a journal that lost a file while it was in use.

    Args:
        path: The journal.
        what: See `OpenFiles.find_loss`.
        copy: The file that has all that the journal had; None if there is none.
    """
    if copy is not None:
        advice = f"A copy with all jobs was saved: run the same call again with {str(copy)!r} as its journal."
    else:
        advice = (
            "Put the journal back before you run the same call again, or that call pays for the same items again; the "
            "log of this run names the jobs."
        )
    return f"The journal {str(path)!r} {what} while it was in use, so nothing more is sent. {advice}"


class OpenFiles:
    """The files of an open journal, which SQLite goes on using after they were moved, deleted or replaced.

    Source: https://www.sqlite.org/howtocorrupt.html#unlink

    Args:
        path: The journal, with links followed; its connections are open, and have read from it.

    Raises:
        JournalError: One of the files is a link, a pipe or another user's.
    """

    def __init__(self, path: Path) -> None:
        check_files(path)
        self.path = path
        # Made once: each commit looks at them several times, and to make them costs more than that look.
        self._files = [_beside(path, suffix) for suffix in (_MAIN, _WRITES, _INDEX, _LOCK)]
        self._opened = self._find()
        self._written = self._opened[path]
        self._written_at = time.time_ns()

    def _find(self) -> dict[Path, os.stat_result]:
        return dict(_find_files(self._files))

    def _find_main(self) -> os.stat_result | None:
        return dict(_find_files([self.path])).get(self.path)

    def mark_written(self) -> None:
        """Take note that this process may just have written to the main file."""
        self._written = self._find_main() or self._written
        self._written_at = time.time_ns()

    def find_loss(self) -> str | None:
        """What happened to one of the files since it was opened, as the end of a sentence; None if nothing did."""
        now = self._find()
        for file, opened in self._opened.items():
            if file in now and os.path.samestat(now[file], opened):
                continue
            action = "replaced by another file" if file in now else "moved or deleted"
            return f"was {action}" if file == self.path else f"lost {file.name!r}, which was {action}"
        return "was overwritten by another program" if self.is_overwritten() else None

    def is_overwritten(self) -> bool:
        """Whether another program has written to the main file since this process did.

        Some file systems show the time of a write late. A time between the one that was seen and the end of the last write
        is of that write, unless the file is shorter: SQLite shortens no journal.
        """
        now = self._find_main()
        if (
            now is None
            or not os.path.samestat(now, self._written)
            or _content_of(now) == _content_of(self._written)
        ):
            return False
        if now.st_size < self._written.st_size:
            return True
        return _SHOWS_WRITES and not self._written.st_mtime_ns <= now.st_mtime_ns <= self._written_at

    def remove_orphans(self) -> None:
        """Remove the writes of this journal if its main file is elsewhere; call it when a copy has them all.

        SQLite would bring them into the next file of that name, which may be another journal, or the copy.
        """
        now = self._find()
        if self.path in now and os.path.samestat(now[self.path], self._opened[self.path]):
            return
        for file in (
            {_beside(self.path, suffix) for suffix in (_WRITES, _INDEX)} & now.keys() & self._opened.keys()
        ):
            if os.path.samestat(now[file], self._opened[file]):
                file.unlink()


def _content_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
