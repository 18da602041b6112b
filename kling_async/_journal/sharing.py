"""What a process agrees on with the others that share its journal: who holds an item, and which POSTs may be sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, ClassVar, Protocol, TypeVar

import anyio
import attrs

from kling_async._journal.entry import Entry, Identity
from kling_async._journal.group_call import GroupCall
from kling_async._journal.group_commit import GroupCommit
from kling_async._journal.present_entries import PresentEntries
from kling_async._journal.shared_store import (
    Claim,
    PlannedPost,
    PostDecision,
    PostPermit,
    SharedStore,
    WantedItem,
)
from kling_async._journal.store import Activity
from kling_async._policy.matching import look_alike_group
from kling_async.errors import JournalError

T = TypeVar("T")

MAX_CONFIRMATION_AGE = 10.0
"""Seconds after the last proof that this process holds its items in which a POST may begin.

The POST leaves when it has a connection, at most `MAX_POST_CONNECT_TIME` later. A store gives the items of a process that
it cannot reach to others after a longer time than both together.
"""
_MAX_QUESTIONS = 5
"""How often a process asks whether it holds an item, where each answer comes too late for a POST."""
_POLL_INTERVAL = 2.0
"""Seconds between two reads of what others hold, where no notice of a change comes."""


class RunSync(Protocol):
    """Calls a blocking function with its arguments, without blocking the event loop."""

    def __call__(self, function: Callable[..., T], /, *arguments: Any) -> Awaitable[T]:
        """The result of the function."""
        ...


def read_monotonic_clock() -> float:
    """Seconds of a clock that is not set, and that counts the time in which the machine sleeps, where there is one."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class TakenOverError(Exception):
    """Another process has taken over an item of a shared journal: this one sends nothing more for it."""


