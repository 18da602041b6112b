"""Decides whether a download can be resumed: only if the missing bytes are of the same version of the file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import attrs
from attrs.validators import ge, instance_of, optional

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,19}")
_GOOGLE_MD5 = re.compile(r"\bmd5=([A-Za-z0-9+/]{22}==)")
_MD5 = re.compile(r"[A-Za-z0-9+/]{22}==")


@attrs.frozen(kw_only=True)
class FileVersion:
    """The version of a job's video that a download began with, as the storage described it."""

    request_id: str = attrs.field(validator=instance_of(str))
    """The job. A validator distinguishes two versions at one address only."""
    size_bytes: int | None = attrs.field(validator=optional([instance_of(int), ge(1)]))
    """The size of the whole file; None if the server did not say. Such a download cannot be resumed."""
    validator: str | None = attrs.field(validator=optional(instance_of(str)))
    """The value for `If-Range`; None if the storage sent none."""
    md5: str | None = attrs.field(validator=optional(instance_of(str)))
    """The digest of the whole file, in base64; None if the storage sent none."""


def file_version(headers: Mapping[str, str], *, request_id: str) -> FileVersion:
    """The version that the head of a response with the whole file describes.

    A compressed body has another length than the file, and other bytes at each offset: its download is not resumed.
    A weak ETag does not promise equal bytes.

    Source: RFC 9110 sections 8.8 and 13.1.5.
    """
    length = headers.get("content-length", "")
    is_known = not content_coding(headers) and _LENGTH.fullmatch(length) and int(length) > 0
    etag = headers.get("etag", "")
    return FileVersion(
        request_id=request_id,
        size_bytes=int(length) if is_known else None,
        validator=etag if etag.startswith('"') else headers.get("last-modified") or None,
        md5=_read_md5(headers) if is_known else None,
    )


def content_coding(headers: Mapping[str, str]) -> str:
    """The compression of a body, in lower case; empty if it has none."""
    coding = headers.get("content-encoding", "").strip().lower()
    return "" if coding == "identity" else coding


def range_headers(version: FileVersion | None, *, at: int) -> dict[str, str]:
    """The headers that ask for the bytes from `at` on, or for the whole file if the version has changed."""
    if version is None or at == 0:
        return {}
    headers = {"Range": f"bytes={at}-"}
    return headers if version.validator is None else {**headers, "If-Range": version.validator}


def is_remaining_range(headers: Mapping[str, str], version: FileVersion, *, at: int) -> bool:
    """Whether a response with status 206 brings bytes of this version from `at` on, perhaps not all of them.

    Not every server obeys `If-Range`, so the range and the validator of the response are compared as well.
    """
    content_range = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if content_range is None or content_coding(headers):
        return False
    first, last, size = map(int, content_range.groups())
    validator = file_version(headers, request_id=version.request_id).validator
    return first == at <= last < size == version.size_bytes and validator in {None, version.validator}


def dump(version: FileVersion) -> str:
    """A version as text, for a later run; `load` reads it."""
    return json.dumps(attrs.asdict(version))


def load(text: str) -> FileVersion | None:
    """The version that `dump` wrote; None for any other text."""
    try:
        return FileVersion(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None


def _read_md5(headers: Mapping[str, str]) -> str | None:
    """Source: Google Cloud Storage, XML API, `x-goog-hash`; RFC 1864 for `Content-MD5`."""
    if match := _GOOGLE_MD5.search(headers.get("x-goog-hash", "")):
        return match[1]
    plain = headers.get("content-md5", "")
    return plain if _MD5.fullmatch(plain) else None
