"""Reads the paths that callers give: `~` is the home folder, and a URL is that of an object store or is refused."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from typing import Any

from kling_async.errors import ConfigurationError
from kling_async.lines import quote_value

STORE_SCHEMES = ("s3", "gs", "az")
"""Object stores: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage."""
_DATABASE = re.compile(r"postgres(?:ql)?://", re.IGNORECASE)
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
"""The beginning of a URL. `Path` makes one slash of two; one letter before the colon is a drive of Windows."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]*", re.IGNORECASE | re.ASCII)
_PREFIX_BYTES = 800
"""Leaves room for the longest name of a video. Source: S3, Google and Azure take keys of up to 1,024 bytes."""


class ObjectUrl(str):
    """The URL of a video in an object store, such as `s3://bucket/videos/eagle.mp4`, or of a prefix there."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The part after the last slash, like `Path.name`."""
        return PurePosixPath(self.key).name

    @property
    def scheme(self) -> str:
        """The kind of the store, which is `s3`, `gs` or `az`."""
        return self.partition("://")[0]

    @property
    def bucket(self) -> str:
        """The bucket, or the container of Azure."""
        return self.partition("://")[2].partition("/")[0]

    @property
    def key(self) -> str:
        """The name of the object in the bucket; empty for the bucket itself."""
        return self.partition("://")[2].partition("/")[2]

    @property
    def is_prefix(self) -> bool:
        """Whether objects are to be stored below it, because it ends in a slash or its name has no suffix."""
        return self.endswith("/") or not PurePosixPath(self.key).suffix

    def child(self, name: str) -> ObjectUrl:
        """The URL of the object of this name below the prefix."""
        return ObjectUrl(f"{self.rstrip('/')}/{name}")

    def with_name(self, name: str) -> ObjectUrl:
        """The URL of the object of this name beside it, like `Path.with_name`."""
        return ObjectUrl(f"{self.rstrip('/').rpartition('/')[0]}/{name}")


def is_object_url(text: str) -> bool:
    """Whether a text is the URL of an object, as a journal holds it."""
    return text.startswith(tuple(f"{scheme}://" for scheme in STORE_SCHEMES))


def output_path(given: object, *, name: str) -> str | ObjectUrl:
    """The place for videos: a path of this machine as `local_path` reads it, or the URL of an object store.

    `file://` is a path of this machine.

    Args:
        given: What the caller gave.
        name: The argument, for the error.

    Raises:
        ConfigurationError: It is neither.
    """
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    match = _ADDRESS.match(text) if isinstance(text, str) else None
    if match is None or text is None:
        return local_path(given, name=name)
    scheme, rest = match[1].lower(), text[match.end() - 1 :]
    if scheme not in {*STORE_SCHEMES, "file"}:
        raise ConfigurationError(
            f"{name}={_quote_address(text)} is neither a path on this machine nor the URL of an object store: "
            "s3://bucket/prefix, gs://bucket/prefix or az://container/prefix."
        )
    return (
        _file_path(text, rest, name=name) if scheme == "file" else _object_url(text, scheme, rest, name=name)
    )


def _object_url(text: str, scheme: str, rest: str, *, name: str) -> ObjectUrl:
    example = f"{scheme}://{'container' if scheme == 'az' else 'bucket'}/prefix"
    if not rest.startswith("//"):
        raise ConfigurationError(
            f"{name}={_quote_address(text)} has one slash after the colon, as in a Path: give the text {example!r}."
        )
    if _has_secret(text):
        raise ConfigurationError(
            f"{name} is a URL with a user name, a query or a fragment: give {example!r} alone. The credentials of "
            "the store come from its environment variables."
        )
    bucket, _, key = rest[2:].partition("/")
    url = ObjectUrl(f"{scheme}://{bucket}/{key}" if key else f"{scheme}://{bucket}")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigurationError(f"{name}={text!r} names no bucket: give {example!r}.")
    segments = key.removesuffix("/").split("/") if key else []
    if not url.isprintable() or not {"", ".", ".."}.isdisjoint(segments):
        raise ConfigurationError(
            f"{name}={text!r} has an empty segment, '.', '..' or an unprintable character in its key: give {example!r}."
        )
    if len(key.encode(errors="surrogatepass")) > _PREFIX_BYTES:
        raise ConfigurationError(
            f"{name}={text!r} is too long: a key has at most {_PREFIX_BYTES} bytes here."
        )
    return url


def _file_path(text: str, rest: str, *, name: str) -> str:
    host, _, path = rest[2:].partition("/") if rest.startswith("//") else ("", "", rest[1:])
    if _has_secret(text) or host.lower() not in {"", "localhost"}:
        raise ConfigurationError(
            f"{name} is a file:// URL of another host, or with a query or a fragment: give file:///path, or the path itself."
        )
    from urllib.request import url2pathname  # slow to import

    return local_path(url2pathname(f"/{path}"), name=name)


def _has_secret(text: str) -> bool:
    """Whether a URL has parts that can hold a password or a signature."""
    return not {"@", "?", "#"}.isdisjoint(text)


def _quote_address(text: str) -> str:
    """The URL for an error; the scheme alone if the rest can hold a secret."""
    return repr(f"{text.partition(':')[0]}://…" if _has_secret(text) else text)


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
        raise ConfigurationError(
            f"{name}={quote_value(given)} is not the path of a file or folder on this machine."
        )
    if _ADDRESS.match(path):
        raise ConfigurationError(
            f"{name}={_quote_address(path)} is a URL: give the path of a file or folder on this machine."
        )
    expanded = os.path.expanduser(path)  # noqa: PTH111 - keeps a slash at the end
    if path.startswith("~") and expanded == path:
        raise ConfigurationError(
            f"{name}={path!r} names a home folder that is not known; ./{path} is a file or folder of this name."
        )
    return expanded


def is_database_url(text: str) -> bool:
    """Whether a text is the URL of a PostgreSQL database."""
    return _DATABASE.match(text) is not None


def expand_home(path: Any) -> Any:
    """The path of a picture with `~` expanded; any other value as it is."""
    if isinstance(path, str | os.PathLike) and os.fspath(path)[:1] == "~":
        return os.path.expanduser(path)  # noqa: PTH111 - keeps a text a text
    return path
