"""Reads the paths that callers give: `~` is the home folder, and a URL is refused."""

from __future__ import annotations

import os
import re
from typing import Any

from kling_async.errors import ConfigurationError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The beginning of a URL. `Path` makes one slash of two; one letter before the colon is a drive of Windows."""


def local_path(given: object, *, name: str) -> str:
    """The path of a file or folder on this machine, with `~` expanded; a slash at its end stays.

    Args:
        given: What the caller gave.
        name: The argument, for the error.

    Raises:
        ConfigurationError: It is no path, or a URL such as that of an object store.
    """
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(path, str) or not path.strip() or path == ":memory:":
        raise ConfigurationError(f"{name}={given!r} is not the path of a file or folder on this machine.")
    if _ADDRESS.match(path):
        raise ConfigurationError(
            f"{name}={path!r} is a URL: give the path of a file or folder on this machine."
        )
    expanded = os.path.expanduser(path)  # noqa: PTH111 - keeps a slash at the end
    if path.startswith("~") and expanded == path:
        raise ConfigurationError(
            f"{name}={path!r} names a home folder that is not known; ./{path} is a file or folder of this name."
        )
    return expanded


def expand_home(path: Any) -> Any:
    """The path of a picture with `~` expanded; any other value as it is."""
    if isinstance(path, str | os.PathLike) and os.fspath(path)[:1] == "~":
        return os.path.expanduser(path)  # noqa: PTH111 - keeps a text a text
    return path
