"""New files get their names so that a crash or a power cut leaves the former file, or the new one whole."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def move_into_place(new: Path, path: Path) -> None:
    """Give a finished file its final name; it replaces a former file.

    Args:
        new: The finished file, in the same folder; its bytes reach the disk before its name changes.
        path: The final name.

    Raises:
        OSError: The file cannot be flushed or renamed; the former file is left as it was.
    """
    descriptor = os.open(new, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    rename_into_place(new, path)


def rename_into_place(new: Path, path: Path) -> None:
    """Give a finished file its final name, if its bytes are on the disk already; it replaces a former file.

    Raises:
        OSError: The file cannot be renamed; the former file is left as it was.
    """
    with _flush_afterwards(path.parent):
        new.replace(path)


def rename_if_free(new: Path, path: Path) -> bool:
    """Give a finished file its final name; False if another file has that name, which stays as it is.

    An empty file, and a file with the same bytes, are replaced. On a file system without hard links, a file that another
    program makes in the same moment is replaced too.

    Args:
        new: The finished file, in the same folder, with its bytes on the disk.
        path: The final name.

    Raises:
        OSError: The file cannot be renamed.
    """
    with _flush_afterwards(path.parent):
        try:
            os.link(new, path)
        except OSError:  # the name is taken, or the file system has no hard links
            if os.path.lexists(path) and not _holds_nothing_else(path, new):
                return False
            new.replace(path)
        else:
            new.unlink()
    return True


def _holds_nothing_else(path: Path, new: Path) -> bool:
    """Whether no byte is lost if `new` takes the name of the file."""
    if not path.is_file():
        return False
    return path.stat().st_size == 0 or filecmp.cmp(path, new, shallow=False)


@contextmanager
def _flush_afterwards(folder: Path) -> Iterator[None]:
    """Bring new names in a folder to the disk at the end of the block, on a system that can do so.

    The folder is opened first: if the process has no free file descriptor, nothing has changed when that is raised.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # not every system can open a folder
        yield
        return
    try:
        yield
        with suppress(OSError):  # nor flush it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
