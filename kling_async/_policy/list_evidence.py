"""What the service's list says about a lost submit whose job was not found."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kling_async._policy.matching import LostSubmit, select_candidates
from kling_async.jobs import Job

_WRONG_CLOCK = (
    "the list does not show it at the time of the POST by the clock of this machine, which may differ from the "
    "service's: no answer of the service had a Date header"
)


def explain_unmatched(
    lost: LostSubmit, rows: Iterable[Job], *, has_owner: Callable[[str], bool], is_clock_known: bool
) -> str:
    """Why no row was matched to a lost submit, as the end of a sentence.

    Args:
        lost: The lost submit, with times by the service's clock if that is known.
        rows: The rows of the list since `lost.since`, at least.
        has_owner: Whether a job belongs to another item.
        is_clock_known: Whether the service's clock is known.
    """
    in_time = [row for row in rows if row.created_at is not None and row.created_at.timestamp() <= lost.until]
    candidates = sum(not has_owner(id_) for id_ in select_candidates([lost], in_time, others=[]))
    if candidates > 1:
        return "the list shows more than one job that could match"
    if candidates == 1:
        return "the list shows a job that could match, and may be that of another submit"
    return "the list does not show it" if is_clock_known else _WRONG_CLOCK
