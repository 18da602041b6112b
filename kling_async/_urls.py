"""What an http or https URL is, and which host is this machine: decided here for every room."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import attrs

_FORBIDDEN = re.compile(r"[\s\x00-\x20\x7f\\\ud800-\udfff]")
"""White space, control characters, backslashes and lone surrogates: no URL that can be fetched has one."""


@attrs.frozen
class Url:
    """The parts of a URL, read once."""

    scheme: str
    """In lower case; empty if there is none."""
    host: str
    """In lower case, without brackets; empty if there is none."""
    path: str
    query: str
    fragment: str
    has_credentials: bool
    """Whether a user name or a password stands before the host."""
    has_forbidden_characters: bool
    """Whether the text holds a character that no URL may hold."""

    @property
    def is_web(self) -> bool:
        """Whether this is an http or https URL with a host, in characters that a URL may hold."""
        return self.scheme in {"http", "https"} and bool(self.host) and not self.has_forbidden_characters

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine: `localhost`, or a loopback address in its usual form."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_url(text: str) -> Url:
    """The parts of a URL, of any scheme or none.

    Raises:
        ValueError: The brackets, the port or the host name is malformed.
    """
    parts = urlsplit(text)
    host = parts.hostname or ""
    _ = parts.port, host.encode("idna")
    return Url(
        scheme=parts.scheme,
        host=host,
        path=parts.path,
        query=parts.query,
        fragment=parts.fragment,
        has_credentials="@" in parts.netloc,
        has_forbidden_characters=_FORBIDDEN.search(text) is not None,
    )
