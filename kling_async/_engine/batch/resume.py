"""Decides what a run does with an item that is in its journal."""

from __future__ import annotations

from enum import StrEnum

import attrs

from kling_async._field_docs import describe_fields
from kling_async._journal.entry import Entry, EntryState
from kling_async.jobs import Job


class NextStep(StrEnum):
    """The first step of a run with an item of its journal."""

    SUBMIT = "submit"
    """Send the request: it was not accepted before, or its job failed and `retry_failed` is set."""
    RECONCILE = "reconcile"
    """Find the job of a lost submit in the service's list."""
    WAIT = "wait"
    """Wait for the job, which has no final status yet."""
    DOWNLOAD = "download"
    """Save the video, which is made and not in the folder. `Journal.next_step` returns it, for it knows the folder."""
    REPORT = "report"
    """Report the final state. A run also saves the video if it is not in the folder."""


_UNSENT = frozenset({EntryState.NOT_SUBMITTED, EntryState.DROPPED})


@attrs.frozen
class Plan:
    """What a call wants of an item. All runs that work for the call share it, so that none buys what another has bought.

    A worker can die, or give an item back, at any moment. So the count of the journal says what the call has sent already.
    """

    attempts: int
    """How many attempts the entry has once the call has submitted the item. Each further one is a resubmit."""
    retry_failed: bool = False
    """Whether the call submits the item although its job failed."""

    def decide(self, entry: Entry | None, *, is_changed_elsewhere: bool) -> Decision:
        """What a run of the call does with the item now.

        Args:
            entry: The journal entry of the item, as it is now.
            is_changed_elsewhere: Whether another process of a shared journal has worked on it since the run began. What that
                process has just tried is no earlier run, so neither a failure nor an ambiguous submit is sent again.
        """
        attempts = 0 if entry is None else entry.attempts
        resubmits = max(0, attempts - self.attempts)
        can_retry = self.retry_failed and attempts < self.attempts and not is_changed_elsewhere
        return Decision(
            step=next_step(entry, retry_failed=can_retry),
            resubmits=resubmits,
            can_resend=not resubmits and not is_changed_elsewhere,
        )


@attrs.frozen(kw_only=True)
class Decision:
    """What a run does with an item, by the plan of its call and the entry of the item."""

    step: NextStep
    resubmits: int
    """How often earlier runs of the call submitted it again: for a lost answer, or for a job that failed for a rate limit.

    0 unless the plan is older than the run, as in a shard that another worker has begun.
    """
    can_resend: bool
    """Whether an ambiguous submit may be sent again, where the caller asks for it."""


def plan_item(entry: Entry | None, *, retry_failed: bool) -> Plan:
    """The plan of a call that begins now, for an item with this entry."""
    attempts = 0 if entry is None else entry.attempts
    is_submitted = next_step(entry, retry_failed=retry_failed) is NextStep.SUBMIT
    is_retried = retry_failed and entry is not None and _has_failed(entry, entry.job)
    return Plan(attempts + is_submitted, retry_failed=is_retried)


def next_step(entry: Entry | None, *, retry_failed: bool) -> NextStep:
    """The first step with the item of an entry, or with an item that has no entry."""
    if entry is None or entry.state in _UNSENT:
        return NextStep.SUBMIT
    job = entry.job
    if retry_failed and _has_failed(entry, job):
        return NextStep.SUBMIT
    if job is None:
        return NextStep.RECONCILE
    has_ended = entry.state is EntryState.SUCCEEDED or entry.state.is_failure
    return NextStep.REPORT if has_ended and job.is_final else NextStep.WAIT


def _has_failed(entry: Entry, job: Job | None) -> bool:
    """Whether the last job of an entry ended without a video.

    The record of the job can say so without the state: a retry that the service did not accept leaves the failed job before it.
    """
    is_failed_job = job is not None and job.is_final and not job.is_success
    return entry.state.is_failure or (is_failed_job and entry.state is not EntryState.SUCCEEDED)


describe_fields(__name__)
