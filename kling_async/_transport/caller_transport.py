"""A transport of the caller, each of whose errors is one of ours: an error of another kind would end a whole batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import attrs

from kling_async._transport.base import Reply, Request, Sink, StreamedReply, Transport
from kling_async.errors import APIConnectionError, KlingError


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Turn each error of the caller's code to an `APIConnectionError`, after which a POST counts as lost."""
    try:
        yield
    except KlingError:
        raise
    except Exception as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # in place of a cancellation, which a retry would swallow
        raise APIConnectionError(
            f"the transport raised {type(error).__name__} before the answer came"
        ) from error


@attrs.frozen
class _CallerReply:
    """A streamed reply of a transport of the caller."""

    reply: StreamedReply

    @property
    def status(self) -> int:
        return self.reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.reply.headers

    async def pipe_to(self, sink: Sink) -> bool:
        with _translate_errors():
            return await self.reply.pipe_to(sink)


@attrs.frozen(eq=False)
class CallerTransport:
    """Sends requests over a transport of the caller."""

    transport: Transport

    async def send(self, request: Request) -> Reply:
        """See `Transport.send`."""
        with _translate_errors():
            return await self.transport.send(request)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[StreamedReply]:
        """See `Transport.stream`."""
        async with AsyncExitStack() as stack:
            with _translate_errors():
                reply = await stack.enter_async_context(self.transport.stream(request))
            yield _CallerReply(reply)

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        await self.transport.aclose()
