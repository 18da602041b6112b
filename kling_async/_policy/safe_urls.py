"""Which addresses a finished video may be fetched from, and which answers are none."""

from __future__ import annotations

import re

from kling_async._urls import parse_url

LARGEST_VIDEO_BYTES = 4 * 1024**3
"""A ceiling far above any video that a Kling model makes; what is larger is not a video."""
_WORDS = re.compile(r"text/|application/([\w.-]+\+)?(json|xml)\b", re.IGNORECASE | re.ASCII)


def reason_to_refuse(url: str, *, came_from: str | None = None) -> str | None:
    """Why an address must not be fetched, or None: https only, except from this machine itself.

    Args:
        url: The address.
        came_from: The address that redirected to it. One elsewhere must not reach the services of this machine.
    """
    try:
        parts = parse_url(url)
        is_from_elsewhere = came_from is not None and not parse_url(came_from).is_loopback
    except ValueError as error:
        return f"it is no URL ({error})"
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.is_loopback):
        return "only https is fetched"
    if not parts.is_web:
        return "it names no host, or holds characters that no address has"
    if parts.has_credentials:
        return "it holds a user name"
    if parts.is_loopback and is_from_elsewhere:
        return "another host redirected to this machine"
    return None


def is_text(content_type: str) -> bool:
    """Whether a reply is words and no file: the page of a proxy, or an error that was answered with 200."""
    return _WORDS.match(content_type.strip()) is not None
