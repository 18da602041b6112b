"""What an http or https URL is, and which host is this machine: decided here for every room."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import attrs

_FORBIDDEN = re.compile(r"[\s\x00-\x20\x7f\\\ud800-\udfff]")
"""White space, control characters, backslashes and lone surrogates: no URL that can be fetched has one."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""The IPv6 addresses of hosts of the internet; site-local and reserved ones are elsewhere. Source: IANA, IPv6 address space."""
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)
"""Networks of protocols and of documentation that `is_global` of some Python versions takes for public.

Source: IANA, special-purpose address registries of IPv4 and IPv6. The few anycast addresses of protocols in them, such as
192.0.0.9, are no storage either.
"""
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


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
    def is_private(self) -> bool:
        """Whether the host is, as written, this machine or an address that is not public.

        A name of another host is not: only a lookup says where the name leads to.
        """
        name = self.host.rstrip(".")
        if name == "localhost" or name.endswith(".localhost"):
            return True
        return _is_address(name) and not is_public_address(name)

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine: `localhost`, or a loopback address in its usual form."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def is_public_address(text: str) -> bool:
    """Whether a text is a public IP address in its usual form.

    Private, shared, loopback, link-local, site-local, multicast, reserved and documentation addresses are not, also where
    an IPv6 address wraps one.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = _wrapped_address(address) or address
    if address.version == 6 and address not in _GLOBAL_UNICAST:  # noqa: PLR2004 - the version's number
        return False
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _wrapped_address(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a gateway makes of an IPv6 address. Source: RFC 4291, RFC 3056, RFC 6052."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_address(host: str) -> bool:
    """Whether a system reads the host as an address: also `127.1` and `0x7f000001`. Source: the URL standard of WHATWG."""
    return ":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


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
