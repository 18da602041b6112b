"""Decides what a run does with an item that is in its journal."""

from __future__ import annotations

from enum import StrEnum

from kling_async._journal.entry import Entry, EntryState


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


def next_step(entry: Entry | None, *, retry_failed: bool) -> NextStep:
    """The first step with the item of an entry, or with an item that has no entry."""
    if entry is None or entry.state in _UNSENT:
        return NextStep.SUBMIT
    if entry.state.is_failure and retry_failed:
        return NextStep.SUBMIT
    job = entry.job
    if job is None:
        return NextStep.RECONCILE
    has_ended = entry.state is EntryState.SUCCEEDED or entry.state.is_failure
    return NextStep.REPORT if has_ended and job.is_final else NextStep.WAIT
