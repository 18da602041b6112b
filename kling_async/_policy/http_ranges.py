"""Decides whether a download can be resumed, and whether it is whole.

It is resumed only if the missing bytes are of the same version of the file. It is whole if its end is known and no digest
of the storage disagrees, or if a digest agrees.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping

import attrs
from attrs.validators import ge, instance_of, optional

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.IGNORECASE)
_NAMED_RANGE = re.compile(r"([0-9]{1,19})\s*-\s*([0-9]{1,19})\s*/\s*([0-9]{1,19}|\*)")
_LENGTH = re.compile(r"[0-9]{1,19}")
_DIGEST_FIELDS = ("repr-digest", "content-digest", "digest")
_DIGEST = re.compile(r"\b(md5|sha-256|sha-512)=:?([a-z0-9+/]+=*)", re.ASCII | re.IGNORECASE)
_BASE64_CHARACTERS = {"sha-512": 88, "sha-256": 44, "md5": 24}
"""The length of each digest, the strongest first."""
_ETAG_MD5 = re.compile(r'"([0-9a-f]{32})"')


@attrs.frozen(kw_only=True)
class FileVersion:
    """The version of a job's video that a download began with, as the storage described it."""

    request_id: str = attrs.field(validator=instance_of(str))
    """The job. A validator distinguishes two versions at one address only."""
    size_bytes: int | None = attrs.field(validator=optional([instance_of(int), ge(1)]))
    """The size of the whole file; None if the server did not say. Such a download cannot be resumed."""
    validator: str | None = attrs.field(validator=optional(instance_of(str)))
    """The value for `If-Range`; None if the storage sent none."""
    digest: str | None = attrs.field(validator=optional(instance_of(str)))
    """The strongest digest of the whole file, such as `md5=` and base64; None if the storage sent none."""


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
        digest=_strongest_digest(headers),
    )


def has_known_end(headers: Mapping[str, str]) -> bool:
    """Whether the client can tell the end of a body from a cut: by a length, or by a last chunk.

    Without both, the body ends where the connection does, and so does a body that was cut.

    Source: RFC 9112 sections 6.3 and 8.
    """
    if "transfer-encoding" in headers:
        return not transfer_coding(headers)
    return _LENGTH.fullmatch(headers.get("content-length", "")) is not None


def proof(headers: Mapping[str, str]) -> str | None:
    """The digest that has to agree with a body whose end is not known, as in `FileVersion.digest`; None if there is none.

    It is the one of the version, or else the ETag. An ETag can be the MD5 of the file, and looks like one in other cases
    too. So it proves that a file is whole, and never that a file is not.

    Source: Amazon S3, "Checking object integrity": the ETag is no MD5 after a multipart upload or with keys of KMS;
    Google Cloud Storage, "Hashes and ETags": in the XML API it is the MD5 of an object that is not composite.
    """
    if (digest := _strongest_digest(headers)) is not None:
        return digest
    etag = _ETAG_MD5.fullmatch(headers.get("etag", ""))
    if etag is None or content_coding(headers):
        return None
    return f"md5={base64.b64encode(bytes.fromhex(etag[1])).decode()}"


def transfer_coding(headers: Mapping[str, str]) -> str:
    """The coding of a body besides chunks, which no client reads; empty if it has none. Source: RFC 9112 section 7."""
    codings = headers.get("transfer-encoding", "chunked").strip().lower()
    return "" if codings == "chunked" else codings or "no name"


def named_part(headers: Mapping[str, str]) -> str | None:
    """The range that the head of a response with status 200 names, if it is not the whole file.

    Source: RFC 9110 section 14.4 gives the field no meaning there; a cache that stores a part as the file sends both.
    """
    field = headers.get("content-range", "")
    if (found := _NAMED_RANGE.search(field)) is None:
        return None
    first, last, size = found.groups()
    return None if int(first) == 0 and size == str(int(last) + 1) else field


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
    if content_range is None or content_coding(headers) or transfer_coding(headers):
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


def _strongest_digest(headers: Mapping[str, str]) -> str | None:
    """The strongest digest of the whole file that a response with the whole file names.

    Fields that name two values for one digest contradict each other: the digest is then both, which no file has. Those of
    a compressed body are of its compressed bytes, which are not kept. `x-amz-checksum-sha256` is left out: the storage
    sends it only on request, and after a multipart upload it is a digest of digests.

    Source: RFC 9530 sections 2 and 3 for `Content-Digest` and `Repr-Digest`; RFC 3230 for `Digest`; RFC 1864 for
    `Content-MD5`; Google Cloud Storage, XML API, for `x-goog-hash`, which is that of the stored bytes.
    """
    if content_coding(headers):
        return None
    fields = [headers.get(field, "") for field in _DIGEST_FIELDS]
    if headers.get("x-goog-stored-content-encoding", "identity") == "identity":
        fields.append(headers.get("x-goog-hash", ""))
    found = [(match[1].lower(), match[2]) for match in _DIGEST.finditer(", ".join(fields))]
    found.append(("md5", headers.get("content-md5", "").strip()))
    for name, characters in _BASE64_CHARACTERS.items():
        values = {value for named, value in found if named == name and len(value) == characters}
        if values:
            return f"{name.replace('-', '')}={', '.join(sorted(values))}"
    return None
