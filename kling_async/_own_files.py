"""Opens helper files of predictable names, in folders that other users can write.

Another user can put a link or a pipe in the place of such a file. No link is followed, and no open waits: a file is used
only if this call made it, or if it is a regular file of this user with one name.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NOT_OURS = frozenset({errno.ELOOP, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENOENT})
"""A link, a folder, another user's file, a socket; or a file that has just been removed."""


def create(path: Path) -> int | None:
    """A descriptor of a new file, open for reading and writing; None if the name is taken.

    Raises:
        OSError: The folder takes no file of that name.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE | _BINARY, 0o666)
    except FileExistsError:
        return None


def open_own(path: Path) -> int | None:
    """A descriptor of an existing file, open for reading and writing; None if it is no file of ours alone.

    Raises:
        OSError: The file cannot be opened for another reason.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | _SAFE | _BINARY)
    except OSError as error:
        if error.errno in _NOT_OURS:
            return None
        raise
    if _is_own(os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)
    return None


def _is_own(status: os.stat_result) -> bool:
    user = os.geteuid() if hasattr(os, "geteuid") else status.st_uid
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == user
