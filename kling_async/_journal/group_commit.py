"""Many writes, few commits: whoever waits for a write shares the commit with all who wait with him."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import attrs

from kling_async._journal.store import PendingWrites
from kling_async.errors import JournalError

_MAX_DELAY = 0.02
"""Seconds that a write waits for others to be written with it, as long as nobody waits for it."""
_GATHER_DELAY = 0.005
"""Seconds that the first who waits gives others to join: a commit costs as much as the writes of ten jobs."""


@attrs.define(eq=False)
class _Commit:
    """One group of writes on its way to the disk."""

    is_done: anyio.Event = attrs.field(factory=anyio.Event)
    error: JournalError | None = None


@attrs.define(eq=False)
class GroupCommit:
    """What is still to be written, and the commits that write it, one at a time."""

    write: Callable[[PendingWrites], Awaitable[None]]
    """Writes changes as one; when it returns they are on the disk."""
    pending: PendingWrites = attrs.field(init=False, factory=PendingWrites)
    """What no commit has taken yet; whoever adds to it calls `mark_added`."""
    in_commit: PendingWrites = attrs.field(init=False, factory=PendingWrites)
    """What the present commit writes."""
    _writes: int = attrs.field(init=False, default=0)
    """How many there have been; the next three say up to which one something holds."""
    _tried: int = attrs.field(init=False, default=0)
    _sent: int = attrs.field(init=False, default=0)
    _durable: int = attrs.field(init=False, default=0)
    _current: _Commit | None = attrs.field(init=False, default=None)
    _next: _Commit | None = attrs.field(init=False, default=None)
    """The commit that somebody waits for, and that has not begun."""
    _committers: int = attrs.field(init=False, default=0)
    _write_added: anyio.Event | None = attrs.field(init=False, default=None)
    _waiter_added: anyio.Event | None = attrs.field(init=False, default=None)

    def mark_added(self) -> None:
        """Something was added to what is pending."""
        self._writes += 1
        if self._write_added is not None:
            self._write_added.set()

    def unwritten(self) -> PendingWrites:
        """All that may not be on the disk."""
        return self.in_commit.merge(self.pending)

    async def durable(self) -> None:
        """Return when everything written before this call is on the disk.

        Raises:
            JournalError: It could not be written. It is tried again with the next write.
        """
        wanted = self._writes
        while self._durable < wanted:
            if not self._committers:
                await self.flush()
                continue
            commit = self._current
            if commit is None or self._sent < wanted:
                commit = self._next = self._next or _Commit()
                self._wake()
            await commit.is_done.wait()
            if commit.error is not None:
                raise JournalError(commit.error.message) from commit.error

    async def run(self) -> None:
        """Write, in groups, whatever there is to write, until it is cancelled."""
        self._committers += 1
        try:
            while True:
                await self._wait_for_writes()
                with suppress(JournalError):  # told to those who wait for it, and tried again with the next
                    await self.flush()
        finally:
            self._committers -= 1
            if not self._committers:
                self._release_waiters()

    async def flush(self) -> None:
        """Write now what there is to write, and return when it is on the disk.

        Raises:
            JournalError: It could not be written. It is tried again with the next write.
        """
        wanted = self._writes
        while self._durable < wanted:
            if self._current is not None:
                await self._current.is_done.wait()
            else:
                await self._commit()

    async def _wait_for_writes(self) -> None:
        """Wait until there is something to write, and a little for more of it."""
        while self._next is None and self._tried == self._writes:
            self._write_added = _renew(self._write_added)
            await self._write_added.wait()
        if self._next is None:
            self._waiter_added = _renew(self._waiter_added)
            with anyio.move_on_after(_MAX_DELAY):
                await self._waiter_added.wait()
        if self._next is not None:
            await anyio.sleep(_GATHER_DELAY)

    def _wake(self) -> None:
        for event in (self._write_added, self._waiter_added):
            if event is not None:
                event.set()

    def _release_waiters(self) -> None:
        """Whoever waits for a committer writes by himself from now on, and another loop may take over."""
        self._write_added = self._waiter_added = None
        if self._next is not None:
            self._next.is_done.set()
            self._next = None

    async def _commit(self) -> None:
        """Write all that is pending as one group; what fails is pending again, before what came meanwhile."""
        changes, self.pending = self.pending, PendingWrites()
        commit, self._next = self._next or _Commit(), None
        self.in_commit, self._current = changes, commit
        self._sent = self._tried = self._writes
        try:
            await self.write(changes)
            self._durable = self._sent
        except BaseException as error:
            self.pending = changes.merge(self.pending)
            commit.error = error if isinstance(error, JournalError) else None
            raise
        finally:
            self.in_commit, self._current = PendingWrites(), None
            commit.is_done.set()


def _renew(event: anyio.Event | None) -> anyio.Event:
    return anyio.Event() if event is None or event.is_set() else event
