"""Decides which URLs are safe to download a video from, and which responses are not a video."""

from __future__ import annotations

import re

from kling_async._urls import parse_url

LARGEST_VIDEO_BYTES = 4 * 1024**3
"""A limit far above the size of any video that a Kling model makes."""
_TEXT = re.compile(r"text/|application/([\w.-]+\+)?(json|xml)\b", re.IGNORECASE | re.ASCII)


def reason_to_refuse(url: str, *, allow_private: bool, came_from: str | None = None) -> str | None:
    """The reason not to fetch a URL, or None. Only https is fetched, and plain http from this machine.

    Args:
        url: The URL.
        allow_private: Whether this machine and private networks may be reached, as where the service runs on this
            machine. Otherwise a service could have this machine send requests to hosts that the service cannot reach.
        came_from: The URL that redirected to it. Another host must not reach the services of this machine.
    """
    try:
        parts = parse_url(url)
        is_from_elsewhere = came_from is not None and not parse_url(came_from).is_loopback
    except ValueError as error:
        return f"it is no URL ({error})"
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.is_loopback):
        return "only https is fetched"
    if not parts.is_web:
        return "it names no host, or has characters that no URL has"
    if parts.has_credentials:
        return "it has a user name"
    if parts.is_loopback and is_from_elsewhere:
        return "another host redirected to this machine"
    leads_inside = parts.is_private and not allow_private
    return (
        "it leads to this machine or a private network, and the service is elsewhere"
        if leads_inside
        else None
    )


def is_text(content_type: str) -> bool:
    """Whether a content type is of a text and not of a video, as of a proxy's page or of an error with status 200."""
    return _TEXT.match(content_type.strip()) is not None
