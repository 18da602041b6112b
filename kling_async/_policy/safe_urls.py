"""Which addresses a finished video may be fetched from, and which answers are none."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from kling_async.catalog import NOT_IN_URLS

LARGEST_VIDEO_BYTES = 4 * 1024**3
"""A ceiling far above any video that a Kling model makes; what is larger is not a video."""
_WORDS = re.compile(r"text/|application/([\w.-]+\+)?(json|xml)\b", re.IGNORECASE | re.ASCII)


def refusal(url: str, *, came_from: str | None = None) -> str | None:
    """Why an address must not be fetched, or None: https only, except from this machine itself.

    Args:
        url: The address.
        came_from: The address that redirected to it. One elsewhere must not reach the services of this machine.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port, host.encode("idna")
    except ValueError as error:
        return f"it is no URL ({error})"
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        return "only https is fetched"
    if not host or NOT_IN_URLS.search(url):
        return "it names no host, or holds characters that no address has"
    if "@" in parts.netloc:
        return "it holds a user name"
    if came_from is not None and _is_loopback(host) and not _is_loopback(urlsplit(came_from).hostname or ""):
        return "another host redirected to this machine"
    return None


def is_message(content_type: str) -> bool:
    """Whether a reply is words and no file: the page of a proxy, or an error that was answered with 200."""
    return _WORDS.match(content_type.strip()) is not None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
