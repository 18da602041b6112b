"""Group commit: tasks that wait for their writes at the same time share one commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import attrs

from kling_async._journal.store import PendingWrites
from kling_async.errors import JournalError

_MAX_DELAY = 0.02
"""Seconds that a write waits for others, while no task waits for that write."""
_GATHER_DELAY = 0.005
"""Seconds that the first waiting task gives others to join: a commit costs as much as the writes of ten jobs."""


@attrs.define(eq=False)
class _Commit:
    """One group of writes, being committed."""

    is_done: anyio.Event = attrs.field(factory=anyio.Event)
    error: JournalError | None = None


@attrs.define(eq=False)
class GroupCommit:
    """The pending writes, and the commits that write them, one at a time."""

    write: Callable[[PendingWrites], Awaitable[None]]
    """Writes changes in one transaction; when it returns, they are on the disk."""
    pending: PendingWrites = attrs.field(init=False, factory=PendingWrites)
    """Writes that no commit has taken yet. Call `mark_added` after adding to them."""
    in_commit: PendingWrites = attrs.field(init=False, factory=PendingWrites)
    """Writes of the commit that runs now."""
    _writes: int = attrs.field(init=False, default=0)
    """How many writes there have been."""
    _taken: int = attrs.field(init=False, default=0)
    """How many of them a commit has taken; a commit that fails gives its writes to the next one."""
    _durable: int = attrs.field(init=False, default=0)
    """How many of them are on the disk."""
    _current: _Commit | None = attrs.field(init=False, default=None)
    _next: _Commit | None = attrs.field(init=False, default=None)
    """A commit that a task waits for and that has not started."""
    _committers: int = attrs.field(init=False, default=0)
    _write_added: anyio.Event | None = attrs.field(init=False, default=None)
    _waiter_added: anyio.Event | None = attrs.field(init=False, default=None)

    def mark_added(self) -> None:
        """Tell the committer that `pending` has one more write."""
        self._writes += 1
        if self._write_added is not None:
            self._write_added.set()

    def is_unwritten(self, number: int) -> bool:
        """Whether a change of an entry, or its release, may not be in the store yet."""
        return any(
            number in changes.fields or number in changes.released
            for changes in (self.pending, self.in_commit)
        )

    def collect_unwritten(self) -> PendingWrites:
        """All writes that may not be on the disk yet."""
        return self.in_commit.merge(self.pending)

    async def wait_durable(self) -> None:
        """Return when every write before this call is on the disk.

        Raises:
            JournalError: The disk failed. The next commit writes the same changes again.
        """
        wanted = self._writes
        while self._durable < wanted:
            if not self._committers:
                await self.flush()
                continue
            commit = self._current
            if commit is None or self._taken < wanted:
                commit = self._next = self._next or _Commit()
                self._wake()
            await commit.is_done.wait()
            if commit.error is not None:
                raise JournalError(commit.error.message) from commit.error

    async def run(self) -> None:
        """Commit writes in groups until cancelled."""
        self._committers += 1
        try:
            while True:
                await self._wait_for_writes()
                with suppress(JournalError):  # the waiting tasks raise it, and the next commit tries again
                    await self.flush()
        finally:
            self._committers -= 1
            if not self._committers:
                self._release_waiters()

    async def flush(self) -> None:
        """Commit all writes now, and return when they are on the disk.

        Raises:
            JournalError: The disk failed. The next commit writes the same changes again.
        """
        wanted = self._writes
        while self._durable < wanted:
            if self._current is not None:
                await self._current.is_done.wait()
            else:
                await self._commit()

    async def _wait_for_writes(self) -> None:
        """Wait for a write, and a little longer for others to share its commit."""
        while self._next is None and self._taken == self._writes:
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
        """Let waiting tasks commit by themselves, since no committer runs; another event loop may take over."""
        self._write_added = self._waiter_added = None
        if self._next is not None:
            self._next.is_done.set()
            self._next = None

    async def _commit(self) -> None:
        """Commit all pending writes as one group; if that fails, they are pending again, before later ones."""
        changes, self.pending = self.pending, PendingWrites()
        commit, self._next = self._next or _Commit(), None
        self.in_commit, self._current = changes, commit
        self._taken = self._writes
        try:
            await self.write(changes)
            self._durable = self._taken
        except BaseException as error:
            self.pending = changes.merge(self.pending)
            commit.error = error if isinstance(error, JournalError) else None
            raise
        finally:
            self.in_commit, self._current = PendingWrites(), None
            commit.is_done.set()


def _renew(event: anyio.Event | None) -> anyio.Event:
    return anyio.Event() if event is None or event.is_set() else event
