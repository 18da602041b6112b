"""The call of a batch over many machines: gives its registered items out as shards, and waits for their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from shlex import quote
from typing import Any

import attrs

from kling_async._callbacks import SafeLogger
from kling_async._distributed.awaited_item import AwaitedItem
from kling_async._distributed.database import WorkersDatabase, is_outage
from kling_async._distributed.outcomes import (
    is_end_of_job,
    is_in_journal,
    load_error,
    load_outcome,
    parse_error,
    results_of,
    results_of_jobs,
    results_of_outcomes,
    saved_place,
)
from kling_async._distributed.read_rows import ReadRows
from kling_async._distributed.refusals import Refusal, Refusals
from kling_async._distributed.shard_cover import ShardCover
from kling_async._distributed.shard_queue import (
    WORKERS_LOCK,
)
from kling_async._engine.clock import Clock
from kling_async.errors import JournalError, KlingError
from kling_async.events import Downloaded, Event, Finished, NotSubmitted, Resumed
from kling_async.jobs import Job
from kling_async.results import Result, ResultState

_POLL_INTERVAL = 1.0
"""Seconds between two reads of new outcomes."""
_MAX_OUTAGE = 600.0
"""Seconds after which a call ends whose database cannot be reached."""
_log = SafeLogger("kling_async")


@attrs.define(eq=False, kw_only=True)
class DistributedBatch:
    """A batch that workers run, as its caller sees it."""

    database: WorkersDatabase
    number: int
    """The number of the batch: that of all calls with the same options."""
    awaited: Mapping[int, AwaitedItem]
    """By the number of its entry, each item that a worker has to end."""
    shards: ShardCover
    notify: Callable[[Event], object]
    clock: Clock
    cover_interval: float = 15.0
    """Seconds between two looks whether a shard covers each item that has not ended."""
    worker_wait: float = 3.0
    """Seconds after which the call says that there is no worker."""
    outcomes: dict[int, dict[str, Any]] = attrs.field(init=False, factory=dict)
    """By number, how the items ended."""
    given_up: dict[int, KlingError] = attrs.field(init=False, factory=dict)
    """By number, why the call waits no longer for an item."""
    _has_looked_for_workers: bool = attrs.field(init=False, default=False)
    _read: ReadRows = attrs.field(init=False, factory=ReadRows)
    """Which outcomes have been read, by their sequence numbers."""
    _refusals: Refusals = attrs.field(init=False, factory=Refusals)
    _last_refusal: int = attrs.field(init=False, default=0)

    @property
    def unfinished(self) -> set[int]:
        """The numbers of the items that the call still waits for."""
        return self.awaited.keys() - self.outcomes.keys() - self.given_up.keys()

    @property
    def job_ids(self) -> list[str]:
        """The jobs that the call knows of, each of which may be charged."""
        ended = {number: outcome["request_id"] for number, outcome in self.outcomes.items()}
        known = (ended.get(number) or awaited.job_id for number, awaited in self.awaited.items())
        return [job_id for job_id in known if job_id is not None]

    async def begin(self) -> None:
        """Give out what no shard covers.

        Raises:
            JournalError: The database cannot be reached.
        """
        ((self._last_refusal,),) = await self.database.query(
            "SELECT coalesce(max(id), 0) FROM kling_async_refusals"
        )
        await self.shards.enqueue(self.awaited.keys())
        self._read = ReadRows(await self._read_outcomes(self.unfinished))
        for number, awaited in self.awaited.items():
            if awaited.made is not None:
                self._tell_made(number, awaited.made)

    async def wait(self) -> None:
        """Return when each item has an outcome, or no worker is left that could run it.

        Raises:
            LostEntriesError: The journal has lost an entry of an item that has no outcome.
            JournalError: The database could not be reached for several minutes.
        """
        reachable_at = covered_at = begun_at = self.clock.now()
        while self.unfinished:
            await self.clock.sleep(_POLL_INTERVAL)
            try:
                await self._read_new_outcomes()
                await self._read_refusals()
                if self.clock.now() - begun_at > self.worker_wait:
                    await self._warn_without_worker()
                if self.clock.now() - covered_at > self.cover_interval:
                    await self.cover()
                    covered_at = self.clock.now()
                reachable_at = self.clock.now()
            except JournalError as error:
                now = self.clock.now()
                if not is_outage(error) or now - reachable_at > _MAX_OUTAGE:
                    raise
                self._refusals.pause(now=now)
                self.database.report_trouble(error, now=now)

    def hear(self, number: int, event: Event) -> None:
        """Pass on an event about an item of this call, unless the caller has heard of the same end.

        Another call with the same options hears the same events, and each call has indexes of its own.

        Args:
            number: The number of the item's entry.
            event: What a worker says about the item.
        """
        if (awaited := self.awaited.get(number)) is None:
            return
        awaited.job_id = event.request_id or awaited.job_id
        if isinstance(event, Finished):
            if awaited.is_finished:
                return
            awaited.is_finished = True
        if isinstance(event, Downloaded):
            if awaited.is_saved:
                return
            awaited.is_saved = True
        if isinstance(event, Resumed):
            if awaited.is_finished:
                return
            awaited.is_saved = awaited.is_saved or event.path is not None
        self.notify(event if event.index is None else attrs.evolve(event, index=awaited.item.index))

    async def collect(self) -> list[Result]:
        """Wait for the end of each item; the results of all, in no order.

        Raises:
            JournalError: The database could not be reached for several minutes.
        """
        while True:
            await self.wait()
            entries = await self.database.require_entries(self.awaited)
            early = [
                number
                for number, outcome in self.outcomes.items()
                if not is_in_journal(outcome, entries[number])
            ]
            if not early:
                reason = KlingError("the call ended before a worker ended the item.")
                return results_of(self.awaited, self.outcomes, entries, given_up=self.given_up, reason=reason)
            for number in early:  # its worker died before the journal had the end
                del self.outcomes[number]
            await self._enqueue_again(early)

    async def read_unfinished(self) -> list[Result]:
        """The items that the call still waits for and that may be paid for, as the journal has them.

        If the journal cannot be read, those whose jobs the call has heard of, and of whose end it has not.
        """
        reason = KlingError("the call was cancelled.")
        unfinished = {number: self.awaited[number] for number in self.unfinished}
        try:
            entries = await self.database.read_entries(unfinished)
        except JournalError:
            return results_of_jobs(unfinished.values(), reason=reason)
        known = {number: unfinished[number] for number in entries}
        return results_of(known, {}, entries, given_up={}, reason=reason)

    def results_so_far(self) -> list[Result]:
        """The results of the items that have an outcome, without their jobs: the journal cannot be read."""
        return results_of_outcomes(self.awaited, self.outcomes)

    # Outcomes

    async def _read_outcomes(self, numbers: Collection[int]) -> int:
        """Read the outcomes of these items; the highest sequence number of those, or 0."""
        rows = await self.database.query(
            "SELECT number, outcome, sequence FROM kling_async_outcomes WHERE batch = %s AND number = ANY(%s)",
            self.number,
            list(numbers),
        )
        self._take_outcomes(rows)
        return max((sequence for _, _, sequence in rows), default=0)

    async def _read_new_outcomes(self) -> None:
        """Read the outcomes that came after the last read.

        A worker gets the sequence number before it commits. So an outcome can become visible after one with a higher number.
        """
        rows = await self.database.query(
            "SELECT number, outcome, sequence FROM kling_async_outcomes"
            " WHERE batch = %s AND sequence > %s AND sequence <> ALL(%s::bigint[])",
            self.number,
            self._read.floor,
            self._read.above,
        )
        self._read.add((sequence for _, _, sequence in rows), now=self.clock.now())
        self._take_outcomes(rows)

    def _take_outcomes(self, rows: Iterable[tuple[Any, ...]]) -> None:
        for number, outcome, _ in rows:
            known, new = self.outcomes.get(number), load_outcome(outcome)
            if (
                new is None
                or number not in self.awaited
                or not self.awaited[number].item.is_met_by(new.get("retry"))
            ):
                continue
            if known is None or not is_end_of_job(known):
                self.outcomes[number] = new
                self._tell(number, new)

    def _tell(self, number: int, outcome: Mapping[str, Any]) -> None:
        """Tell the caller of an end whose event did not come."""
        about = {"index": self.awaited[number].item.index, "request_id": outcome["request_id"]}
        at, state = self.clock.wall(), ResultState(outcome["state"])
        error = None if outcome["error"] is None else load_error(outcome["error"])
        if state is ResultState.NOT_SUBMITTED and error is not None:
            self.hear(number, NotSubmitted(at, **about, error=error))
        self.hear(number, Finished(at, **about, state=state, error=error))
        if outcome["path"] is not None:
            self.hear(number, Downloaded(at, **about, path=saved_place(outcome["path"]), size_bytes=0))

    def _tell_made(self, number: int, job: Job) -> None:
        """Tell the caller of a video that was made before this call, unless an outcome has said so."""
        about: dict[str, Any] = {"index": self.awaited[number].item.index, "request_id": job.request_id}
        at = self.clock.wall()
        self.hear(number, Resumed(at, **about, job=job))
        self.hear(number, Finished(at, **about, state=ResultState.SUCCEEDED, job=job))

    async def _warn_without_worker(self) -> None:
        """Say once if no worker is there; one that comes later runs the batch."""
        if self._has_looked_for_workers:
            return
        if not await self.database.list_sharers(WORKERS_LOCK):
            name = self.database.name
            _log.warning(
                "No worker is on the journal %r, and this call waits for one: start `kling-async worker --journal %s`.",
                name,
                quote(name),
            )
        self._has_looked_for_workers = True

    async def _read_refusals(self) -> None:
        """Say which workers cannot run the batch; give up if no worker is left that can."""
        rows = await self.database.query(
            "SELECT id, session, worker, error, is_end FROM kling_async_refusals"
            " WHERE (batch = %s OR is_end) AND id > %s ORDER BY id",
            self.number,
            self._last_refusal,
        )
        for number, session, worker, text, is_end in rows:
            refusal = Refusal(worker, parse_error(text), is_end)
            self._last_refusal = number
            self._refusals.add(session, refusal)
            step = "ends" if is_end else "cannot run this batch"
            _log.warning("The worker %s %s: %s", worker, step, refusal.error.message)
        if self._refusals:
            living = await self.database.list_sharers(WORKERS_LOCK)
            if (reason := self._refusals.reason(living, now=self.clock.now())) is not None:
                await self._give_up(reason)

    async def _give_up(self, error: KlingError) -> None:
        """Wait for no worker any more, once no shard is left that one could submit later."""
        await self._read_outcomes(self.unfinished)
        await self.shards.withdraw_or_raise()
        self.given_up.update(dict.fromkeys(self.unfinished, error))

    # Shards

    async def cover(self) -> None:
        """Give out again each item that no shard covers and that has no outcome.

        Raises:
            LostEntriesError: The journal has lost an entry, so that each worker gives its shard back.
            JournalError: The database cannot be reached, or refuses.
        """
        await self.database.check_entries(self.unfinished)
        left = self.unfinished - (await self.shards.read_cover()).keys()
        if not left:
            return
        await self._read_outcomes(left)
        await self._enqueue_again(left & self.unfinished)

    async def _enqueue_again(self, numbers: Collection[int]) -> None:
        """Give out items whose shard has ended without their end, but not without limit."""
        self.given_up |= await self.shards.record_lost(numbers)
        await self.shards.enqueue([number for number in numbers if number not in self.given_up])
