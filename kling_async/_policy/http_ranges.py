"""Whether what is missing of a file may be put behind what is there: only if both are of the very same file."""

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
    """The very file that was begun: a job's video as the storage described it then."""

    request_id: str = attrs.field(validator=instance_of(str))
    """The job whose video it is; what tells two versions apart does so for one address only."""
    size_bytes: int | None = attrs.field(validator=optional([instance_of(int), ge(1)]))
    """How long it is when whole; None where nobody said, and then it cannot be gone on with."""
    validator: str | None = attrs.field(validator=optional(instance_of(str)))
    """What `If-Range` takes; None where the storage names none."""
    md5: str | None = attrs.field(validator=optional(instance_of(str)))
    """The digest of the whole file, in base64, where the storage names one."""


def file_version(headers: Mapping[str, str], *, request_id: str) -> FileVersion:
    """What a reply with the whole file says of it.

    A packed body has another length than the file, and other bytes at each place: it is not gone on with.

    Source: RFC 9110 sections 8.8 and 13.1.5. A weak ETag does not promise equal bytes.
    """
    length = headers.get("content-length", "")
    is_known = not content_coding(headers) and _LENGTH.fullmatch(length) and int(length) > 0
    etag = headers.get("etag", "")
    return FileVersion(
        request_id=request_id,
        size_bytes=int(length) if is_known else None,
        validator=etag if etag.startswith('"') else headers.get("last-modified") or None,
        md5=_md5(headers) if is_known else None,
    )


def content_coding(headers: Mapping[str, str]) -> str:
    """How a body is packed, in lower case; empty where it is not."""
    coding = headers.get("content-encoding", "").strip().lower()
    return "" if coding == "identity" else coding


def range_headers(version: FileVersion | None, *, at: int) -> dict[str, str]:
    """The headers that ask for a version from byte `at` on, and for all of it if it is not the same any more."""
    if version is None or at == 0:
        return {}
    wanted = {"Range": f"bytes={at}-"}
    return wanted if version.validator is None else {**wanted, "If-Range": version.validator}


def is_remaining_range(headers: Mapping[str, str], version: FileVersion, *, at: int) -> bool:
    """Whether a reply with a part brings the bytes of this version from `at` on, perhaps not all of them.

    Not every server minds `If-Range`, so what it says of the part is compared as well.
    """
    said = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if said is None or content_coding(headers):
        return False
    first, last, size = map(int, said.groups())
    theirs = file_version(headers, request_id=version.request_id).validator
    return first == at <= last < size == version.size_bytes and theirs in {None, version.validator}


def dump(version: FileVersion) -> str:
    """A version as text, for a later run."""
    return json.dumps(attrs.asdict(version))


def load(text: str) -> FileVersion | None:
    """What `dump` wrote; None for anything else."""
    try:
        return FileVersion(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None


def _md5(headers: Mapping[str, str]) -> str | None:
    """Source: Google Cloud Storage, XML API, `x-goog-hash`; RFC 1864 for `Content-MD5`."""
    if found := _GOOGLE_MD5.search(headers.get("x-goog-hash", "")):
        return found[1]
    plain = headers.get("content-md5", "")
    return plain if _MD5.fullmatch(plain) else None
