"""A file beside the destination that nobody else writes, and that outlives the process that began it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import attrs


@attrs.frozen
class LockedFile:
    """An open file that is written by whoever has this, and by nobody else."""

    file: io.FileIO
    path: Path
    is_locked: bool
    """False where the system has no locks: then only a file made just now is one's own."""


def claim(path: Path) -> LockedFile:
    """The first of `NAME.part`, `NAME.2.part` and so on that nobody holds, made if it is missing.

    Raises:
        OSError: The folder takes no file of that name.
    """
    claimed, number = _claimed(path.with_name(f"{path.name}.part")), 1
    while claimed is None:
        number += 1
        claimed = _claimed(path.with_name(f"{path.name}.{number}.part"))
    return claimed


def _claimed(path: Path) -> LockedFile | None:
    is_new = True
    try:
        file = path.open("x+b", buffering=0)
    except FileExistsError:
        is_new = False
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:  # it was finished just now
            return None
    is_locked = _lock(file)
    if (is_locked and _is_still(file, path)) or (is_locked is None and is_new):
        return LockedFile(file, path, bool(is_locked))
    file.close()
    return None


def _lock(file: io.FileIO) -> bool | None:
    """Whether the file is locked now, until it is closed or the process ends; None where there are no locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _is_still(file: io.FileIO, path: Path) -> bool:
    """Whether the path still leads to the file: whoever held the lock before may have renamed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
