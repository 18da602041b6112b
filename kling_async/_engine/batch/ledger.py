"""What a batch writes down of its money: each POST in the journal and in the budget before it is sent, and what became of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import attrs

from kling_async._engine.batch.item_identifier import ItemIdentifier
from kling_async._engine.clock import Clock
from kling_async._engine.download.downloader import Saved
from kling_async._engine.poll.tracked_job import TrackedJob
from kling_async._journal.entry import Entry, Identity
from kling_async._journal.journal import Journal
from kling_async._policy.budget import Budget
from kling_async._policy.stage import JobKind
from kling_async.errors import ConfigurationError, JournalError, KlingError
from kling_async.events import Notifier, Spent, SubmitAmbiguous, Submitted
from kling_async.jobs import Job
from kling_async.requests import VideoRequest, model_of
from kling_async.results import Result, ResultState


class Way(Protocol):
    """What takes an item from one stage to the next."""

    def accepted(self, item: Item, job: Job) -> None:
        """The service took its job."""
        ...

    def ended(self, item: Item, watched: TrackedJob, outcome: Job | KlingError) -> None:
        """The wait for its job is over."""
        ...


@attrs.define(eq=False, kw_only=True)
class Item:
    """One item of a batch on its way; the account that its POSTs are charged to."""

    index: int
    request: VideoRequest | None
    """None for an entry of the journal that no request makes again."""
    books: Ledger
    way: Way
    identity: Identity | None = None
    """What a later run recognises it by; None without a journal."""
    number: int | None = None
    """Its entry in the journal, once it has one."""
    price: Decimal | None = None
    """US dollars for one POST of it, where that is known."""
    cost: Decimal | None = None
    """US dollars for what was accepted so far, or may have been, where that is known."""
    kind: JobKind | None = None
    """How long it is expected to run; None before its payload is known."""
    throttled_jobs: int = 0
    """How many of its jobs failed for a rate limit."""
    is_resent: bool = False
    """Whether an ambiguous submit was sent again, at the caller's word."""
    otherwise: Job | KlingError | None = None
    """How it ends if it cannot be sent again: with the job, or the doubt, that an earlier POST of it left."""

    async def record_intent(self, payload: Mapping[str, Any]) -> None:
        """See `Account.record_intent`."""
        await self.books.record_intent(self, payload)

    def record_rejected(self, error: KlingError) -> None:
        """See `Account.record_rejected`."""
        self.books.record_rejected(self, error)

    def record_accepted(self, job: Job) -> None:
        """See `Account.record_accepted`."""
        self.books.record_accepted(self, job)
        self.way.accepted(self, job)

    def record_unknown(self, error: KlingError) -> None:
        """See `Account.record_unknown`."""
        self.books.record_unknown(self, error)

    def ended(self, watched: TrackedJob, outcome: Job | KlingError) -> None:
        """The wait for its job is over."""
        self.way.ended(self, watched, outcome)


