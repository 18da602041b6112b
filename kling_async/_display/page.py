"""Durations, amounts and addresses as reports and notebooks show them."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, urlsplit

from kling_async._policy.safe_urls import reason_to_refuse
from kling_async.history import BatchHistory
from kling_async.jobs import Job
from kling_async.paths import ObjectUrl
from kling_async.results import Result

_OF_URLS = "%:/?#[]@!$&'()*+,;="
"""The characters that a URL keeps. Source: RFC 3986, section 2."""
_SHORT = 10.0
_SECONDS_IN_MINUTE = 60
_MINUTES_IN_HOUR = 60
_THOUSAND = 1000
NOTHING_SIGNED: Mapping[str, str] = MappingProxyType({})
"""No signed URLs: the default of what makes a page."""


def duration_text(seconds: float) -> str:
    """Such as `0.4 s`, `42 s`, `3 min 07 s` or `2 h 05 min`."""
    seconds = max(seconds, 0.0)
    if seconds < _SHORT - 0.05:
        return f"{seconds:.1f} s"
    minutes, second = divmod(round(seconds), _SECONDS_IN_MINUTE)
    hours, minute = divmod(minutes, _MINUTES_IN_HOUR)
    if hours:
        return f"{hours:,} h {minute:02} min"
    return f"{minute} min {second:02} s" if minute else f"{second} s"


def size_text(size_bytes: float) -> str:
    """Such as `812 B`, `3.1 MB` or `24 MB`, in powers of a thousand."""
    unit = "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if size_bytes < _THOUSAND - 0.5:
            break
        size_bytes, unit = size_bytes / _THOUSAND, bigger
    digits = 0 if unit == "B" or size_bytes >= _SHORT - 0.05 else 1
    return f"{size_bytes:,.{digits}f} {unit}"


def count_from_earlier_runs(results: Iterable[Result], history: BatchHistory) -> int:
    """How many results have a job that this run did not submit: a history tells only of one run."""
    return sum(result.job is not None and not history.times_of(result.index).submits for result in results)


def media_source(
    result: Result,
    *,
    beside: Path | None,
    inline_bytes: int = 0,
    signed: Mapping[str, str] = NOTHING_SIGNED,
) -> str | None:
    """The address of a result's video, for a page; None if there is no video.

    Args:
        result: Its file is used if it is still there, or the signed URL of its object, else its job's address.
        beside: The folder of the page: a file is named relative to it. None names it absolutely.
        inline_bytes: A file of at most this size becomes part of the page.
        signed: The signed URLs of objects.
    """
    if isinstance(result.path, ObjectUrl) and result.path in signed:
        return signed[result.path]
    if isinstance(result.path, Path) and os.path.isfile(result.path):  # noqa: PTH113 - False, not an error, for any name
        return _file_source(result.path, beside, inline_bytes)
    return web_source(result.job.video_url if result.job else None)


def is_remote(source: str) -> bool:
    """Whether an address leads to the service; else the video is a local file, or part of the page."""
    return source.startswith(("https:", "http:"))


def is_inlined(source: str) -> bool:
    """Whether the video is part of the page."""
    return source.startswith("data:")


def picture_source(job: Job | None) -> str | None:
    """The address of a still picture of the job's video; None if there is none.

    Some models give the address of the video as its picture; that is none.
    """
    url = web_source(job.thumbnail_url) if job else None
    if (
        job is None
        or url is None
        or job.thumbnail_url == job.video_url
        or urlsplit(url).path.lower().endswith(".mp4")
    ):
        return None
    return url


def web_source(url: str | None) -> str | None:
    """The address, in ASCII, if a download would fetch it; None for any other address, such as a script."""
    if url is None or reason_to_refuse(url, allow_private=True) is not None:
        return None
    return quote(url, safe=_OF_URLS, errors="replace")


def _file_source(path: Path, beside: Path | None, inline_bytes: int) -> str:
    if path.stat().st_size <= inline_bytes:
        return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    if beside is not None:
        try:
            # Quoting leaves no colon, so that no name can pass for a scheme.
            return quote(os.fsencode(Path(os.path.relpath(path, beside)).as_posix()))
        except ValueError:  # another drive of Windows
            pass
    return path.absolute().as_uri()
