"""Opens the transport of a client: the fast path where it can be used, else the one over aiohttp's public API."""

from __future__ import annotations

from typing import Literal

from kling_async._callbacks import SafeLogger
from kling_async._transport.base import Transport
from kling_async._transport.network import Network
from kling_async._transport.over_aiohttp import AiohttpTransport

TransportPath = Literal["fast", "public"]

_log = SafeLogger("kling_async")


def open_transport(network: Network, path: TransportPath) -> Transport:
    """A transport for the running event loop.

    Args:
        network: Proxies and certificates.
        path: `public` uses aiohttp's public API alone; `fast` also uses other parts of aiohttp, if they are as expected.
    """
    reason: str | None = "the setting KLING_ASYNC_TRANSPORT"
    if path == "fast":
        try:
            from kling_async._transport import fast_path
        except ImportError as error:
            reason = str(error)
        else:
            reason = fast_path.reason_against(network)
            if reason is None:
                return fast_path.FastTransport(network)
    _log.debug("requests go through aiohttp's public API: %s", reason)
    return AiohttpTransport(network)
