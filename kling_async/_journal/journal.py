"""The journal as one process sees it: records money events at once, and commits them to the disk in groups."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio.to_thread

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.group_commit import GroupCommit
from kling_async._journal.present_entries import PresentEntries
from kling_async._journal.shared_store import SharedStore
from kling_async._journal.sharing import RunSync, Sharing
from kling_async._journal.sole_process import SoleProcess
from kling_async._journal.store import PendingWrites, SoleStore, require_held_entry, warn_lost_jobs
from kling_async._journal.transitions import (
    JournalEvent,
    begin_attempt,
    next_state,
    take_back_attempt,
)
from kling_async._policy.job_owners import JournalRun
from kling_async.errors import JournalError
from kling_async.results import ResultState

T = TypeVar("T")


class WriteAheadJournal:
    """A write-ahead journal that survives `kill -9` and a power cut. Use it in one event loop at a time.

    `open_journal` makes one over the store that a path or a URL names.

    Args:
        store: Keeps the entries, of this process alone or of several.
        run_sync: Calls what blocks; by default in a thread.
    """

    def __init__(self, store: SoleStore | SharedStore, *, run_sync: RunSync | None = None) -> None:
        self.name: str = store.name
        """The journal in messages: its path, or its URL without the password."""
        self.location: str = store.location
        """Equal for all journals over the same entries, and for no other."""
        self.owner = JournalRun(self.location, object())
        """Owns the jobs of this run of the journal."""
        self._store = store
        self.spent_usd_at_start = store.spent_usd()
        """US dollars for all entries whose cost was known when this process opened the journal."""
        self._run_sync = run_sync = run_sync or _run_in_thread
        self._writes = GroupCommit(partial(run_sync, store.commit))
        self.sharing: Sharing | SoleProcess
        """The agreements with other processes about an entry: who holds it, and which POST may be sent."""
        if isinstance(store, SharedStore):
            self._entries = PresentEntries(store, self._writes, None)
            self.sharing = Sharing(store, run_sync, self._writes, self._entries)
        else:
            self._entries = PresentEntries(store, self._writes, store.read_start())
            self.sharing = SoleProcess(self._writes, self._entries)
        self._is_closed = False
        self.is_failure_known = False
        """Whether the caller of the batch has met an error: then the same error at `close` is no news."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<WriteAheadJournal {self.name!r}>"

    def close(self) -> None:
        """Commit the pending writes, blocking, and unlock the file. A second call does nothing.

        Raises:
            JournalError: The pending writes could not be committed. The file is unlocked all the same.
        """
        if self._is_closed:
            return
        self._is_closed = True
        unwritten = self._writes.collect_unwritten()
        try:
            if unwritten:
                self._store.commit(unwritten)
        except JournalError:
            _warn_unwritten(self.name, unwritten)
            raise
        finally:
            self._store.close()

    # Reading

    def find(self, identity: Identity) -> Entry | None:
        """The entry of an item; None if no run has written one."""
        return self._entries.find(identity)

    def has_job(self, request_id: str) -> bool:
        """Whether an entry has this job, or had it in an earlier attempt."""
        return self._entries.has_job(request_id)

    def entries(self) -> Iterator[Entry]:
        """All entries, in the order in which they were first written."""
        return iter(self._entries)

    async def read_unpriced(self) -> AsyncIterator[Entry]:
        """The entries of all processes with POSTs of unknown cost.

        Raises:
            JournalError: The store cannot be read.
        """
        last = 0
        while entries := await self._run_sync(partial(self._store.page, last, unpriced=True)):
            for entry in entries:
                yield entry
            last = entries[-1].number

    # Writing

    def record_intent(
        self,
        identity: Identity,
        *,
        model: str,
        payload: Mapping[str, Any],
        at: float,
        has_service_time: bool = False,
        timeout: float | None = None,
        cost_usd: Decimal | None,
        index: int | None = None,
    ) -> int:
        """Record that a paid POST for an item is about to be sent; the number of its entry.

        An entry that is there already starts another attempt. The attempt before is kept, so that its job's id is not
        lost.

        Args:
            identity: What matches the item across runs.
            model: The model's id.
            payload: The parameters as they are sent.
            at: Unix seconds.
            has_service_time: Whether they are by the service's clock.
            timeout: Seconds after which the answer is given up; None is unknown.
            cost_usd: What the POST will cost; None is unknown.
            index: The item's index in its batch; None for its place in the journal.

        Raises:
            JournalError: The item has succeeded already; or this process does not hold the item in a shared journal.
        """
        before = self.find(identity)
        if self.sharing.is_shared:
            require_held_entry(before, f"the item {identity}")
        number = self._entries.last_number + 1 if before is None else before.number
        state = next_state(None if before is None else before.state, JournalEvent.INTENT, number=number)
        self._entries.add_attempt(identity, number, before)
        change = begin_attempt(
            before,
            number=number,
            index=number - 1 if index is None else index,
            identity=identity,
            model=model,
            payload=payload,
            at=at,
            has_service_time=has_service_time,
            timeout=timeout,
            cost_usd=cost_usd,
        )
        self._entries.write(number, state, change)
        return number

    def record_index(self, number: int, index: int) -> None:
        """Record the index that the item of an entry has in the present batch."""
        self._entries.write(number, self._entries.state_of(number), {"index": index})

    def record_not_accepted(self, number: int, *, error: str) -> None:
        """Record that a POST was provably not accepted, or never sent: it is no attempt, and its cost is taken back.

        If the POST before this one is unknown, the entry is ambiguous again, as it was.

        Args:
            number: The number of the entry.
            error: Why, in one line.

        Raises:
            JournalError: The entry has a job, or is ambiguous.
        """
        state = self._entries.state_of(number)
        if state is not EntryState.INTENDED:
            self._entries.write(
                number, next_state(state, JournalEvent.NOT_SUBMITTED, number=number), {"error": error}
            )
            return
        entry = self._entries.load(number)
        unknown = self._entries.pop_unknown(number, entry.attempts - 1)
        change = take_back_attempt(entry, error=error, unknown=unknown)
        event = JournalEvent.NOT_ACCEPTED if unknown is None else JournalEvent.RESEND_NOT_ACCEPTED
        self._entries.write(number, next_state(state, event, number=number), change)

    def record_job(self, number: int, *, request_id: str, record: Mapping[str, Any]) -> None:
        """Record that the service has a job for the entry: a new one, or after a resend that was not accepted the one before.

        Args:
            number: The number of the entry.
            request_id: The service's id of the job.
            record: What the service answered.

        Raises:
            JournalError: The entry has a job already, or no POST of it may have been accepted.
        """
        before = self._entries.state_of(number)
        is_restored = before is EntryState.NOT_SUBMITTED and self.has_job(request_id)
        event = JournalEvent.RESTORED if is_restored else JournalEvent.ACCEPTED
        state = next_state(before, event, number=number)
        self._entries.write(
            number, state, {"request_id": request_id, "record": _drop_payload(record), "error": None}
        )

    def record_end(
        self,
        number: int,
        *,
        state: EntryState | ResultState,
        record: Mapping[str, Any] | None,
        error: str | None,
    ) -> None:
        """Record how an entry ended. `NOT_SUBMITTED` is recorded as `record_not_accepted` does.

        Args:
            number: The number of the entry.
            state: How.
            record: The last record of the job; None leaves the one before.
            error: Why, in one line, where it ended without a video.

        Raises:
            JournalError: An entry without a job cannot end so, or one with a job cannot.
        """
        if state == ResultState.NOT_SUBMITTED:
            self.record_not_accepted(number, error=error or "")
            return
        after = next_state(self._entries.state_of(number), JournalEvent(state.value), number=number)
        change: dict[str, Any] = {"error": error}
        if record is not None:
            change["record"] = _drop_payload(record)
        self._entries.write(number, after, change)

    def record_file(self, number: int, *, path: str, size_bytes: int, sha256: str | None) -> None:
        """Record where the video of an entry is.

        Args:
            number: The number of the entry.
            path: The file.
            size_bytes: Its size.
            sha256: Its digest, in hex.

        Raises:
            JournalError: The entry has not succeeded.
        """
        state = next_state(self._entries.state_of(number), JournalEvent.SAVED, number=number)
        self._entries.write(
            number, state, {"path": path, "size_bytes": size_bytes, "sha256": sha256, "error": None}
        )

    # Durability

    async def wait_durable(self) -> None:
        """Return when every write before this call is on the disk.

        Raises:
            JournalError: The disk failed. The next commit writes the same changes again.
        """
        await self._writes.wait_durable()

    async def run(self) -> None:
        """Commit writes in groups until cancelled."""
        await self._writes.run()

    async def flush(self) -> None:
        """Commit all writes now, and return when they are on the disk.

        Raises:
            JournalError: The disk failed. The next commit writes the same changes again.
        """
        await self._writes.flush()


async def _run_in_thread(function: Callable[..., T], /, *arguments: Any) -> T:
    return await anyio.to_thread.run_sync(function, *arguments)


def _warn_unwritten(name: str, unwritten: PendingWrites) -> None:
    """Log the jobs that are paid for and did not reach the journal."""
    ids = [change.get("request_id") for change in unwritten.fields.values()]
    warn_lost_jobs(name, [request_id for request_id in ids if request_id is not None])


def _drop_payload(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without the payload, which the entry has already."""
    kept = dict(record)
    kept.pop("payload", None)
    return kept
