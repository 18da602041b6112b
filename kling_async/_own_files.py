"""Opens and makes files for this user alone, in folders that other users can write.

Another user can put a link or a pipe in the place of a file with a predictable name. No link is followed, and no open
waits: a file is used only if this call made it, or if it is a regular file of this user with one name.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_OWNER_ONLY = 0o600
_ADMINISTRATOR = 0
_NOT_OURS = frozenset({errno.ELOOP, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENOENT})
"""A link, a folder, another user's file, a socket; or a file that has just been removed."""
_making = threading.Lock()


def create(path: Path) -> int | None:
    """A descriptor of a new file, open for reading and writing, that this user alone can open; None if the name is taken.

    Raises:
        OSError: The folder takes no file of that name.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE | _BINARY, _OWNER_ONLY)
    except FileExistsError:
        return None


def create_if_missing(path: Path) -> None:
    """Make an empty file that this user alone can open, if there is none.

    A file that is there is not opened: closing it would end the locks that SQLite has on it in this process.
    Source: https://www.sqlite.org/howtocorrupt.html#posix_close_bug

    Raises:
        OSError: The folder takes no file of that name.
    """
    with _making:  # no other thread locks the new file before it is closed here
        descriptor = create(path)
        if descriptor is not None:
            os.close(descriptor)


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
    if describe_foreign(os.fstat(descriptor)) is None:
        return descriptor
    os.close(descriptor)
    return None


def for_owner_alone(path: str, flags: int) -> int:
    """The `opener` of `open` for a new file that this user alone can open."""
    return os.open(path, flags | _SAFE, _OWNER_ONLY)


def give_usual_mode(descriptor: int) -> None:
    """Give a finished file the mode that a new file of a program usually has, by the umask."""
    _set_mode(descriptor, 0o666 & ~_read_umask())


def keep_mode(descriptor: int, former: Path) -> None:
    """Give a file that is to replace another one of this user the mode of that file."""
    with suppress(FileNotFoundError):
        status = former.lstat()
        if describe_foreign(status) is None:
            _set_mode(descriptor, stat.S_IMODE(status.st_mode))


def _set_mode(descriptor: int, mode: int) -> None:
    if not hasattr(os, "fchmod") or stat.S_IMODE(os.fstat(descriptor).st_mode) == mode:
        return
    with suppress(PermissionError):  # a file system that has no modes
        os.fchmod(descriptor, mode)


def _read_umask() -> int:
    """The umask of the process. On Linux it can be read; elsewhere it has to be set, for a moment, to a stricter one."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.removeprefix("Umask:"), 8)
    with _making:
        umask = os.umask(0o777 & ~_OWNER_ONLY)
        os.umask(umask)
    return umask


def describe_foreign(status: os.stat_result, *, owner: int | None = None) -> str | None:
    """What makes a file none of ours alone, as for "it is ..."; None for a regular file of ours with one name.

    Args:
        status: The status of the file itself, not of the file that a link leads to.
        owner: The user who has to own the file; None for the user of this process.
    """
    if stat.S_ISLNK(status.st_mode):
        return "a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_nlink != 1:
        return "a file with a second name (a hard link)"
    return None if status.st_uid == (_user(status) if owner is None else owner) else "a file of another user"


def is_link_of_another(path: Path) -> bool:
    """Whether the path is a symbolic link that neither this user nor the administrator has made."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISLNK(status.st_mode) and status.st_uid not in {_user(status), _ADMINISTRATOR}


def _user(status: os.stat_result) -> int:
    """The user of this process; on a system without user numbers, the owner of the file."""
    return os.geteuid() if hasattr(os, "geteuid") else status.st_uid
