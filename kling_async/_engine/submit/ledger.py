"""The record of the money: each POST in the journal and in the budget before it is sent, and how it ended after."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from kling_async._engine.emitter import Emitter
from kling_async._engine.submit.batch_item import BatchItem
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.shared_store import PostDecision
from kling_async._journal.sharing import TakenOverError
from kling_async._journal.store import Activity
from kling_async._journal.transitions import price_posts
from kling_async._policy.budget import Budget
from kling_async._policy.lost_submit import MAX_INTENT_AGE, is_fresh_intent
from kling_async._policy.rate_limit import TokenBucket
from kling_async._policy.service_clock import Instant
from kling_async.errors import JournalError, KlingError
from kling_async.events import Spent, SubmitLost, Submitted
from kling_async.jobs import Job
from kling_async.paths import ObjectUrl
from kling_async.requests import model_of
from kling_async.results import Result

_MAX_INTENTS = 5
"""How often the intent of one POST is recorded, where each takes too long, before the batch ends."""


@attrs.define(eq=False, kw_only=True)
class Ledger:
    """The journal and the budget of one batch or one submit, either of which may be missing."""

    emit: Emitter
    budget: Budget = attrs.field(factory=Budget)
    journal: WriteAheadJournal | None = None
    held_back_until: float = attrs.field(init=False, default=float("-inf"))
    """When the turn in an outage comes that the listeners know of, by the engine's clock."""
    _spare_turns: int = attrs.field(init=False, default=0)
    """Turns of the shared rate that were put back."""

    async def take_turn(self, bucket: TokenBucket) -> float:
        """Take a turn of a rate that all processes of a shared journal keep together; the seconds until it can be used."""
        if self.journal is None or math.isinf(bucket.rate):
            return 0.0
        if self._spare_turns > 0:
            self._spare_turns -= 1
            return 0.0
        return await self.journal.sharing.take_turn(rate=bucket.rate, burst=bucket.burst)

    def put_back_turn(self) -> None:
        """Leave a turn that no POST has used to the next POST of the batch."""
        self._spare_turns += 1

    async def reserve_post(self, item: BatchItem, payload: Mapping[str, Any]) -> bool:
        """Reserve the money of a POST and register the POST in a shared journal; False if it cannot be sent now.

        The other processes then count the money and know of the POST, until `end_post`. It is False while another process
        reconciles a look-alike: await `wait_changed`, then ask again.

        Raises:
            BudgetExceededError: The spend of all processes would pass the cap.
            TakenOverError: Another process holds the item.
        """
        if self.journal is None or item.entry_number is None:
            return True  # an item without an entry is known to this process alone
        assert item.request is not None
        reserve = partial(
            self.journal.sharing.reserve_post,
            item.entry_number,
            model=model_of(item.request),
            payload=payload,
            price_usd=item.price,
        )
        cap = self.budget.cap_of_recorded
        while (permit := await reserve(cap_usd=cap)).decision is PostDecision.OVER_CAP:
            before, cap = cap, await self._recount_cap(self.journal)
            if cap == before:
                raise self.budget.refuse_recorded(permit.total_usd)
        return permit.decision is PostDecision.ALLOWED

    async def _recount_cap(self, journal: WriteAheadJournal) -> Decimal | None:
        """The cap for what the journal has by now: a POST that gets a price when its item is sent again counted twice."""
        if self.budget.unrecorded:
            self.budget.unrecorded = await price_unpriced(self.budget, journal)
        return self.budget.cap_of_recorded

    def end_post(self, item: BatchItem) -> None:
        """Tell the other processes that no POST of the item is in flight any more."""
        if self.journal is not None and item.entry_number is not None:
            self.journal.sharing.end(item.entry_number, Activity.POST)

    async def wait_changed(self) -> None:
        """Wait until another process may have ended what blocks a POST."""
        assert self.journal is not None, "without a journal, no other process blocks a POST"
        await self.journal.sharing.wait_changed()

    async def record_intent(
        self,
        item: BatchItem,
        payload: Mapping[str, Any],
        *,
        now: Callable[[], Instant],
        post_timeout: float,
    ) -> None:
        """Reserve the money and bring the intent to the disk; if either fails, neither holds.

        An intent that took too long is taken back and recorded again: a later run searches for the job around its time.

        Args:
            item: The item that is about to be sent.
            payload: The parameters as they are sent.
            now: Reads the present instant.
            post_timeout: The timeout of the POST, in seconds.

        Raises:
            BudgetExceededError: The money does not suffice.
            JournalError: The intent could not be written to the disk.
            TakenOverError: Another process of a shared journal holds the item.
        """
        for _ in range(_MAX_INTENTS):
            is_shared = self.journal is not None and self.journal.sharing.is_shared
            self.budget.reserve(item.price, is_allowed=is_shared)
            self._add_cost(item)
            item.job_id = None  # that of an attempt before
            if self.journal is None:
                return
            intended = now()
            try:
                number = _add_intent(self.journal, item, payload, intended=intended, timeout=post_timeout)
                await self.journal.sharing.confirm_intent(number)
            except TakenOverError:
                # The entry is the other process's. If this one claims it again, no write from before may change it.
                self.budget.release(item.price)
                raise
            except BaseException as error:
                self.record_not_accepted(item, error)
                raise
            if is_fresh_intent(intended, now=now()):
                return
            self.record_not_accepted(item, KlingError("the intent was too old for a POST"))
        assert self.journal is not None, "without one the first round returns"
        raise JournalError(
            f"The journal {self.journal.name!r} took more than {MAX_INTENT_AGE:.0f} s for a write, {_MAX_INTENTS} times in a "
            "row, so nothing was sent: find out why its disk or its database is so slow, then make the same call again."
        )

    def _add_cost(self, item: BatchItem) -> None:
        """Add the price of a POST to the cost of its item."""
        earlier_usd, price = price_posts(item.earlier_posts, item.cost, item.price)
        if earlier_usd is None or price is None:
            return
        if item.cost is None and self.budget.cap is None:  # under a cap they count from the beginning
            self.budget.spent += earlier_usd
        item.cost = earlier_usd + price

    def record_not_accepted(self, item: BatchItem, error: BaseException) -> None:
        """The POST was provably not accepted: the money is free again, and a failed job of before is the item's last job again."""
        self.budget.release(item.price)
        if item.price is not None and item.cost is not None:
            item.cost = item.cost - item.price or None
        if self.journal is None or item.entry_number is None:
            return
        self.journal.record_not_accepted(item.entry_number, error=_one_line(error))
        if isinstance(item.fallback_end, Job):
            self.record_job(item, item.fallback_end)

    def record_accepted(self, item: BatchItem, job: Job) -> None:
        """The service accepted the POST: the money is spent, and the job is the item's; see `record_job`.

        This awaits nothing: a cancellation would lose the id. Code of the caller, such as a listener, comes after the
        record.

        Raises:
            JournalError: See `record_job`. The money counts as spent all the same.
        """
        self.budget.spend(item.price)
        self.record_job(item, job)
        self._emit_spent(item, job.request_id)
        self.emit(Submitted, index=item.index, request_id=job.request_id, job=job)

    def count_lost_submit(self, item: BatchItem, error: KlingError) -> None:
        """The service may have accepted the POST: the money counts as spent. The journal keeps the intent, as it is."""
        self.budget.spend(item.price)
        self._emit_spent(item, None)
        self.emit(SubmitLost, index=item.index, error=error)

    def record_job(self, item: BatchItem, job: Job) -> None:
        """The job belongs to the item: the journal takes its id up, and brings the id to the disk with the next commit.

        Raises:
            JournalError: The entry cannot have this job, by a mistake of ours. `BatchItem.job_id` has the id all the same.
        """
        item.job_id = job.request_id
        if self.journal is not None and item.entry_number is not None:
            self.journal.record_job(item.entry_number, request_id=job.request_id, record=job.raw)

    def record_end(self, item: BatchItem, result: Result) -> None:
        """The item has its final state, or the last one of this run: a later run continues a wait that ended early."""
        if self.journal is None or item.entry_number is None:
            return
        if item.earlier_end is not None and result.state.value == item.earlier_end.state.value:
            return  # the journal has it
        self.journal.record_end(
            item.entry_number,
            state=result.state,
            record=(result.job.raw if result.job else None) or None,
            error=_one_line(result.error) if result.error else None,
        )

    def record_file(
        self, item: BatchItem, path: Path | ObjectUrl, *, size_bytes: int, sha256: str | None
    ) -> None:
        """The item's video is on the disk or in an object store, whole."""
        if self.journal is not None and item.entry_number is not None:
            place = str(path.absolute() if isinstance(path, Path) else path)
            self.journal.record_file(item.entry_number, path=place, size_bytes=size_bytes, sha256=sha256)

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

    def _emit_spent(self, item: BatchItem, request_id: str | None) -> None:
        if item.price is not None:
            self.emit(
                Spent,
                index=item.index,
                request_id=request_id,
                cost_usd=item.price,
                total_usd=self.budget.spent,
            )


async def price_unpriced(budget: Budget, journal: WriteAheadJournal) -> Decimal:
    """US dollars for all POSTs that a journal has no price for, at the price of a batch that has a cap."""
    costs = [
        budget.price_unpriced(entry.request, model=entry.model, posts=entry.attempts)
        async for entry in journal.read_unpriced()
    ]
    return sum(costs, Decimal(0))


def _add_intent(
    journal: WriteAheadJournal,
    item: BatchItem,
    payload: Mapping[str, Any],
    *,
    intended: Instant,
    timeout: float,
) -> int:
    """Add the intent of a POST to the next commit of the journal; returns the number of the entry."""
    assert item.identity is not None
    assert item.request is not None
    number = item.entry_number = journal.record_intent(
        item.identity,
        model=model_of(item.request),
        payload=payload,
        at=intended.time,
        has_service_time=intended.offset is not None,
        timeout=timeout,
        cost_usd=item.price,
        index=item.index,
    )
    return number


def _one_line(error: BaseException) -> str:
    """Why it failed, without the advice for Python: the command line shows what the journal holds."""
    text = error.message if isinstance(error, KlingError) else str(error)
    return " ".join(text.split()) or type(error).__name__
