"""Errors of aiohttp, translated to those of this package."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType

import aiohttp
import attrs

from kling_async._transport.base import Request
from kling_async.errors import APIConnectionError, APITimeoutError, CertificateError


@attrs.define(eq=False)
class ProxyPhase:
    """How far a request through a proxy is."""

    is_connecting: bool = False
    """The proxy has not confirmed the connection yet."""


class translate_errors:  # noqa: N801 - used like a function
    """Translates an error of aiohttp that the block raises to one of this package."""

    __slots__ = ("_phase", "_request")

    def __init__(self, request: Request, phase: ProxyPhase | None = None) -> None:
        self._request = request
        self._phase = phase

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        is_connecting = self._phase is not None and self._phase.is_connecting
        translated = _translate(error, self._request, is_connecting=is_connecting)
        if translated is not None:
            raise translated from error


def _translate(error: BaseException, request: Request, *, is_connecting: bool) -> APIConnectionError | None:
    """The error of this package for an error of aiohttp; None for an error that passes unchanged."""
    name = describe_call(request)
    translated: APIConnectionError | None = None
    match error:
        case aiohttp.ConnectionTimeoutError():
            translated = APITimeoutError(
                f"{name}: no connection within {request.timeout / 2:g} s.", was_sent=False
            )
        case TimeoutError() | aiohttp.ServerTimeoutError():
            translated = APITimeoutError(f"{name}: no answer within {request.timeout:g} s.")
        case aiohttp.ClientConnectorCertificateError():
            translated = CertificateError(
                f"{name}: no connection, because the server's certificate is not trusted "
                f"({_certificate_reason(error.certificate_error)}). If a proxy or gateway of your network issues the "
                "certificates, set SSL_CERT_FILE to a file that holds its root certificate."
            )
        case aiohttp.ClientConnectorError() | aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            reason = error if isinstance(error, OSError) else "no address to connect to"
            translated = APIConnectionError(f"{name}: no connection ({reason}).", was_sent=False)
        case aiohttp.ClientHttpProxyError():
            translated = APIConnectionError(
                f"{name}: no connection (the proxy answered {error.status}).", was_sent=False
            )
        case aiohttp.ClientError() | OSError() | ValueError() if is_connecting:
            translated = APIConnectionError(
                f"{name}: no connection (the proxy closed it: {_reason(error)}).", was_sent=False
            )
        case aiohttp.ClientError() | OSError() | ValueError():
            translated = APIConnectionError(f"{name}: the connection was lost ({_reason(error)}).")
        case asyncio.CancelledError() if not _is_cancelled():
            # A closed session cancels its own DNS lookups.
            translated = APIConnectionError(f"{name}: the client was closed before the reply came.")
    return translated


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _certificate_reason(error: Exception) -> str:
    assert isinstance(error, ssl.SSLCertVerificationError)
    return error.verify_message


def _reason(error: Exception) -> str:
    """The reason in one line, without the URL: its query may hold a signature."""
    # The cause has the reason; the error itself wraps the reason in brackets and quotes.
    said = error.__cause__ if isinstance(error, aiohttp.ClientPayloadError) else error
    text = getattr(said, "message", str(error))
    return " ".join(text.split()).rstrip(".") if text and isinstance(text, str) else type(error).__name__


def describe_call(request: Request) -> str:
    """The call as errors name it, without the query: it may hold a signature."""
    return f"{request.method} {request.url.partition('?')[0]}"
