"""Opens a file beside the destination that only one download can write, and that a later process can continue."""

from __future__ import annotations

import io
import os
from pathlib import Path

import attrs

from kling_async._policy.file_names import partial_name


@attrs.frozen
class LockedFile:
    """A partial file, open and locked for exclusive use."""

    file: io.FileIO
    path: Path
    is_locked: bool
    """False if the system has no locks: then only a file that this call made is safe to write."""


def open_locked(path: Path) -> LockedFile:
    """Open and lock the first of `NAME.part`, `NAME.2.part` and so on that is not locked; a missing file is made.

    See `partial_name`.

    Raises:
        OSError: The folder takes no file of that name.
    """
    locked_file, number = None, 0
    while locked_file is None:
        number += 1
        locked_file = _try_open_locked(path.with_name(partial_name(path.name, number)))
    return locked_file


def _try_open_locked(path: Path) -> LockedFile | None:
    """The file, open and locked; None if another download uses the file or has just finished it."""
    is_new = True
    try:
        file = path.open("x+b", buffering=0)
    except FileExistsError:
        is_new = False
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:  # another download has just finished it
            return None
    is_locked = _lock(file)
    if (is_locked and _is_same_file(file, path)) or (is_locked is None and is_new):
        return LockedFile(file, path, bool(is_locked))
    file.close()
    return None


def _lock(file: io.FileIO) -> bool | None:
    """Lock the file until it is closed or the process ends; False if another process has the lock, None without locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _is_same_file(file: io.FileIO, path: Path) -> bool:
    """Whether the path still leads to the file: the former owner of the lock may have renamed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