@attrs.define(eq=False)
class Sharing:
    """The agreements of one process over a shared store; use it in one event loop at a time.

    `SoleProcess` has the same methods for a store that no other process writes.
    """

    is_shared: ClassVar = True
    """Whether other processes write the journal too."""
    _store: SharedStore
    _run_sync: RunSync
    _writes: GroupCommit
    """The journal's commits: what ends goes to the store with them, after what was recorded before."""
    _entries: PresentEntries
    """What the journal remembers of its entries; of one that another process has held, it forgets that."""
    _clock: Callable[[], float] = read_monotonic_clock
    """The clock of the store's `confirmed_at`."""
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(init=False, default=None)
    _claims: GroupCall[WantedItem, Claim] = attrs.field(init=False)
    _claimable: GroupCall[Identity, bool] = attrs.field(init=False)
    _reservations: GroupCall[PlannedPost, PostPermit] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._claims = GroupCall(self._claim_all, self._give_back)
        self._claimable = GroupCall(self._find_all_claimable)
        self._reservations = GroupCall(self._reserve_all, self._end_unused)
        self._store.subscribe(self._signal_from_any_thread)

    # Items

    async def claim(self, identity: Identity, describe: Callable[[], WantedItem]) -> Claim:
        """Hold an item from now on, unless another live process holds it; the answer has its entry.

        First, the former writes of this process to the entry go to the store: after the claim they would change it again.

        Args:
            identity: What matches the item across runs.
            describe: Makes the fields of its entry, which is made if it is missing.

        Raises:
            JournalError: The store cannot be reached, or another program has changed the entry.
        """
        before = self._store.find(identity)
        if before is not None and self._writes.is_unwritten(before.number):
            await self._writes.wait_durable()
        claim = await self._claims.ask(describe())
        if claim.error is not None:
            raise claim.error
        self._entries.note_claim(claim)
        return claim

    def register(self, items: Sequence[WantedItem]) -> Sequence[Entry]:
        """The entries of items, made if they are missing; no process holds those that are new. It blocks."""
        return self._store.register(items)

    def release(self, number: int) -> None:
        """Hold an entry no longer, as soon as all its writes are in the store."""
        self._entries.forget_state(number)
        self._writes.pending.released.add(number)
        self._writes.mark_added()

    async def wait_claimable(self, identity: Identity) -> None:
        """Return when no live process holds an item, so that it can be claimed."""
        while not await self._claimable.ask(identity):
            await self.wait_changed()

    async def wait_changed(self) -> None:
        """Return soon after another process has released or ended something, and after a few seconds in any case."""
        self._loop = asyncio.get_running_loop()
        with anyio.move_on_after(_POLL_INTERVAL):
            await self._changed.wait()

    # POSTs

    async def reserve_post(
        self,
        number: int,
        *,
        model: str,
        payload: Mapping[str, Any],
        price_usd: Decimal | None,
        cap_usd: Decimal | None,
    ) -> PostPermit:
        """Reserve the money of a paid POST and register the POST, if it may be sent; the answer says whether it may.

        Every other process then counts the money and knows of the POST, until `end`.

        Args:
            number: The number of the entry.
            model: The model's id.
            payload: The parameters as they are sent.
            price_usd: What the POST will cost; None is unknown.
            cap_usd: The most that all entries together may cost; None is no limit.

        Raises:
            TakenOverError: Another process holds the item, or the job of the POST before belongs to another entry.
        """
        await self._wait_ended(number, Activity.POST)
        if self._store.is_job_taken(number):
            raise TakenOverError
        group = look_alike_group(payload)
        post = PlannedPost(
            number=number, model=model, look_alikes=group, price_usd=price_usd, cap_usd=cap_usd
        )
        permit = await self._reservations.ask(post)
        if permit.decision is PostDecision.TAKEN_OVER:
            raise TakenOverError
        return permit

    async def is_job_taken(self, number: int) -> bool:
        """Whether another process has matched the job that this one recorded for an entry, before the store had the id.

        Raises:
            JournalError: The store cannot be reached.
        """
        if self._writes.is_unwritten(number):
            await self._writes.wait_durable()
        return self._store.is_job_taken(number)

    async def confirm_intent(self, number: int) -> None:
        """Return if the intent of an entry is in the store, and this process holds the entry for sure: the POST may leave.

        Call this as the last step before the POST. The commit writes an entry only under the epoch with which this process
        claimed it, and the last line here reads whether it did. Read before the commit, this would miss a takeover between
        the two; without the epoch, the commit would write into an entry that another process has worked on meanwhile. In
        both cases two processes pay for one item.

        A process that stood still, or was cut off from the store, asks the store again.

        Raises:
            JournalError: The intent could not be written, or no answer of the store came in time.
            TakenOverError: Another process holds the item.
        """
        await self._writes.wait_durable()
        questions = 0
        while self._clock() - self._store.confirmed_at() > MAX_CONFIRMATION_AGE:
            if questions == _MAX_QUESTIONS:
                raise JournalError(
                    f"The journal {self._store.name!r} took more than {MAX_CONFIRMATION_AGE:.0f} s for an answer, "
                    f"{_MAX_QUESTIONS} times in a row, so nothing was sent: find out why its database is so slow, then make "
                    "the same call again."
                )
            questions += 1
            await self._run_sync(self._store.confirm)
        self.raise_if_taken_over(number)

    async def take_turn(self, *, rate: float, burst: float) -> float:
        """Take one turn of the rate that all processes share; returns the seconds until it can be used."""

        def take() -> float:
            return self._store.take_turns(1, rate=rate, burst=burst)[0]

        return await self._run_sync(take)

    def end(self, number: int, activity: Activity) -> None:
        """Tell the other processes that an activity has ended, as soon as what is recorded of it is in the store."""
        self._writes.pending.ended.add((number, activity))
        self._writes.mark_added()

    async def _wait_ended(self, number: int, activity: Activity) -> None:
        """Return when the store has the end of the entry's former activity, which after this would end the next one."""
        former = (number, activity)
        if former in self._writes.pending.ended or former in self._writes.in_commit.ended:
            await self._writes.wait_durable()

    # Reconciliations

    async def begin_reconciliation(self, number: int, *, model: str, payload: Mapping[str, Any]) -> None:
        """Block the look-alikes of all other processes, until the reconciliation ends.

        Raises:
            TakenOverError: Another process holds the item.
        """

        def begin() -> bool:
            return self._store.begin_reconciliation(number, model=model, look_alikes=group)

        group = look_alike_group(payload)

        await self._wait_ended(number, Activity.RECONCILIATION)
        if not await self._run_sync(begin):
            raise TakenOverError

    def raise_if_taken_over(self, number: int) -> None:
        """Do nothing if this process still holds an entry, as far as it knows.

        Raises:
            TakenOverError: Another process holds the item.
        """
        if self._store.is_lost(number):
            raise TakenOverError

    async def find_searchable(self, numbers: Collection[int]) -> set[int]:
        """The begun reconciliations for which no look-alike of another process is in flight."""
        return await self._run_sync(self._store.find_searchable, numbers)

    async def match_job(self, number: int, request_id: str) -> bool:
        """Give a job to the lost submit of an entry; False if it is taken."""
        return await self._run_sync(self._store.match_job, number, request_id)

    async def find_jobs(self, request_ids: Collection[str]) -> set[str]:
        """Those of the ids whose job an entry of any process has, or had in an earlier attempt."""
        found = set(filter(self._entries.has_job, request_ids))
        return found | await self._run_sync(self._store.find_jobs, request_ids)

    async def find_unknown(self, model: str) -> Sequence[Entry]:
        """The unknown attempts of a model, by number and attempt, those of all processes."""
        entries = await self._run_sync(self._store.find_all_unknown, model)
        return [entry for entry in entries if self._entries.is_still_unknown(entry)]

    # Inside

    async def _claim_all(self, items: Sequence[WantedItem]) -> Sequence[Claim]:
        return await self._run_sync(self._store.claim, items)

    async def _find_all_claimable(self, identities: Sequence[Identity]) -> Sequence[bool]:
        claimable = await self._run_sync(self._store.find_claimable, identities)
        return [identity in claimable for identity in identities]

    async def _reserve_all(self, posts: Sequence[PlannedPost]) -> Sequence[PostPermit]:
        return await self._run_sync(self._store.reserve_posts, posts)

    def _give_back(self, _: WantedItem, claim: Claim) -> None:
        if claim.entry is not None:
            self.release(claim.entry.number)

    def _end_unused(self, post: PlannedPost, permit: PostPermit) -> None:
        if permit.decision is PostDecision.ALLOWED:
            self.end(post.number, Activity.POST)

    def _signal_from_any_thread(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: no task waits there
                self._loop.call_soon_threadsafe(self._signal)

    def _signal(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
