"""The record of the money: each POST in the journal and in the budget before it is sent, and the fate of it after."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from kling_async._engine.emitter import Emitter
from kling_async._engine.submit.batch_item import BatchItem
from kling_async._engine.submit.item_identifier import ItemIdentifier
from kling_async._journal.entry import Entry
from kling_async._journal.journal import WriteAheadJournal
from kling_async._policy.budget import Budget
from kling_async._policy.service_clock import ServiceClock
from kling_async.errors import ConfigurationError, JournalError, KlingError
from kling_async.events import Spent, SubmitLost, Submitted
from kling_async.jobs import Job
from kling_async.requests import model_of
from kling_async.results import Result, ResultState


@attrs.define(eq=False, kw_only=True)
class Ledger:
    """The journal and the budget of one batch or one submit, either of which may be missing."""

    emit: Emitter
    budget: Budget = attrs.field(factory=Budget)
    journal: WriteAheadJournal | None = None
    _identifier: ItemIdentifier = attrs.field(init=False, factory=ItemIdentifier)

    async def find_entry(self, item: BatchItem, given: Entry | None = None) -> Entry | None:
        """The journal's entry of an item; sets the item's identity, number and cost.

        Args:
            item: The item.
            given: The entry itself, where the input of the batch is an entry.

        Raises:
            ConfigurationError: The journal does not have the given entry, or the batch has it twice.
            InvalidRequestError: A local picture cannot be read, or is another than that of the given entry.
        """
        entry = None
        if self.journal is not None:
            if given is not None:
                item.identity = await self._identifier.for_entry(given)
            else:
                assert item.request is not None
                item.identity = await self._identifier.for_request(item.request)
            entry = self.journal.find(item.identity)
        if entry is not None:
            item.entry_number, item.cost = entry.number, entry.cost_usd
            if self.journal is not None and item.index is not None and entry.index != item.index:
                self.journal.record_index(entry.number, item.index)
        elif given is not None:
            raise ConfigurationError(
                f"Item {given.index} is not in the journal of this batch: give the batch the journal that the entry is from."
            )
        return entry

    async def record_intent(self, item: BatchItem, payload: Mapping[str, Any], clock: ServiceClock) -> None:
        """Reserve the money and bring the intent to the disk; if either fails, neither holds.

        Args:
            item: The item that is about to be sent.
            payload: The parameters as they are sent.
            clock: The service's clock, by which the time is recorded if it is known.

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
            item.entry_number = self.journal.record_intent(
                item.identity,
                model=model_of(item.request),
                payload=payload,
                at=clock.time(self.emit.clock.wall()),
                has_service_time=clock.offset is not None,
                cost_usd=item.price,
                index=item.index,
            )
            await self.journal.wait_durable()
        except BaseException as error:
            self.record_not_accepted(item, error)
            raise

    def record_not_accepted(self, item: BatchItem, error: BaseException) -> None:
        """The POST was provably not accepted: the money is free again."""
        self.budget.release(item.price)
        if item.price is not None and item.cost is not None:
            item.cost = item.cost - item.price or None
        if self.journal is None or item.entry_number is None:
            return
        self.journal.record_not_accepted(item.entry_number, error=_one_line(error))
        if isinstance(item.fallback_outcome, Job):
            self.record_job(item, item.fallback_outcome)  # it is the item's last job again

    def record_accepted(self, item: BatchItem, job: Job) -> None:
        """The service accepted the POST: the money is spent, and the id goes to the disk with the next commit.

        It neither waits nor raises, for the id would be lost: the journal only takes the change up for its next commit,
        and a listener that raises is logged.
        """
        self._spend(item, job.request_id)
        self.record_job(item, job)
        self.emit(Submitted, index=item.index, request_id=job.request_id, job=job)

    def record_unknown(self, item: BatchItem, error: KlingError) -> None:
        """The service may have accepted the POST: the money counts as spent, and the intent stays in the journal."""
        self._spend(item, None)
        self.emit(SubmitLost, index=item.index, error=error)

    def record_job(self, item: BatchItem, job: Job) -> None:
        """The job belongs to the item: its id goes to the disk with the next commit."""
        item.job_id = job.request_id
        if self.journal is not None and item.entry_number is not None:
            self.journal.record_accepted(item.entry_number, request_id=job.request_id, record=job.raw)

    def record_end(self, item: BatchItem, result: Result) -> None:
        """The item has its final state; a failed status call is no end, and a later run waits again."""
        if self.journal is None or item.entry_number is None:
            return
        if result.state is ResultState.FAILED and not (result.job and result.job.is_final):
            return
        self.journal.record_end(
            item.entry_number,
            state=result.state,
            record=(result.job.raw if result.job else None) or None,
            error=_one_line(result.error) if result.error else None,
        )

    def record_file(self, item: BatchItem, path: Path, *, size_bytes: int, sha256: str | None) -> None:
        """The item's video is on the disk, whole."""
        if self.journal is not None and item.entry_number is not None:
            self.journal.record_file(
                item.entry_number, path=os.fspath(path.absolute()), size_bytes=size_bytes, sha256=sha256
            )

    async def run_commits(self) -> None:
        """Write the journal to the disk until cancelled."""
        if self.journal is not None:
            await self.journal.run()

    async def close(self) -> JournalError | None:
        """Write the rest of the journal to the disk; the error if that fails."""
        if self.journal is not None:
            try:
                await self.journal.flush()
            except JournalError as error:
                return error
        return None

    def _spend(self, item: BatchItem, request_id: str | None) -> None:
        self.budget.spend(item.price)
        if item.price is not None:
            self.emit(
                Spent,
                index=item.index,
                request_id=request_id,
                cost_usd=item.price,
                total_usd=self.budget.spent,
            )


def _one_line(error: BaseException) -> str:
    """Why it failed, without the advice for Python: the command line shows what the journal holds."""
    text = error.message if isinstance(error, KlingError) else str(error)
    return " ".join(text.split()) or type(error).__name__
