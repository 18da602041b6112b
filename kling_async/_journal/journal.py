"""The journal: writes that cost nothing to make, and that are durable in groups."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import anyio
import anyio.to_thread
import attrs

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.sieve import Sieve
from kling_async._journal.store import Changes, Store, changed
from kling_async.errors import JournalError
from kling_async.models import ResultState

RunSync: TypeAlias = Callable[[Callable[[Changes], None], Changes], Awaitable[None]]
"""Calls a function that blocks, with its argument, without blocking the event loop."""

_UNSETTLED = frozenset({EntryState.INTENDED, EntryState.AMBIGUOUS})
_LINGER = 0.02
"""Seconds that a write waits for others to be written with, unless someone waits for it."""


@attrs.define(eq=False)
class _Commit:
    """One group of writes on its way to the disk."""

    is_over: anyio.Event = attrs.field(factory=anyio.Event)
    error: JournalError | None = None


class Journal:
    """What was meant, sent, got and saved, in one SQLite file that survives `kill -9` and a power cut.

    Opening it makes the file if there is none, and locks it until `close()`. It is used by one event loop at a time.

    Args:
        path: The file.

    Raises:
        JournalError: It is in use, no journal, damaged, of a newer version, or cannot be made there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        from kling_async._journal.over_sqlite import SqliteStore

        self._begin(SqliteStore(path), anyio.to_thread.run_sync)

    @classmethod
    def over(cls, store: Store, *, run_sync: RunSync = anyio.to_thread.run_sync) -> Journal:
        """A journal that keeps its entries in this store, and has it written by `run_sync`."""
        journal = cls.__new__(cls)
        journal._begin(store, run_sync)  # noqa: SLF001 - itself
        return journal

    def _begin(self, store: Store, run_sync: RunSync) -> None:
        self.path: Path = store.path
        """The file."""
        self._store = store
        self._run_sync = run_sync
        self._last_number = store.last_number
        self._spent_usd = store.spent_usd()
        # A journal that began empty holds what this process wrote: most lookups need no disk.
        self._written_here = Sieve() if store.last_number == 0 else None
        self._pending = Changes()
        self._on_its_way = Changes()
        self._writes = 0
        """How many there have been; the others say up to which one something holds."""
        self._tried_up_to = self._sent_up_to = self._durable_up_to = 0
        self._current: _Commit | None = None
        self._next: _Commit | None = None
        self._committers = 0
        self._something: anyio.Event | None = None
        self._someone_waits: anyio.Event | None = None
        self._is_closed = self._is_lent = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Journal {str(self.path)!r}>"

    @contextmanager
    def lent(self) -> Iterator[None]:
        """A block in which one batch has the journal to itself.

        Raises:
            JournalError: Another has it.
        """
        if self._is_lent:
            raise JournalError(
                f"The journal {str(self.path)!r} is in use by another batch of this process: wait until that ends, "
                "or give this one a journal of its own."
            )
        self._is_lent = True
        try:
            yield
        finally:
            self._is_lent = False

    def close(self) -> None:
        """Write what is still to be written, blocking, and give the file back; it may be called twice.

        Raises:
            JournalError: The rest could not be written. The file is given back all the same.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._durable_up_to < self._writes:
                self._store.commit(self._on_its_way.followed_by(self._pending))
                self._durable_up_to = self._writes
        finally:
            self._store.close()

    # Reading

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Iterator[Entry]:
        """The entries of a journal, in order, also while another process writes it; it is not locked or changed.

        Raises:
            JournalError: There is no journal at the path, or it cannot be read.
        """
        from kling_async._journal.over_sqlite import read

        return read(path)

    def find(self, identity: Identity) -> Entry | None:
        """The entry of an item; None where no run has intended it."""
        if self._written_here is not None and not self._written_here.may_hold(identity):
            return None
        number = self._pending.numbers.get(identity) or self._on_its_way.numbers.get(identity)
        if number is not None:
            return self._latest(number, None)
        entry = self._store.find(identity)
        return None if entry is None else self._latest(entry.number, entry)

    def owns(self, request_id: str) -> bool:
        """Whether an entry has this id, or had it before it was intended again."""
        for changes in (self._on_its_way, self._pending):
            if any(change.get("request_id") == request_id for change in changes.fields.values()):
                return True
            if any(entry.request_id == request_id for entry in changes.earlier):
                return True
        return self._store.owns(request_id)

    def unsettled(self, fingerprint: str) -> int:
        """How many entries of this fingerprint have a POST whose fate is unknown."""
        numbers = set(self._store.unanswered(fingerprint))
        for changes in (self._on_its_way, self._pending):
            numbers.update(
                number for identity, number in changes.numbers.items() if identity.fingerprint == fingerprint
            )
        entries = (self._get(number) for number in numbers)
        return sum(1 for entry in entries if entry.request_id is None and entry.state in _UNSETTLED)

    def entries(self) -> Iterator[Entry]:
        """All entries, in the order in which they were first intended."""
        last = 0
        while entries := self._store.page(last):
            for entry in entries:
                yield self._latest(entry.number, entry)
            last = entries[-1].number
        while last < self._last_number:  # not on the disk yet
            last += 1
            yield self._get(last)

    def spent_usd(self) -> Decimal:
        """What all entries cost together, as far as it is known."""
        return self._spent_usd

    def _latest(self, number: int, entry: Entry | None) -> Entry:
        """The entry with the writes that are not on the disk yet, or may just have reached it."""
        for changes in (self._on_its_way, self._pending):
            if number in changes.fields:
                entry = changed(entry, changes.fields[number])
        assert entry is not None, "what is not on the disk was intended and is on its way there"
        return entry

    def _get(self, number: int) -> Entry:
        return self._latest(number, self._store.entry(number))

    # Writing

    def intend(
        self,
        identity: Identity,
        *,
        model: str,
        payload: Mapping[str, Any],
        at: float,
        cost_usd: Decimal | None,
    ) -> int:
        """Write down that an item is about to be sent; the number of its entry.

        An entry that is there already begins anew: its job goes to the earlier attempts, so that its id is not lost.

        Args:
            identity: What matches the item across runs.
            model: The model's id.
            payload: The parameters as they are sent.
            at: Unix seconds.
            cost_usd: What the POST will cost, where a price is known.
        """
        before = self.find(identity)
        total = cost_usd
        if before is None:
            self._last_number += 1
            number, attempts = self._last_number, 1
        else:
            number, attempts = before.number, before.attempts + 1
            if before.cost_usd is not None:
                total = before.cost_usd + (cost_usd or 0)
            if before.state is not EntryState.NOT_SUBMITTED:
                self._pending.earlier.append(before)
        if self._written_here is not None:
            self._written_here.add(identity)
        self._pending.numbers[identity] = number
        self._pending.fields[number] = {
            "number": number,
            "identity": identity,
            "model": model,
            "payload": payload,
            "state": EntryState.INTENDED,
            "sent_at": at,
            "request_id": None,
            "record": None,
            "error": None,
            "path": None,
            "size_bytes": None,
            "sha256": None,
            "cost_usd": total,
            "attempt_cost_usd": cost_usd,
            "attempts": attempts,
        }
        self._spent_usd += cost_usd or 0
        self._note()
        return number

    def withdraw(self, number: int, *, error: str) -> None:
        """Write down that a POST was provably not accepted: it is not counted, and its cost is taken back.

        Args:
            number: The entry's.
            error: Why, in one line.
        """
        entry = self._get(number)
        change = self._pending.of(number)
        change.update(state=EntryState.NOT_SUBMITTED, error=error)
        if entry.state is not EntryState.NOT_SUBMITTED:
            attempts, cost = entry.attempts - 1, entry.attempt_cost_usd
            total = entry.cost_usd - (cost or 0) if attempts and entry.cost_usd is not None else None
            change.update(attempts=attempts, cost_usd=total, attempt_cost_usd=None)
            self._spent_usd -= cost or 0
        self._note()

    def accept(self, number: int, *, request_id: str, record: Mapping[str, Any]) -> None:
        """Write down that the service has it.

        Args:
            number: The entry's.
            request_id: The service's id.
            record: What it answered.
        """
        self._pending.of(number).update(
            state=EntryState.SUBMITTED, request_id=request_id, record=_kept(record), error=None
        )
        self._note()

    def end(
        self,
        number: int,
        *,
        state: EntryState | ResultState,
        record: Mapping[str, Any] | None,
        error: str | None,
    ) -> None:
        """Write down how it ended. What was never accepted is withdrawn.

        Args:
            number: The entry's.
            state: How.
            record: The last record of the job; None leaves the one before.
            error: Why, in one line, where it ended without a video.
        """
        if state == ResultState.NOT_SUBMITTED:
            self.withdraw(number, error=error or "")
            return
        change = self._pending.of(number)
        change.update(state=EntryState(str(state)), error=error)
        if record is not None:
            change["record"] = _kept(record)
        self._note()

    def save(self, number: int, *, path: str, size_bytes: int, sha256: str | None) -> None:
        """Write down where its video lies.

        Args:
            number: The entry's.
            path: The file.
            size_bytes: Its size.
            sha256: Its digest, in hex.
        """
        self._pending.of(number).update(path=path, size_bytes=size_bytes, sha256=sha256, error=None)
        self._note()

    def _note(self) -> None:
        self._writes += 1
        if self._something is not None:
            self._something.set()

    # Durability

    async def durable(self) -> None:
        """Return when everything written before this call is on the disk.

        Raises:
            JournalError: It could not be written. It is tried again with the next write.
        """
        wanted = self._writes
        while self._durable_up_to < wanted:
            if not self._committers:
                await self.flush()
                continue
            commit = self._current
            if commit is None or self._sent_up_to < wanted:
                commit = self._next = self._next or _Commit()
                self._hurry()
            await commit.is_over.wait()
            if commit.error is not None:
                raise JournalError(commit.error.message) from commit.error

    async def run(self) -> None:
        """Write, in groups, whatever there is to write, until it is cancelled."""
        self._committers += 1
        try:
            while True:
                await self._work()
                with suppress(JournalError):  # told to those who wait for it, and tried again with the next
                    await self.flush()
        finally:
            self._committers -= 1
            if not self._committers:
                self._leave()

    async def flush(self) -> None:
        """Write now what there is to write, and return when it is on the disk.

        Raises:
            JournalError: It could not be written. It is tried again with the next write.
        """
        wanted = self._writes
        while self._durable_up_to < wanted:
            if self._current is not None:
                await self._current.is_over.wait()
            else:
                await self._commit()

    async def _work(self) -> None:
        """Wait until there is something to write, and for more of it unless someone waits."""
        while self._next is None and self._tried_up_to == self._writes:
            self._something = _unset(self._something)
            await self._something.wait()
        if self._next is None:
            self._someone_waits = _unset(self._someone_waits)
            with anyio.move_on_after(_LINGER):
                await self._someone_waits.wait()

    def _hurry(self) -> None:
        for event in (self._something, self._someone_waits):
            if event is not None:
                event.set()

    def _leave(self) -> None:
        """Whoever waits for a committer writes by himself from now on, and another loop may take over."""
        self._something = self._someone_waits = None
        if self._next is not None:
            self._next.is_over.set()
            self._next = None

    async def _commit(self) -> None:
        """Write all that is pending as one group; what fails is pending again, before what came meanwhile."""
        changes, self._pending = self._pending, Changes()
        commit, self._next = self._next or _Commit(), None
        self._on_its_way, self._current = changes, commit
        self._sent_up_to = self._tried_up_to = self._writes
        try:
            await self._run_sync(self._store.commit, changes)
            self._durable_up_to = self._sent_up_to
        except BaseException as error:
            self._pending = changes.followed_by(self._pending)
            commit.error = error if isinstance(error, JournalError) else None
            raise
        finally:
            self._on_its_way, self._current = Changes(), None
            commit.is_over.set()


def _kept(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without the payload: the entry has it."""
    return {name: value for name, value in record.items() if name != "payload"}


def _unset(event: anyio.Event | None) -> anyio.Event:
    return anyio.Event() if event is None or event.is_set() else event
