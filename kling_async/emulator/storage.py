"""The rules of the storage host: signed upload URLs, uploaded files, and byte ranges. Nothing here does HTTP.

Source for the signed types and the XML errors: probes of the live service by third parties, 2026.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from typing import Literal

import attrs

from kling_async.emulator.job_records import BUCKET

UPLOAD_LIFETIME = 899.0
"""Service seconds until an upload URL expires."""

UPLOAD_TYPES: Mapping[str, str] = {
    "jpeg": "image/jpeg",
    "jpg": "image/jpg",
    "png": "image/png",
    "mp4": "video/mp4",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
}
"""File types of upload calls, and the Content-Type that their URLs are signed for."""


@attrs.frozen
class StorageError(Exception):
    """An error of the storage host."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])

    @property
    def xml(self) -> str:
        """The body of the reply."""
        return (
            "<?xml version='1.0' encoding='UTF-8'?>"
            f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>"
        )


NO_SUCH_KEY = StorageError(404, "NoSuchKey", "The specified key does not exist.")


@attrs.frozen
class StoredFile:
    """A file and its type."""

    content: bytes
    content_type: str

    @property
    def etag(self) -> str:
        """A strong ETag, with its quotes."""
        return f'"{hashlib.md5(self.content, usedforsecurity=False).hexdigest()}"'


@attrs.frozen
class _UploadSlot:
    content_type: str
    signature: str
    expires_at: float


class Uploads:
    """Signed upload URLs, and the files that were uploaded to them."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._slots: dict[str, _UploadSlot] = {}
        self._files: dict[str, StoredFile] = {}

    def sign(self, file_type: str, *, now: float) -> tuple[str, str]:
        """A new path for a file of one of `UPLOAD_TYPES`, and the query that allows a PUT to it.

        In this class `now` is always in service seconds.
        """
        number = len(self._slots) + 1
        name = hashlib.sha256(f"{self._seed}/{number}".encode()).hexdigest()
        path = f"/{BUCKET}/uploads/{name[:32]}.{file_type}"
        self._slots[path] = _UploadSlot(
            UPLOAD_TYPES[file_type], signature=name[32:], expires_at=now + UPLOAD_LIFETIME
        )
        return path, (
            "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Expires=899"
            f"&X-Goog-SignedHeaders=content-type%3Bhost&X-Goog-Signature={name[32:]}"
        )

    def check(self, path: str, *, signature: str | None, content_type: str | None, now: float) -> None:
        """Raise `StorageError` unless the path is signed for a PUT with this signature and Content-Type."""
        slot = self._slots.get(path)
        if slot is None or signature is None:
            raise StorageError(403, "AccessDenied", "Access denied.")
        if content_type is None:
            raise StorageError(
                400,
                "MalformedSecurityHeader",
                "Header was included in signedheaders, but not in the request.",
            )
        if now > slot.expires_at:
            raise StorageError(400, "ExpiredToken", "Invalid argument.")
        if (signature, content_type) != (slot.signature, slot.content_type):
            raise StorageError(
                403,
                "SignatureDoesNotMatch",
                "Access denied: the calculated signature does not match the provided one.",
            )

    def put(self, path: str, content: bytes) -> None:
        """Store the bytes of a checked PUT, in place of those of an earlier PUT."""
        self._files[path] = StoredFile(content, self._slots[path].content_type)

    def get(self, path: str) -> StoredFile | None:
        """The file at the path, or None."""
        return self._files.get(path)


_MAX_DIGITS = 18
_ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII | re.IGNORECASE)


def parse_range(header: str | None, *, size_bytes: int) -> slice | Literal["unsatisfiable"] | None:
    """The bytes that a Range header requests.

    None means the whole file: the header is absent, has several ranges, or has a form that RFC 9110 says to ignore.
    """
    match = _ONE_RANGE.fullmatch((header or "").replace(" ", ""))
    if match is None or not any(match.groups()):
        return None
    if not match[1]:
        start, stop = max(size_bytes - _to_position(match[2]), 0), size_bytes
    else:
        start, last = _to_position(match[1]), _to_position(match[2]) if match[2] else size_bytes
        stop = min(last + 1, size_bytes)
        if last < start and match[2]:
            return None
    return slice(start, stop) if start < stop else "unsatisfiable"


def _to_position(digits: str) -> int:
    """The number of a position in a file; a number that is longer than any file is the largest one that Python counts to."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MAX_DIGITS else sys.maxsize
