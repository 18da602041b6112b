"""The files of a journal, and whether each of them is of this user alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kling_async._own_files import describe_foreign, is_link_of_another
from kling_async.errors import JournalError

_LOCK = "-lock"
_SQLITE_FILES = ("", "-wal", "-shm", "-journal")
"""What SQLite opens. SQLite brings the content of a `-wal` or `-journal` that lies there into the main file.

Source: https://www.sqlite.org/tempfiles.html
"""


def lock_of(path: Path) -> Path:
    """The lock file of a journal."""
    return _beside(path, _LOCK)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def check_files(path: Path) -> None:
    """Do nothing if each file of the journal that is there is a regular file of this user with one name.

    Args:
        path: The journal, with links followed.

    Raises:
        JournalError: One of the files is a link, a pipe or another user's.
    """
    for file, status in _find_files(path, (*_SQLITE_FILES, _LOCK)):
        _refuse_foreign(path, file, describe_foreign(status))


def check_readable(path: Path) -> None:
    """Do nothing if the journal is a regular file with one name, and each file beside it is of the same user.

    Raises:
        JournalError: There is no journal, or one of the files is a link, a pipe or a third user's.
    """
    files = dict(_find_files(path, _SQLITE_FILES))
    if path not in files:
        raise JournalError(f"There is no journal {str(path)!r}.")
    for file, status in files.items():
        _refuse_foreign(path, file, describe_foreign(status, owner=files[path].st_uid))


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


def _find_files(path: Path, suffixes: Sequence[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """The files that are there, each with its own status: no link is followed."""
    for suffix in suffixes:
        file = _beside(path, suffix)
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
