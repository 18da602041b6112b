"""What becomes of an item that an earlier run wrote down."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from kling_async._engine.download.downloader import is_whole
from kling_async._journal.entry import Entry, EntryState


class NextStep(StrEnum):
    """What a batch does first with an entry of its journal."""

    SUBMIT = "submit"
    """Send the request: it was never accepted, or failed and is to be tried again."""
    RECONCILE = "reconcile"
    """Find the job of a submit whose reply was lost in the service's list."""
    WAIT = "wait"
    """Wait for the job, whose end is not known yet."""
    DOWNLOAD = "download"
    """Save the video, which was made and is not in the folder."""
    REPORT = "report"
    """Report the end, which is known: nothing else is left to do."""


_UNSENT = frozenset({EntryState.NOT_SUBMITTED, EntryState.DROPPED})
FAILURES = frozenset({EntryState.FAILED, EntryState.CANCELLED})
_ENDS = FAILURES | {EntryState.SUCCEEDED}


def next_step(entry: Entry | None, *, retry_failed: bool) -> NextStep:
    """What a run does with the item of an entry, or with one that has none."""
    if entry is None or entry.state in _UNSENT:
        return NextStep.SUBMIT
    if entry.state in FAILURES and retry_failed:
        return NextStep.SUBMIT
    job = entry.job
    if job is None:
        return NextStep.RECONCILE
    return NextStep.REPORT if entry.state in _ENDS and job.is_final else NextStep.WAIT


def saved_file(entry: Entry, folder: Path | None) -> Path | None:
    """The video that an earlier run saved, if it is still whole: in this folder, else where it was saved."""
    if entry.path is None:
        return None
    path = Path(entry.path)
    if folder is not None:
        path = folder / path.name  # the name is the job's own, wherever the folder has moved to
    return path if is_whole(path, size_bytes=entry.size_bytes) else None
