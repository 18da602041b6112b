"""A model of the storage that serves videos: ranges, cuts and wrong headers."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import attrs
from virtual_service import Service, Stream

from kling_async import APIConnectionError, Job, JobStatus, Media, Outcome
from kling_async._transport.base import Request

URL = "https://storage.example/a.mp4"
CUT = APIConnectionError("cut")


def job_with(url: str | None = URL, *, request_id: str = "job-1", **fields: Any) -> Job:
    outcome = Outcome(media=(Media(url),)) if url else None
    return Job(request_id=request_id, status=JobStatus.SUCCESS, outcome=outcome, **fields)


def video(size_bytes: int, *, seed: int = 0) -> bytes:
    """Bytes without a repeated pattern."""
    return hashlib.shake_128(str(seed).encode()).digest(size_bytes)


@attrs.define(eq=False)
class Storage:
    """One file. Response n is cut after `cuts[n]` bytes; if that is None or missing, the response is whole."""

    content: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    obeys_if_range: bool = True
    cuts: list[int | None] = attrs.field(factory=list)
    headers: dict[str, str] = attrs.field(factory=dict)
    """Headers that replace the true ones; `content-range` does so where the answer is a range."""
    piece_bytes: int = 1000
    requests: list[Request] = attrs.field(factory=list)
    sent_bytes: int = 0

    def __call__(self, request: Request) -> Stream:
        self.requests.append(request)
        headers = {"etag": self.etag} if self.etag else {}
        range_header, status = request.headers.get("Range"), 200
        is_same = not self.obeys_if_range or request.headers.get("If-Range", self.etag) == self.etag
        offset = 0
        if self.ranges and range_header and is_same:
            offset = int(re.fullmatch(r"bytes=(\d+)-", range_header)[1])
            if offset >= len(self.content):
                return Stream(416, [b"<Error/>"], {"content-range": f"bytes */{len(self.content)}"})
            status = 206
            headers["content-range"] = f"bytes {offset}-{len(self.content) - 1}/{len(self.content)}"
        body = self.content[offset:]
        headers["content-length"] = str(len(body))
        other = {
            name: text for name, text in self.headers.items() if status == 206 or name != "content-range"
        }
        return Stream(status, self._pieces(body), headers | other)

    def _pieces(self, body: bytes) -> list[bytes | Exception]:
        cut = self.cuts.pop(0) if self.cuts else None
        sent = body if cut is None else body[:cut]
        self.sent_bytes += len(sent)
        pieces: list[bytes | Exception] = [
            sent[start : start + self.piece_bytes] for start in range(0, len(sent), self.piece_bytes)
        ]
        return pieces if cut is None else [*pieces, CUT]

    @property
    def requested_ranges(self) -> list[str | None]:
        """The `Range` header of each request."""
        return [request.headers.get("Range") for request in self.requests]

    def service(self) -> Service:
        return Service(media={URL: self})


def google_md5(content: bytes) -> dict[str, str]:
    """The header in which Google's storage names the digest of a file."""
    digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
    return {"x-goog-hash": f"crc32c=AAAAAA==, md5={digest}"}
