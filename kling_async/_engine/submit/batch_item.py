"""One item of a batch on its way from the input to its result."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import attrs

from kling_async._engine.submit.picture_digests import NO_DIGESTS
from kling_async._engine.submit.reconciler import OpenReconciliation
from kling_async._journal.entry import Identity
from kling_async.errors import KlingError
from kling_async.jobs import Job
from kling_async.paths import ObjectUrl
from kling_async.requests import VideoRequest


@attrs.define(eq=False, kw_only=True)
class BatchItem:
    """What is known of an item; `run_item` changes it, except where a field names another writer."""

    has_slot: bool = True
    """Whether it has a slot of the concurrency limit. Of no meaning outside a batch."""
    index: int | None = None
    """Its place in the batch; None for a submit outside a batch."""
    request: VideoRequest | None
    """None for an entry of the journal whose payload no valid request makes."""
    digests: Mapping[str, str] = NO_DIGESTS
    """The SHA-256 of each local picture, by its path."""
    identity: Identity | None = None
    """The name by which a later run recognises it; None without a journal. Set by `Ledger.claim_entry`."""
    entry_number: int | None = None
    """The number of its journal entry, once it has one. Set by `Ledger.claim_entry` or `Ledger.record_intent`."""
    price: Decimal | None = None
    """US dollars for one POST of it, where that is known."""
    cost: Decimal | None = None
    """US dollars for all POSTs that were, or may have been, accepted, where that is known. Set by the `Ledger`."""
    throttled_jobs: int = 0
    """How many of its jobs failed for a rate limit."""
    is_changed_elsewhere: bool = False
    """Whether another process of a shared journal has worked on it since this batch began."""
    can_resend: bool = True
    """Whether an ambiguous submit may be sent again, where the caller asks for it.

    Not a second time, and not if another process of a shared journal has worked on the item since this batch began: what
    that process has just tried is no earlier run.
    """
    fallback_outcome: Job | KlingError | None = None
    """The outcome to report if the item cannot be resubmitted: the failed job or the ambiguous error of an earlier POST."""
    reconciliation: OpenReconciliation | None = None
    """The search for the job of its lost submit. Set by `Submitter` too; `run_item` or `LoopSession.submit` ends it."""
    job_id: str | None = None
    """The id of its last job, as soon as that is known. Set by `Ledger.record_job` too."""
    is_saved_elsewhere: bool = False
    """Whether another process of a shared journal has saved its video since this batch began."""
    saved_path: Path | ObjectUrl | None = None
    """Where an earlier run saved its video, if it is there whole."""
    recorded_end: str | None = None
    """The final state that an earlier run has recorded in the journal; None if this run has to record it."""

    def forget(self) -> None:
        """Forget what this process did with the item: another process has taken the item over."""
        self.fallback_outcome = self.reconciliation = self.job_id = self.saved_path = None
