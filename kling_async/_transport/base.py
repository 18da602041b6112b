"""What the engine needs of a network, as a protocol: send one request, or stream one reply.

A transport decides nothing: it does not repeat a call, follow a redirect or read a status. Its errors are
`APIConnectionError` and `APITimeoutError`, whose `was_sent` says whether the other side can have seen the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs


@attrs.frozen
class Request:
    """One HTTP request."""

    method: str
    url: str
    """Absolute, and percent-encoded already."""
    headers: Mapping[str, str]
    body: bytes | None = attrs.field(default=None, repr=False)
    timeout: float = 60.0
    """Seconds for the whole call; for a stream, seconds between two pieces of the reply."""


@attrs.frozen
class Reply:
    """One HTTP reply, read whole."""

    status: int
    headers: Mapping[str, str]
    """Looked up by lower-case names."""
    body: bytes


Sink = Callable[[bytes | memoryview], bool]
"""Takes a piece of a body, which is good only until it returns; False if no more is wanted for now. It never raises."""


class StreamedReply(Protocol):
    """One HTTP reply whose body comes in pieces."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Looked up by lower-case names."""
        ...

    async def pipe_to(self, sink: Sink) -> bool:
        """Give the body, decoded from its transfer encoding, to a sink; whether that was all of it.

        Where the sink wants no more, False; called again, it goes on with the next byte.

        Raises:
            APIConnectionError: The body was cut short.
            APITimeoutError: No piece came within the request's timeout.
        """
        ...


class Transport(Protocol):
    """A way to the service. Give your own as `KlingClient(transport=...)` to test or to instrument."""

    async def send(self, request: Request) -> Reply:
        """The reply to a request, with a body of at most 64 MiB.

        Raises:
            APIConnectionError: No whole reply came.
            APITimeoutError: It took longer than the request's timeout.
        """
        ...

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamedReply]:
        """The reply to a request, its body still to be read; the same errors as `send`."""
        ...

    async def aclose(self) -> None:
        """Close all connections; it may be called twice."""
        ...
