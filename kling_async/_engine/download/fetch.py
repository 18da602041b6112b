"""One try to fetch the missing bytes of a video: follows redirects, and gives the body to the partial video."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urljoin

import anyio
import anyio.to_thread

from kling_async._engine.api import ApiCaller
from kling_async._engine.download.decompress import CONTENT_CODINGS, DecompressedBody
from kling_async._engine.download.partial_video import BodyReader, PartialVideo
from kling_async._policy.http_ranges import (
    FileVersion,
    content_coding,
    file_version,
    has_known_end,
    is_remaining_range,
    named_part,
    proof,
    range_headers,
    transfer_coding,
)
from kling_async._policy.safe_urls import LARGEST_VIDEO_BYTES, is_text, reason_to_refuse
from kling_async._policy.transfer_limits import MIN_BYTES_PER_SECOND, BodyRate
from kling_async._transport.base import Request, Sink, StreamedReply
from kling_async.errors import APIConnectionError, APITimeoutError, DownloadError, KlingError

_HEADERS: Mapping[str, str] = {"Accept": "*/*", "Accept-Encoding": "identity"}
"""No credential: the storage is another host, and its URLs are public."""
_REDIRECTS = range(300, 400)
_MAX_REDIRECTS = 5
_WHOLE, _PARTIAL, _RANGE_NOT_SATISFIABLE = 200, 206, 416
_MAX_ERROR_BYTES = 64 * 1024


async def fetch(api: ApiCaller, url: str, partial_video: PartialVideo, *, ends_at: float = math.inf) -> None:
    """Fetch the missing bytes of a video, or all bytes if the download cannot be resumed; the file is whole then.

    Args:
        api: Sends the requests.
        url: The URL of the video.
        partial_video: Receives the bytes.
        ends_at: The clock's time at which the download ends, whole or not.

    Raises:
        APIConnectionError: The body was cut short, came too slowly, or is not as long as the response head says.
        APIStatusError: The storage refused.
        DownloadError: The URL is not safe, or the content there is not a video.
        OSError: The disk takes no more.
    """
    if not await _follow(api, url, partial_video, offset=partial_video.resume_offset, ends_at=ends_at):
        await partial_video.truncate()
        await _follow(api, url, partial_video, offset=0, ends_at=ends_at)


async def _follow(
    api: ApiCaller, url: str, partial_video: PartialVideo, *, offset: int, ends_at: float
) -> bool:
    """Follow a URL, and write the video from byte `offset` on; False if the download cannot be resumed there."""
    headers = {**_HEADERS, **range_headers(partial_video.version, at=offset)}
    came_from = None
    for _ in range(_MAX_REDIRECTS + 1):
        if reason := reason_to_refuse(url, allow_private=api.allow_private, came_from=came_from):
            raise DownloadError(f"{url[:200]!r} is not fetched: {reason}")
        timeout = api.timeout_within(ends_at - api.clock.now())
        request = Request("GET", url, headers, timeout=timeout, is_public_only=not api.allow_private)
        async with api.transport.stream(request) as reply:
            if reply.status in _REDIRECTS and "location" in reply.headers:
                came_from, url = url, _resolve_location(url, reply.headers["location"])
            elif reply.status == _WHOLE:
                await _write_whole(partial_video, reply, _TimedBody(reply, api, ends_at))
                return True
            elif (
                offset
                and partial_video.version is not None
                and reply.status in {_PARTIAL, _RANGE_NOT_SATISFIABLE}
            ):
                return await _write_remaining(
                    partial_video,
                    partial_video.version,
                    reply,
                    _TimedBody(reply, api, ends_at),
                    offset=offset,
                )
            else:
                raise await _read_error(api, reply, within=timeout)
    raise DownloadError(f"more than {_MAX_REDIRECTS} redirects")


def _resolve_location(url: str, location: str) -> str:
    """The URL that a redirect leads to; a location that is no URL stays as it is and is refused later."""
    try:
        return urljoin(url, location)
    except ValueError:
        return location


class _TimedBody:
    """The body of a response, which ends with an error if it comes too slowly, too late or without an end.

    The transport ends a body that stands still. A byte now and then is not still. A compressed body can be endless and
    decompress to nothing.
    """

    def __init__(self, reply: StreamedReply, api: ApiCaller, ends_at: float) -> None:
        self._reply = reply
        self._api = api
        self._now = api.clock.now
        self._rate = BodyRate(api.timeout, left=ends_at - self._now())
        self._left_bytes = LARGEST_VIDEO_BYTES

    async def pipe_to(self, sink: Sink) -> bool:
        """Give the body to a sink; see `StreamedReply.pipe_to`.

        Raises:
            APITimeoutError: The body came too slowly or too late, or no piece came within the request's timeout.
            DownloadError: The body is larger than any video.
        """
        rate, since = self._rate, self._now()

        def take(piece: bytes | memoryview) -> bool:
            nonlocal since
            rate.add(len(piece), waited=self._now() - since)
            self._left_bytes -= len(piece)
            wants_more = sink(piece)
            since = self._now()
            return wants_more and self._left_bytes >= 0 and not (rate.is_too_slow or rate.is_over)

        is_all = await self._reply.pipe_to(take)
        if is_all:
            return True
        if self._left_bytes < 0:
            raise _too_large()
        if rate.is_over:
            raise APITimeoutError(f"it was not complete after {self._api.retry.download_timeout:,g} s")
        if rate.is_too_slow:
            raise APITimeoutError(
                f"only {rate.size_bytes:,} bytes came in {rate.waited:.3g} s, and a download needs "
                f"{MIN_BYTES_PER_SECOND:,} bytes a second"
            )
        return False


async def _write_whole(partial_video: PartialVideo, reply: StreamedReply, body: _TimedBody) -> None:
    """Write a response that has the whole video.

    If the connection ends the body, a digest has to agree: the connection can have cut the body. Other signs prove too
    little: the boxes of an mp4 can end where a cut is, and a gzip can have several members. A digest that the storage
    names has to agree in any case: what stands between can cut a body and send the last chunk of the cut one.
    """
    content_type = reply.headers.get("content-type", "")
    if is_text(content_type):
        raise APIConnectionError(f"{content_type[:40]!r} came, which is no video")
    if (part := named_part(reply.headers)) is not None:
        raise APIConnectionError(f"only a part of it came: {part[:80]!r}")
    coding, transferred = content_coding(reply.headers), transfer_coding(reply.headers)
    if transferred or (coding and coding not in CONTENT_CODINGS):
        raise DownloadError(
            f"it comes compressed as {(transferred or coding)[:40]!r}, which was not asked for"
        )
    version = file_version(reply.headers, request_id=partial_video.request_id)
    if version.size_bytes is not None and version.size_bytes > LARGEST_VIDEO_BYTES:
        raise _too_large()
    is_end_known = has_known_end(reply.headers)
    digest = version.digest if is_end_known else proof(reply.headers)
    if not is_end_known and digest is None:
        raise APIConnectionError("it came without a length and without a digest, so it can be cut")
    await _write(
        partial_video, DecompressedBody(body.pipe_to).pipe_to if coding else body.pipe_to, version, offset=0
    )
    if digest is not None:
        size_bytes = partial_video.size
        await _check_digest(
            partial_video, digest, f"its digest is not that of the {size_bytes:,} bytes that came"
        )


async def _check_digest(partial_video: PartialVideo, digest: str, reason: str) -> None:
    """Remove the bytes saved so far unless they have a digest.

    Raises:
        APIConnectionError: They do not have it.
    """
    if not await anyio.to_thread.run_sync(partial_video.has_digest, digest):
        await partial_video.truncate()
        raise APIConnectionError(reason)


async def _write_remaining(
    partial_video: PartialVideo,
    version: FileVersion,
    reply: StreamedReply,
    body: _TimedBody,
    *,
    offset: int,
) -> bool:
    """Write a response that has the remaining bytes; False if it has others.

    The whole video is checked against the storage's digest, if the storage sent one.
    """
    if reply.status != _PARTIAL or not is_remaining_range(reply.headers, version, at=offset):
        return False
    await _write(partial_video, body.pipe_to, version, offset=offset)
    if version.digest is not None:
        await _check_digest(partial_video, version.digest, "its parts do not fit together")
    return True


async def _write(
    partial_video: PartialVideo, read_body: BodyReader, version: FileVersion, *, offset: int
) -> None:
    expected = version.size_bytes
    if not await partial_video.write(
        read_body, version, offset=offset, max_bytes=expected or LARGEST_VIDEO_BYTES
    ):
        await partial_video.truncate()
        if expected is None:
            raise _too_large()
        raise APIConnectionError(f"more came than the {expected:,} bytes expected")
    if partial_video.size == 0:
        raise APIConnectionError("no bytes came")
    if expected is not None and partial_video.size != expected:
        raise APIConnectionError(f"{partial_video.size:,} bytes came of {expected:,}")


def _too_large() -> DownloadError:
    return DownloadError(f"it is larger than {LARGEST_VIDEO_BYTES:,} bytes")


async def _read_error(api: ApiCaller, reply: StreamedReply, *, within: float) -> KlingError:
    """The error of a refusal, with as much of its page as comes within so many seconds: the status alone says enough."""
    body = bytearray()

    def take(piece: bytes | memoryview) -> bool:
        body.extend(piece)
        return len(body) <= _MAX_ERROR_BYTES

    with anyio.move_on_after(within), suppress(APIConnectionError):
        await reply.pipe_to(take)
    return api.storage_error(reply.status, reply.headers, bytes(body), about="the storage")
