"""Which addresses a finished video may be fetched from."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

LARGEST_VIDEO_BYTES = 4 * 1024**3
"""A ceiling far above any video that a Kling model makes; what is larger is not a video."""


def refusal(url: str) -> str | None:
    """Why an address must not be fetched, or None: https only, except from this machine itself."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        return f"it is no URL ({error})"
    if not host or any(character.isspace() for character in url):
        return "it names no host"
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        return None
    return "only https is fetched"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
