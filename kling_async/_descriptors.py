"""Finds out whether the process has free file descriptors, where a library does not say so."""

from __future__ import annotations

import os
from contextlib import ExitStack

_FILES = 4
"""What a call opens at most at the same time: a journal and its three side files, or the files for the name of a host."""


def find_lack_of_descriptors() -> OSError | None:
    """The error with which files cannot be opened now; None if there are free descriptors."""
    with ExitStack() as opened:
        try:
            for _ in range(_FILES):
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            return error
    return None