@attrs.define(eq=False, kw_only=True)
class Ledger:
    """The journal and the budget of one batch, either of which may be missing."""

    clock: Clock
    notify: Notifier
    budget: Budget = attrs.field(factory=Budget)
    journal: Journal | None = None
    _identities: ItemIdentifier = attrs.field(init=False, factory=ItemIdentifier)

    async def recall(self, item: Item, given: Entry | None = None) -> Entry | None:
        """What the journal knows of an item.

        Args:
            item: It gets its identity by this.
            given: The entry that it is, where the batch was given that itself.

        Raises:
            ConfigurationError: The journal does not have the given entry, or the batch has it twice.
            InvalidRequestError: A local picture cannot be read, or is another than that of the given entry.
        """
        entry = None
        if self.journal is not None:
            if given is not None:
                item.identity = await self._identities.claim(given)
            else:
                assert item.request is not None
                item.identity = await self._identities.of(item.request)
            entry = self.journal.find(item.identity)
        if entry is not None:
            item.number, item.cost = entry.number, entry.cost_usd
        elif given is not None:
            raise ConfigurationError(
                f"Entry {given.number} is not in the journal of this batch: give the batch the journal that it is from."
            )
        return entry

    async def record_intent(self, item: Item, payload: Mapping[str, Any]) -> None:
        """Set the money aside and write the intent down; both are undone if that fails.

        Raises:
            BudgetExceededError: The money does not suffice.
            JournalError: The intent could not be written to the disk.
        """
        self.budget.reserve(item.price)
        if item.price is not None:
            item.cost = (item.cost or 0) + item.price
        if self.journal is None:
            return
        assert item.identity is not None
        assert item.request is not None
        try:
            item.number = self.journal.record_intent(
                item.identity,
                model=model_of(item.request),
                payload=payload,
                at=self.clock.wall(),
                cost_usd=item.price,
            )
            await self.journal.durable()
        except BaseException as error:
            self.record_rejected(item, error)
            raise

    def record_rejected(self, item: Item, error: BaseException) -> None:
        """The POST was provably not accepted."""
        self.budget.release(item.price)
        if item.price is not None and item.cost is not None:
            item.cost = item.cost - item.price or None
        if self.journal is None or item.number is None:
            return
        self.journal.record_rejected(item.number, error=_one_line(error))
        if isinstance(item.otherwise, Job):
            self.adopt(item, item.otherwise)  # it is the last one again

    def record_accepted(self, item: Item, job: Job) -> None:
        """The service took the job: its id goes to the disk with the next commit."""
        self._charge(item, job.request_id)
        self.adopt(item, job)
        if self.notify:
            at = self.clock.wall()
            self.notify(Submitted(at=at, index=item.index, request_id=job.request_id, job=job))

    def record_unknown(self, item: Item, error: KlingError) -> None:
        """The POST may have been accepted; the intent in the journal says so already."""
        self._charge(item, None)
        if self.notify:
            self.notify(SubmitAmbiguous(at=self.clock.wall(), index=item.index, error=error))

    def adopt(self, item: Item, job: Job) -> None:
        """The job is the item's: its id goes to the disk with the next commit."""
        if self.journal is not None and item.number is not None:
            self.journal.record_accepted(item.number, request_id=job.request_id, record=job.raw)

    def end(self, item: Item, result: Result) -> None:
        """The item has its final state; one whose job could only not be asked about goes on in a later run."""
        if self.journal is None or item.number is None:
            return
        if result.state is ResultState.FAILED and not (result.job and result.job.is_final):
            return
        self.journal.end(
            item.number,
            state=result.state,
            record=(result.job.raw if result.job else None) or None,
            error=_one_line(result.error) if result.error else None,
        )

    def save(self, item: Item, path: Path, saved: Saved) -> None:
        """The item's video is on the disk, whole."""
        if self.journal is not None and item.number is not None:
            self.journal.save(
                item.number, path=os.fspath(path.absolute()), size_bytes=saved.size_bytes, sha256=saved.sha256
            )

    def has_job(self, request_id: str) -> bool:
        """Whether the journal has this job as some item's."""
        return self.journal is not None and self.journal.has_job(request_id)

    def unresolved(self, model: str) -> list[Entry]:
        """The entries of a model in the journal with a POST whose fate nobody knows."""
        assert self.journal is not None, "there are no entries without one"
        return [entry for entry in self.journal.unresolved() if entry.model == model]

    async def run(self) -> None:
        """Write to the disk what is to be written, until cancelled."""
        if self.journal is not None:
            await self.journal.run()

    async def close(self) -> JournalError | None:
        """Write down the last of it; the error if that cannot be done."""
        if self.journal is not None:
            try:
                await self.journal.flush()
            except JournalError as error:
                return error
        return None

    def _charge(self, item: Item, request_id: str | None) -> None:
        self.budget.spend(item.price)
        if self.notify and item.price is not None:
            self.notify(
                Spent(
                    at=self.clock.wall(),
                    index=item.index,
                    request_id=request_id,
                    cost_usd=item.price,
                    total_usd=self.budget.spent,
                )
            )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
