"""Looks up hosts that the service named, and connects to public addresses only.

The service gives the URL of each video and of each upload. A name that a far service chose can stand for an address of
this machine, of its network or of a cloud's metadata service; only the lookup shows that.
"""

from __future__ import annotations

import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from kling_async._urls import is_public_address


class PrivateAddressError(OSError):
    """A host has no public address."""


class PublicResolver(AbstractResolver):
    """Gives the public addresses of a host, and no other: what is checked here is what aiohttp connects to."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The public addresses of a host.

        Raises:
            OSError: The host is not known, or is a `PrivateAddressError`.
        """
        found = await self._resolver.resolve(host, port, family)
        public = [address for address in found if is_public_address(address["host"])]
        if not public:
            raise PrivateAddressError(f"the host {host} has no public address")
        return public

    async def close(self) -> None:
        """Do nothing: a lookup ends by itself."""
        await self._resolver.close()
