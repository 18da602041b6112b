"""The results of a batch on their way to the caller, who takes them one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator

import anyio
import attrs

from kling_async.errors import KlingError
from kling_async.results import Result


@attrs.define(eq=False)
class ResultStream(AsyncIterator[Result]):
    """The results of a batch as they finish; it ends after the last one, or raises the error that ended the input."""

    read_ahead: anyio.Semaphore
    """One permit for each item that is read and whose result the caller has not taken; each result taken frees one."""
    has_raised: bool = attrs.field(init=False, default=False)
    """Whether the caller has met the error that ended the input."""
    interrupted: list[Result] = attrs.field(init=False, factory=list)
    """The results of items that the end of the batch interrupts; `put_interrupted` adds them."""
    _ready: deque[Result] = attrs.field(init=False, factory=deque)
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _is_complete: bool = attrs.field(init=False, default=False)
    _error: BaseException | None = attrs.field(init=False, default=None)

    def put(self, result: Result) -> None:
        """Add one result."""
        self._ready.append(result)
        self._changed.set()

    def put_interrupted(self, result: Result) -> None:
        """Add the result of an item that the end of the batch interrupts."""
        self.interrupted.append(result)

    @property
    def rest(self) -> list[Result]:
        """The results that the caller has not taken, those of interrupted items last."""
        return [*self._ready, *self.interrupted]

    def complete(self, error: BaseException | None = None) -> None:
        """End the stream: after the last result the caller meets the error, if there is one.

        An item whose task was cancelled alone, and not with the batch, has its result too.
        """
        self._ready.extend(self.interrupted)
        self.interrupted.clear()
        self._is_complete = True
        self._error = error
        self._changed.set()

    def close(self) -> None:
        """End the stream with the block of its batch: a caller who reads on outside meets an error, and does not wait without end."""
        if not self._is_complete:
            self.complete(
                KlingError(
                    "The batch ended with its block, so no further result comes: read the results inside the `async with`."
                )
            )

    def __aiter__(self) -> ResultStream:
        return self

    async def __anext__(self) -> Result:
        while not self._ready:
            if self._is_complete:
                error, self._error = self._error, None
                if error is not None:
                    self.has_raised = True
                    raise error
                raise StopAsyncIteration
            if self._changed.is_set():
                self._changed = anyio.Event()
            await self._changed.wait()
        self.read_ahead.release()
        return self._ready.popleft()
