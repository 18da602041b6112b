"""New files get their names so that a crash or a power cut leaves the former file, or the new one whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def move_into_place(new: Path, path: Path) -> None:
    """Give a finished file its final name; it replaces a former file.

    Args:
        new: The finished file, in the same folder; its bytes reach the disk before its name changes.
        path: The final name.

    Raises:
        OSError: The file cannot be flushed or renamed; the former file is left as it was.
    """
    _flush(new, os.O_RDWR)
    rename_into_place(new, path)


def rename_into_place(new: Path, path: Path) -> None:
    """Give a finished file its final name, if its bytes are on the disk already; it replaces a former file.

    Raises:
        OSError: The file cannot be renamed; the former file is left as it was.
    """
    new.replace(path)
    with suppress(OSError):  # not every system can open a folder
        _flush(path.parent, os.O_RDONLY)


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
