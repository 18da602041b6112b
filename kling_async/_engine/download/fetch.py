"""One try to fetch what is missing of a video: redirects, and what the reply's bytes mean for the part."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urljoin

import anyio.to_thread

from kling_async._engine.api import ApiCaller
from kling_async._engine.download.decompress import CONTENT_CODINGS, DecompressedBody
from kling_async._engine.download.partial_file import PartialFile, Pipe
from kling_async._policy.http_ranges import (
    FileVersion,
    content_coding,
    file_version,
    is_remaining_range,
    range_headers,
)
from kling_async._policy.safe_urls import LARGEST_VIDEO_BYTES, is_text, reason_to_refuse
from kling_async._transport.base import Request, StreamedReply
from kling_async.errors import APIConnectionError, DownloadError, KlingError

_HEADERS: Mapping[str, str] = {"Accept": "*/*", "Accept-Encoding": "identity"}
"""No credential: storage is another host, and its addresses are public."""
_REDIRECTS = range(300, 400)
_MOST_REDIRECTS = 5
_WHOLE, _PART, _NO_SUCH_PART = 200, 206, 416
_LARGEST_REFUSAL_BYTES = 64 * 1024


async def fetch(caller: ApiCaller, url: str, part: PartialFile) -> None:
    """Fetch what is missing of a part, which is whole then; where the storage cannot go on with it, all of it.

    Raises:
        APIConnectionError: The line was cut, or other bytes came than were promised.
        APIStatusError: The storage refused.
        DownloadError: The address, or what is there, is not to be fetched.
        OSError: The disk takes no more.
    """
    if not await _fetch(caller, url, part, at=part.resumes_at):
        await part.empty()
        await _fetch(caller, url, part, at=0)


async def _fetch(caller: ApiCaller, url: str, part: PartialFile, *, at: int) -> bool:
    """Follow an address, and write what is there from byte `at` on; False if the part cannot be gone on with."""
    headers = {**_HEADERS, **range_headers(part.version, at=at)}
    came_from = None
    for _ in range(_MOST_REDIRECTS + 1):
        if reason := reason_to_refuse(url, came_from=came_from):
            raise DownloadError(f"{url[:200]!r} is not fetched: {reason}")
        request = Request("GET", url, headers, timeout=caller.timeout)
        async with caller.transport.stream(request) as reply:
            if reply.status in _REDIRECTS and "location" in reply.headers:
                came_from, url = url, _followed(url, reply.headers["location"])
            elif reply.status == _WHOLE:
                await _begin(part, reply)
                return True
            elif at and part.version is not None and reply.status in {_PART, _NO_SUCH_PART}:
                return await _went_on(part, part.version, reply, at=at)
            else:
                raise await _error(caller, reply)
    raise DownloadError(f"more than {_MOST_REDIRECTS} redirects")


def _followed(url: str, location: str) -> str:
    """Where a redirect leads; what is no address stays as it is, to be refused."""
    try:
        return urljoin(url, location)
    except ValueError:
        return location


async def _begin(part: PartialFile, reply: StreamedReply) -> None:
    """Write a reply that is the whole video."""
    content_type = reply.headers.get("content-type", "")
    if is_text(content_type):
        raise APIConnectionError(f"{content_type[:40]!r} came, which is no video")
    coding = content_coding(reply.headers)
    if coding and coding not in CONTENT_CODINGS:
        raise DownloadError(f"it comes packed as {coding[:40]!r}, which was not asked for")
    version = file_version(reply.headers, request_id=part.request_id)
    if version.size_bytes is not None and version.size_bytes > LARGEST_VIDEO_BYTES:
        raise _too_large()
    await _write(part, DecompressedBody(reply).pipe_to if coding else reply.pipe_to, version, at=0)


async def _went_on(part: PartialFile, version: FileVersion, reply: StreamedReply, *, at: int) -> bool:
    """Write a reply that is the rest of the video; False if it is not.

    Bytes of several replies are checked against the storage's digest, where it named one. That costs more than all
    else does, and those of one reply are counted and came over TLS, so they are not.
    """
    if reply.status != _PART or not is_remaining_range(reply.headers, version, at=at):
        return False
    await _write(part, reply.pipe_to, version, at=at)
    if version.md5 is not None and await anyio.to_thread.run_sync(part.md5) != version.md5:
        await part.empty()
        raise APIConnectionError("its parts do not fit together")
    return True


async def _write(part: PartialFile, pipe: Pipe, version: FileVersion, *, at: int) -> None:
    promised = version.size_bytes
    if not await part.write(pipe, version, at=at, most=promised or LARGEST_VIDEO_BYTES):
        await part.empty()
        if promised is None:
            raise _too_large()
        raise APIConnectionError(f"more came than the {promised:,} bytes promised")
    if part.size == 0:
        raise APIConnectionError("no bytes came")
    if promised is not None and part.size != promised:
        raise APIConnectionError(f"{part.size:,} bytes came of {promised:,} promised")


def _too_large() -> DownloadError:
    return DownloadError(f"it is larger than {LARGEST_VIDEO_BYTES:,} bytes")


async def _error(caller: ApiCaller, reply: StreamedReply) -> KlingError:
    body = bytearray()

    def take(piece: bytes | memoryview) -> bool:
        body.extend(piece)
        return len(body) <= _LARGEST_REFUSAL_BYTES

    await reply.pipe_to(take)
    return caller.error_for(reply.status, reply.headers, bytes(body), call="download")
