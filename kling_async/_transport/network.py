"""Which proxy a request goes through, and which certificates are trusted."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote, urlsplit

import attrs


@attrs.frozen
class Proxy:
    """An HTTP proxy."""

    url: str
    """Without user and password."""
    authorization: str | None = attrs.field(default=None, repr=False)
    """The value of the header `Proxy-Authorization`."""


@attrs.frozen
class Network:
    """How connections leave this machine."""

    proxies: Mapping[str, Proxy] = attrs.field(factory=dict)
    """By the scheme of the request, `http` or `https`."""
    no_proxy: str = ""
    """Hosts that need no proxy, separated by commas, as in the variable `NO_PROXY`."""
    ca_file: str | None = None
    """A file of the certificates to trust; None trusts those of the system."""

    def proxy_for(self, url: str) -> Proxy | None:
        """The proxy for requests to a URL; None if they go there directly."""
        if not self.proxies:
            return None
        parts = urlsplit(url)
        proxy = self.proxies.get(parts.scheme)
        return None if proxy is None or _is_excluded(parts.netloc, self.no_proxy) else proxy

    def ssl_context(self) -> ssl.SSLContext:
        """What TLS connections check certificates with.

        Raises:
            OSError: `ca_file` cannot be read, or holds no certificate.
        """
        return _ssl_context(self.ca_file)


def parse_proxy(address: str) -> Proxy:
    """The proxy at an address such as `http://user:password@host:3128`; without a scheme, `http` is meant.

    Raises:
        ValueError: It is no address of an HTTP proxy. The message holds no part of the address.
    """
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("its host or port cannot be read") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError("its scheme is neither http nor https")
    if not host or not address.isascii() or not address.isprintable() or " " in address:
        raise ValueError("its host is missing or has odd characters")
    name = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{name}" + (f":{port}" if port is not None else "")
    if parts.username is None:
        return Proxy(url)
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(url, f"Basic {b64encode(pair.encode()).decode()}")


def _is_excluded(netloc: str, no_proxy: str) -> bool:
    """Whether a host is in the list, by itself, as part of a domain, or with its port."""
    target = netloc.rpartition("@")[2].lower()
    host = urlsplit(f"//{target}").hostname or ""
    for entry in no_proxy.lower().split(","):
        name = entry.strip().lstrip("*").lstrip(".").strip("[]")
        if entry.strip() == "*" or (name and (name in {host, target} or host.endswith(f".{name}"))):
            return True
    return False


@lru_cache(maxsize=8)
def _ssl_context(ca_file: str | None) -> ssl.SSLContext:
    """One for all clients: reading the system's certificates takes some 20 ms."""
    return ssl.create_default_context(cafile=ca_file)
