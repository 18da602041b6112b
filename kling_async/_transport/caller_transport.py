"""A transport of the caller, each of whose errors is one of ours: an error of another kind would end a whole batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from types import TracebackType

import attrs

from kling_async._transport.base import Reply, Request, Sink, StreamedReply, Transport
from kling_async.errors import APIConnectionError, KlingError


@contextmanager
def _translate_errors(
    moment: str = "before the answer came", *, own: BaseException | None = None
) -> Iterator[None]:
    """Turn each error of the caller's code to an `APIConnectionError`, after which a POST counts as lost.

    Args:
        moment: When the caller's code raised the error.
        own: An error of ours that the caller's code gets; it stays as it is.
    """
    try:
        yield
    except KlingError:
        raise
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if error is own or (task is not None and task.cancelling()):
            raise  # in place of a cancellation, which a retry would swallow
        raise APIConnectionError(f"the transport raised {type(error).__name__} {moment}") from error


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
class _CallerStream(AbstractAsyncContextManager[StreamedReply]):
    """A stream of a transport of the caller."""

    stream: AbstractAsyncContextManager[StreamedReply]

    async def __aenter__(self) -> StreamedReply:
        with _translate_errors():
            return _CallerReply(await self.stream.__aenter__())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        with _translate_errors("at the end of the answer", own=error):
            return await self.stream.__aexit__(kind, error, traceback)


@attrs.frozen(eq=False)
class CallerTransport:
    """Sends requests over a transport of the caller."""

    transport: Transport

    async def send(self, request: Request) -> Reply:
        """See `Transport.send`."""
        with _translate_errors():
            return await self.transport.send(request)

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamedReply]:
        """See `Transport.stream`."""
        with _translate_errors():
            return _CallerStream(self.transport.stream(request))

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        await self.transport.aclose()
