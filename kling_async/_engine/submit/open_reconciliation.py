"""The search for the job of one lost submit, from its opening to its end."""

from __future__ import annotations

import anyio
import attrs

from kling_async._journal.entry import Entry
from kling_async._journal.journal import WriteAheadJournal
from kling_async._policy.lost_submit import LostSubmit, recorded_submit
from kling_async._policy.service_clock import Instant
from kling_async.errors import KlingError
from kling_async.jobs import Job


@attrs.define(eq=False, kw_only=True)
class OpenReconciliation:
    """The search for the job of one lost submit; open from the loss until `Reconciler.reconcile` returns."""

    model: str
    lost: LostSubmit
    error: KlingError
    """The error that the POST ended with."""
    journal: WriteAheadJournal | None
    """The journal that knows the submit."""
    entry_number: int | None
    """The number of its journal entry."""
    job: Job | None = None
    """The job, once it is found."""
    scanned_at: float = float("-inf")
    """When the last scan that served it began, by the engine's clock."""
    read_whole_at: float = float("-inf")
    """When the last scan began that read the whole list for it, by the engine's clock."""
    search_until_age: float = 0.0
    """The search goes on until the POST is so many seconds old."""
    is_absent: bool = False
    """Whether the list proves that the service has no job of the submit."""
    list_error: KlingError | None = None
    """Why the list cannot be read, if that ended the search."""
    is_found: anyio.Event = attrs.field(factory=anyio.Event)

    @property
    def is_of_other_run(self) -> bool:
        """Whether an earlier run or another process sent the POST, so that its loss tells nothing of the service now."""
        return not self.lost.has_present_key

    @property
    def location(self) -> str | None:
        """The location of the journal, however often it is open; None without a journal."""
        return None if self.journal is None else self.journal.location


def lost_submit_of(entry: Entry, *, now: Instant, longest_timeout: float) -> LostSubmit:
    """The last POST of a journal entry, as a POST of an earlier process.

    Args:
        entry: The entry.
        now: The present instant.
        longest_timeout: Seconds after which the answer was given up, where the entry does not say it.
    """
    return recorded_submit(
        entry.payload,
        sent_at=now.time if entry.sent_at is None else entry.sent_at,
        timeout=longest_timeout if entry.timeout is None else entry.timeout,
        is_service_time=entry.has_service_time,
        clock_changes=now.clock_changes,
    )
