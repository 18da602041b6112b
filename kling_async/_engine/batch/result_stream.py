"""Finished results on their way to whoever asked for them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio
import attrs

from kling_async.results import Result


@attrs.define(eq=False)
class ResultStream(AsyncIterator[Result]):
    """The results of a batch as they finish; ends after the last, or with the error that ended the input."""

    on_taken: Callable[[], None]
    """Told of each result that leaves, which makes room for another job."""
    _ready: deque[Result] = attrs.field(init=False, factory=deque)
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _is_complete: bool = attrs.field(init=False, default=False)
    _error: BaseException | None = attrs.field(init=False, default=None)

    @property
    def waiting(self) -> int:
        """How many results nobody has taken yet."""
        return len(self._ready)

    def put(self, result: Result) -> None:
        """Hand over one result."""
        self._ready.append(result)
        self._changed.set()

    def complete(self, error: BaseException | None = None) -> None:
        """Nothing more will come; whoever takes the last result next meets the error, if there is one."""
        self._is_complete = True
        self._error = error
        self._changed.set()

    def __aiter__(self) -> ResultStream:
        return self

    async def __anext__(self) -> Result:
        while not self._ready:
            if self._is_complete:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            if self._changed.is_set():
                self._changed = anyio.Event()
            await self._changed.wait()
        result = self._ready.popleft()
        self.on_taken()
        return result
