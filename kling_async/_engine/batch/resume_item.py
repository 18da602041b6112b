"""Claims the entry of an item in the journal, and says where the item stands: what the run has left to do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import attrs

from kling_async._engine.batch.batch_parts import BatchParts
from kling_async._engine.batch.resume import NextStep, Plan, plan_item
from kling_async._engine.download.output_folder import saved_file
from kling_async._engine.submit.batch_item import BatchItem, EarlierEnd
from kling_async._engine.submit.open_reconciliation import OpenReconciliation
from kling_async._journal.entry import Entry
from kling_async._policy.pace import JobKind, job_kind
from kling_async.errors import KlingError
from kling_async.events import Resumed
from kling_async.jobs import Job
from kling_async.paths import ObjectUrl, is_object_url


@attrs.frozen(eq=False)
class JobInFlight:
    """A job that the service has accepted and that has not ended."""

    job: Job
    """Its last known record."""
    kind: JobKind
    age: float = 0.0
    """Seconds since the service made the job; 0 if that is not known."""


Standing: TypeAlias = Literal[NextStep.SUBMIT] | OpenReconciliation | JobInFlight | Job
"""Where an item stands: it is to be submitted; its answer is lost; its job is in flight; its job has ended."""


class UnsentError(Exception):
    """An item cannot be sent, or cannot be sent again."""

    def __init__(self, reason: KlingError) -> None:
        super().__init__(reason)
        self.reason = reason


async def claim_and_resume(parts: BatchParts, item: BatchItem, plan: Plan | None) -> Standing:
    """Claim the item's journal entry, and return where the item stands by it.

    It sets the item's price and what an earlier run has left of the item.

    Raises:
        UnsentError: The item has no price, or its entry cannot be had.
    """
    try:
        item.price = parts.ledger.budget.price(item.request) if item.request is not None else None
        while (claim := await parts.claims.claim_entry(item)).is_held_elsewhere:
            await _put_aside(parts, item)
    except KlingError as error:
        raise UnsentError(error) from error
    plan = plan or plan_item(claim.entry, retry_failed=parts.settings.retry_failed)
    return await _resume(parts, item, claim.entry, plan)


async def _put_aside(parts: BatchParts, item: BatchItem) -> None:
    """Wait while another process holds the item; meanwhile the batch goes on with others."""
    parts.slots.free()
    item.has_slot = False
    parts.results.read_ahead.release()
    try:
        await parts.claims.wait_claimable(item)
    except KlingError:
        await parts.results.read_ahead.acquire()  # its result frees it
        raise
    await parts.results.read_ahead.acquire()
    await parts.slots.take()
    item.has_slot = True


async def _resume(parts: BatchParts, item: BatchItem, entry: Entry | None, plan: Plan) -> Standing:
    """What the run goes on from, as the plan decides: the final job, the job in flight, the lost submit, or `SUBMIT`."""
    decision = plan.decide(entry, is_changed_elsewhere=item.is_changed_elsewhere)
    item.can_resend = item.can_resend and decision.can_resend
    item.resubmits = max(item.resubmits, decision.resubmits)
    if entry is None or decision.step is NextStep.SUBMIT:
        item.fallback_end = entry.job if entry is not None else None
        return NextStep.SUBMIT
    job = entry.job
    if job is None:
        parts.emit(Resumed, index=item.index, request_id=entry.request_id)
        assert parts.ledger.journal is not None
        item.reconciliation = parts.session.reconciler.begin_for_entry(entry, parts.ledger.journal)
        return item.reconciliation
    # Before the look into an object store, which takes time: no lost submit is to take the job meanwhile.
    parts.session.owned_jobs.assign(job.request_id, parts.ledger.journal)
    path = await (parts.output.find_saved(entry) if parts.output else _find_saved(entry))
    parts.emit(Resumed, index=item.index, request_id=entry.request_id, job=job, path=path)
    item.job_id = job.request_id
    if decision.step is NextStep.REPORT:
        is_saved_elsewhere = item.is_changed_elsewhere and entry.path is not None
        item.earlier_end = EarlierEnd(state=entry.state, path=path, is_saved_elsewhere=is_saved_elsewhere)
        return job
    return JobInFlight(job, job_kind(entry.model, entry.payload), age_of(parts, job, entry.sent_at))


async def _find_saved(entry: Entry) -> Path | ObjectUrl | None:
    """The video where the entry says; a batch without an output takes the entry's word about an object store."""
    if entry.path is not None and is_object_url(entry.path):
        return ObjectUrl(entry.path)
    return saved_file(entry, None)


def age_of(parts: BatchParts, job: Job, sent_at: float | None) -> float:
    """Seconds since the job was created, by the service's clock; since its POST if the record does not say when."""
    created_at = sent_at if job.created_at is None else job.created_at.timestamp()
    return 0.0 if created_at is None else max(0.0, parts.session.api.service_time() - created_at)
