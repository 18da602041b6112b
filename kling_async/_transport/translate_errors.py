"""Errors of aiohttp, translated to those of this package."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from types import TracebackType

import aiohttp
import attrs

from kling_async._descriptors import find_lack_of_descriptors
from kling_async._secrets import Secret, clear_locals
from kling_async._transport.base import Request
from kling_async._transport.network import Proxy
from kling_async._transport.public_hosts import PrivateAddressError
from kling_async.errors import (
    APIConnectionError,
    APITimeoutError,
    CertificateError,
    ConfigurationError,
    KlingError,
    ProxyError,
)

PROXY_AUTHENTICATION_REQUIRED = 407
_REFUSALS = set(range(400, 500)) - {408, 425, 429}
"""The answers of a proxy that stay the same when the same call is sent again."""
_NO_WAY = "Check the network; KlingClient(base_url=..., proxy=...) says where the service is, and through which proxy."


@attrs.define(eq=False)
class ProxyPhase:
    """How far a request is on its way through a proxy."""

    proxy: Proxy | None = None
    """None if it goes to its host directly."""
    is_connecting: bool = False
    """The proxy has not confirmed the connection yet."""

    @property
    def address(self) -> str:
        """The URL of the proxy, without its login."""
        return self.proxy.url if self.proxy else ""


class translate_errors:  # noqa: N801 - used like a function
    """Translates an error of aiohttp that the block raises to one of this package."""

    __slots__ = ("_outer", "_phase", "_request")

    def __init__(self, request: Request, phase: ProxyPhase | None = None) -> None:
        self._request = request
        self._phase = phase

    def __enter__(self) -> None:
        self._outer = sys.exception()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                raise_translated(error, self._request, self._phase, outer=self._outer)
        finally:
            del (
                error,
                traceback,
            )  # no frame of a translated error may hold the header, as an error of aiohttp does


def raise_translated(
    error: BaseException,
    request: Request,
    phase: ProxyPhase | None = None,
    *,
    outer: BaseException | None,
) -> None:
    """Raise the error of this package for an error of aiohttp, or return if that passes unchanged.

    Where each request passes, this is used in place of `translate_errors`: a `try` that raises nothing costs nothing.

    Args:
        error: The error. Its frames forget their variables.
        request: The request that failed.
        phase: How far the request was on its way through a proxy.
        outer: The error that was handled before the request.
    """
    clear_locals(error, outer=outer)
    phase = phase or ProxyPhase()
    translated = _translate(error, request, phase)
    if translated is None:
        return
    cause = _real_cause(error)
    if any(secret.is_shown_by(error) for secret in _secrets_of(request, phase)):
        cause = None
    del error  # see `translate_errors.__exit__`
    try:
        raise translated from cause
    finally:
        translated.__context__ = cause


def _secrets_of(request: Request, phase: ProxyPhase) -> list[Secret]:
    """The key and the login of the proxy, which no error may show."""
    values = [request.headers.get("Authorization"), phase.proxy.authorization if phase.proxy else None]
    return [Secret(value.rpartition(" ")[2]) for value in values if value is not None]


def _real_cause(error: BaseException) -> BaseException | None:
    """The lack of file descriptors, if that is why the name of a host could not be looked up: the lookup says "not known"."""
    # Up to aiohttp 3.12 the error of a certificate is a ClientConnectorError whose `os_error` cannot be read.
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(
        getattr(error, "os_error", None), socket.gaierror
    ):
        return find_lack_of_descriptors() or error
    return error


def _translate(error: BaseException, request: Request, phase: ProxyPhase) -> KlingError | None:
    """The error of this package for an error of aiohttp; None for an error that passes unchanged."""
    name = describe_call(request)
    translated: KlingError | None = None
    match error:
        case aiohttp.ConnectionTimeoutError():
            translated = APITimeoutError(
                f"{name}: no connection within {request.connect_timeout:g} s.", was_sent=False, advice=_NO_WAY
            )
        case TimeoutError() | aiohttp.ServerTimeoutError():
            translated = APITimeoutError(
                f"{name}: no answer within {request.timeout:g} s.",
                advice="Try again later, or with a longer KlingClient(timeout=...).",
            )
        case aiohttp.ClientConnectorCertificateError():
            translated = CertificateError(
                f"{name}: no connection, because the server's certificate is not trusted "
                f"({_certificate_reason(error.certificate_error)}). If a proxy or gateway of your network issues the "
                "certificates, set SSL_CERT_FILE to a file that holds its root certificate."
            )
        case aiohttp.ClientConnectorError(os_error=PrivateAddressError() as refused):
            translated = ConfigurationError(
                f"{name} is not sent: {refused}, and the service is elsewhere. If the service is in a private network "
                "that you trust, set KLING_ASYNC_TRUST_NETWORK=1."
            )
        case aiohttp.ClientConnectorError() | aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            reason = error if isinstance(error, OSError) else "no address to connect to"
            translated = APIConnectionError(
                f"{name}: no connection ({reason}).", was_sent=False, advice=_NO_WAY
            )
        case aiohttp.ClientHttpProxyError():
            translated = proxy_error(request, phase, error.status)
        case aiohttp.ClientError() | OSError() | ValueError() if phase.is_connecting:
            translated = APIConnectionError(
                f"{name}: no connection (the proxy {phase.address} closed it: {_reason(error, _secrets_of(request, phase))}).",
                was_sent=False,
                advice=_NO_WAY,
            )
        case aiohttp.ClientError() | OSError() | ValueError():
            translated = APIConnectionError(
                f"{name}: the connection was lost ({_reason(error, _secrets_of(request, phase))}).",
                advice="Try again later.",
            )
        case asyncio.CancelledError() if not _is_cancelled():
            # A closed session cancels its own DNS lookups.
            translated = APIConnectionError(f"{name}: the client was closed before the reply came.")
    return translated


def proxy_error(request: Request, phase: ProxyPhase, status: int) -> APIConnectionError:
    """The error for a proxy that answers with this status instead of passing a request on."""
    said = f"{describe_call(request)}: no connection (the proxy {phase.address} answered {status}"
    if status == PROXY_AUTHENTICATION_REQUIRED:
        has_login = phase.proxy is not None and phase.proxy.authorization is not None
        reason = (
            "it does not accept this user and password" if has_login else "it wants a user and a password"
        )
        with_login = phase.address.replace("://", "://user:password@")
        return ProxyError(f"{said}: {reason}). Write the URL of the proxy as {with_login}.")
    if status in _REFUSALS:
        return ProxyError(
            f"{said}: it does not allow this host). If this machine reaches the host without the proxy, add the host "
            "to NO_PROXY."
        )
    return APIConnectionError(f"{said}).", was_sent=False, advice=_NO_WAY)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _certificate_reason(error: Exception) -> str:
    assert isinstance(error, ssl.SSLCertVerificationError)
    return error.verify_message


def _reason(error: Exception, secrets: list[Secret]) -> str:
    """The reason in one line, without the URL: its query may hold a signature."""
    # The cause has the reason; the error itself wraps the reason in brackets and quotes.
    said = error.__cause__ if isinstance(error, aiohttp.ClientPayloadError) else error
    text = getattr(said, "message", str(error))
    if not text or not isinstance(text, str):
        return type(error).__name__
    for secret in secrets:
        text = secret.hide_in(text)
    return " ".join(text.split()).rstrip(".")


def describe_call(request: Request) -> str:
    """The call as errors name it, without the query: it may hold a signature."""
    return f"{request.method} {request.url.partition('?')[0]}"
