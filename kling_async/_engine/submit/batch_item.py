"""One item on its way from the input to its result."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import attrs

from kling_async._engine.submit.open_reconciliation import OpenReconciliation
from kling_async._engine.submit.picture_digests import NO_DIGESTS
from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async.errors import KlingError
from kling_async.jobs import Job
from kling_async.paths import ObjectUrl
from kling_async.requests import VideoRequest


@attrs.frozen(eq=False, kw_only=True)
class EarlierEnd:
    """The end of an item that its journal entry tells, and that this run only reports."""

    state: EntryState
    path: Path | ObjectUrl | None
    """Where the video is, if it is there whole."""
    is_saved_elsewhere: bool
    """Whether another process of a shared journal has saved the video since this batch began."""


@attrs.define(eq=False, kw_only=True)
class BatchItem:
    """An item on its way to its result, of a batch or submitted alone: what is known of the item. Each field says who sets it after the item is made."""

    index: int | None = None
    """Its place in the batch; None for a submit outside a batch."""
    request: VideoRequest | None
    """None for an entry of the journal whose payload no valid request makes."""
    digests: Mapping[str, str] = NO_DIGESTS
    """The SHA-256 of each local picture, by its path."""
    input_entry: Entry | None = None
    """The journal entry that the input gives in place of a request. `ItemClaims.claim_entry` removes it once it has the entry: of a
    hundred thousand items in flight the entries would be most of the memory."""
    has_slot: bool = True
    """Whether it has a slot of the concurrency limit; of no meaning outside a batch. False while
    `claim_and_resume` puts the item aside."""
    price: Decimal | None = None
    """US dollars for one POST of it, where that is known. Set by `claim_and_resume`, and by `ItemClaims.claim_entry` where this
    run knows no price and an earlier one did."""
    identity: Identity | None = None
    """The name by which a later run recognises it; None without a journal. Set by `ItemClaims.claim_entry`."""
    entry_number: int | None = None
    """The number of its journal entry, once it has one. Set by `ItemClaims.claim_entry` and `Ledger.record_intent`."""
    is_changed_elsewhere: bool = False
    """Whether another process of a shared journal has worked on it since this batch began. Set by `ItemClaims.claim_entry`."""
    earlier_posts: int = 0
    """How many POSTs of earlier runs were, or may have been, accepted. Set by `ItemClaims.claim_entry`."""
    cost: Decimal | None = None
    """US dollars for all POSTs that were, or may have been, accepted, where that is known. Set by `ItemClaims.claim_entry` and by
    the `Ledger`."""
    job_id: str | None = None
    """The id of its last job, as soon as that is known. Set by `claim_and_resume`, and by the `Ledger` with each record; removed by
    `Ledger.record_intent`, and by `run_item` where the item is submitted again."""
    reconciliation: OpenReconciliation | None = None
    """The search for the job of its lost submit; `run_item` or `LoopSession.submit` ends it. Set by `claim_and_resume` and `Submitter`."""
    resubmits: int = 0
    """How often it was submitted again: in this run because its job failed for a rate limit, in earlier runs of the same call
    for any reason. Set by `run_item` for this run, and by `claim_and_resume` for earlier ones."""
    can_resend: bool = True
    """Whether an ambiguous submit may be sent again, where the caller asks for it. Set by `claim_and_resume`, and by
    `run_item` when it is sent again.

    Not a second time, and not if another process of a shared journal has worked on the item since this batch began: what
    that process has just tried is no earlier run.
    """
    fallback_end: Job | KlingError | None = None
    """The end to report if the item cannot be resubmitted: the failed job or the ambiguous error of an earlier POST. Set by
    `run_item` for a POST of this run, and by `claim_and_resume` for one of an earlier run."""
    earlier_end: EarlierEnd | None = None
    """Its end by the journal; None if this run brings the item to its end. Set by `claim_and_resume`."""

    def forget(self) -> None:
        """Forget what this process did with the item: another process has taken the item over."""
        self.fallback_end = self.reconciliation = self.job_id = self.earlier_end = None
