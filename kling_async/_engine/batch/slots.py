"""The slots of a batch: how many of its items are in flight, and who waits for a free one."""

from __future__ import annotations

import anyio
import attrs

from kling_async._policy.concurrency_limit import ConcurrencyLimit


@attrs.define(eq=False)
class Slots:
    """Hands out the slots of a concurrency limit: to the reader of the input, and to items that were put aside."""

    limit: ConcurrencyLimit
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    async def take(self) -> None:
        """Wait for a free slot and take it."""
        await self.wait_free()
        self.limit.take_slot()

    async def wait_free(self) -> None:
        """Return when a slot is free."""
        while not self.limit.has_slot:
            if self._changed.is_set():
                self._changed = anyio.Event()
            await self._changed.wait()

    def free(self) -> None:
        """Give a slot back."""
        self.limit.free_slot()
        self._changed.set()

    def record_accepted(self) -> None:
        """A submit was accepted, so the limit may have grown."""
        self.limit.grow()
        self._changed.set()
