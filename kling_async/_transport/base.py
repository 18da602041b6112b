"""The protocol of a transport: send one request, or stream one reply.

A transport decides nothing: it follows no redirect, reads no status and repeats no POST. It raises
`APIConnectionError` and `APITimeoutError`; their `was_sent` says whether the server can have received the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs

from kling_async._field_docs import describe_fields

MAX_POST_CONNECT_TIME = 15.0
"""Seconds for which a POST can wait for its connection, and so leave after the last check of whether it may.

A process that shares a journal asks before each POST whether it still holds the item: see `MAX_CONFIRMATION_AGE`.
"""
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization"})


def _hide_values(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with `***` for the values that are secret."""
    return {name: "***" if name.lower() in _SECRET_HEADERS else value for name, value in headers.items()}


@attrs.frozen
class Request:
    """One HTTP request. Its repr and its pickle do not hold the API key."""

    method: str
    url: str
    """Absolute and percent-encoded."""
    headers: Mapping[str, str] = attrs.field(repr=lambda headers: repr(_hide_values(headers)))
    """With the API key, if the request goes to the service."""
    body: bytes | None = attrs.field(default=None, repr=False)
    timeout: float = 60.0
    """Seconds for the whole request; for a stream, seconds for the head of the reply, and then between two pieces of its
    body."""
    max_reply_bytes: int = 64 * 1024 * 1024
    """The longest body that `Transport.send` reads, after decompression; a longer one is an `APIConnectionError`."""
    is_public_only: bool = False
    """Whether the request may be sent to public addresses only: a far service named its URL."""

    @property
    def connect_timeout(self) -> float:
        """How many seconds a connection may take. A slow one ends before the request does, and counts as not sent."""
        half = self.timeout / 2
        return min(half, MAX_POST_CONNECT_TIME) if self.method == "POST" else half

    def __reduce__(self) -> tuple[object, ...]:
        fields = attrs.asdict(self, recurse=False)
        return Request, tuple({**fields, "headers": _hide_values(self.headers)}.values())


@attrs.frozen
class Reply:
    """One HTTP reply with its whole body."""

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    """Keys are looked up in lower case."""
    body: bytes = attrs.field(repr=False)


Sink = Callable[[bytes | memoryview], bool]
"""Takes a piece of a body and returns whether it wants more now. The piece is valid only until it returns. It never
raises."""


class StreamedReply(Protocol):
    """One HTTP reply whose body comes in pieces."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Keys are looked up in lower case.

        Without `content-length`, and without `chunked` in `transfer-encoding`, a video is saved only if a digest agrees.
        """
        ...

    async def pipe_to(self, sink: Sink) -> bool:
        """Give the body to a sink, decoded from its transfer encoding; True when the body is complete.

        Returns False when the sink wants no more. Another call continues with the next byte.

        Raises:
            APIConnectionError: The body was cut short.
            APITimeoutError: No piece came within the request's timeout.
        """
        ...


class Transport(Protocol):
    """Sends requests to the service. Pass your own as `KlingClient(transport=...)` to test or to instrument."""

    async def send(self, request: Request) -> Reply:
        """The reply to a request, with a body of at most `Request.max_reply_bytes`.

        Raises:
            APIConnectionError: No complete reply came.
            APITimeoutError: The request took longer than its timeout.
        """
        ...

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamedReply]:
        """The reply to a request, with its body still unread. It raises the same errors as `send`."""
        ...

    async def aclose(self) -> None:
        """Close all connections. A second call does nothing."""
        ...


describe_fields(__name__)
