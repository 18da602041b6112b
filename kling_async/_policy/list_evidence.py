"""What the service's list says about a lost submit whose job was not found: why, and whether it is proven absent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import attrs

from kling_async._policy.lost_submit import LostSubmit
from kling_async._policy.matching import select_candidates
from kling_async._policy.own_user import OwnUser
from kling_async._policy.service_clock import Instant
from kling_async._policy.visible_text import visible_text
from kling_async.jobs import Job, canonical_id

ROW_DELAY = 60.0
"""Seconds that the row of a new job can take to appear in the list, at the most."""
_WRONG_CLOCK = (
    "the list does not show it at the time of the POST by the clock of this machine, which may differ from the "
    "service's: no answer of the service had a Date header"
)


@attrs.define
class ListReading:
    """One reading of a model's list, from its first row to its last: add the pages in their order."""

    began_at: float | None
    """Unix seconds by the service's clock; None is unknown, and proves nothing."""
    recent: list[Job] = attrs.field(factory=list)
    """The rows that were created since `since`, or have no time."""
    since: float = 0.0
    is_over: bool = False
    """Whether no further page is to be read."""
    _seen: set[str] = attrs.field(init=False, factory=set)
    _old_rows: int = attrs.field(init=False, default=0)
    """How many rows were there when the reading began, for sure."""
    _pages: int = attrs.field(init=False, default=0)
    _total: int | None = attrs.field(init=False, default=None)
    """The number of rows when the reading began, as the service says it."""
    _is_readable: bool = attrs.field(init=False, default=True)

    def add(self, jobs: Collection[Job], *, rows: int, total: int | None) -> None:
        """Add the next page.

        Args:
            jobs: Its rows.
            rows: Their number, unreadable ones included.
            total: The number of rows on all pages, if the service says it.
        """
        by_id = {canonical_id(job.request_id): job for job in jobs}
        fresh = [job for id_, job in by_id.items() if id_ not in self._seen]
        self._seen.update(by_id)
        self.is_over = not fresh
        self._is_readable = self._is_readable and len(jobs) == rows
        if self._pages == 0:
            self._total = total
        for job in fresh:
            created_at = _created_at(job)
            # While the pages are read, new rows can move others from one page to the next, or back.
            self._old_rows += self._pages == 0 or created_at < int(self.began_at or 0.0)
            if created_at >= self.since:
                self.recent.append(job)
        self._pages += bool(fresh)

    @property
    def is_whole(self) -> bool:
        """Whether every row that was there when the reading began has been read.

        Neither the order of the rows nor the end of the pages is relied on: the rows are counted. Without a total, only
        a list of one page is sure to be whole.
        """
        if not self.is_over or not self._is_readable:
            return False
        return self._pages <= 1 if self._total is None else self._old_rows >= self._total


def closes_at(lost: LostSubmit) -> float:
    """The Unix seconds from which the list shows the job of a lost submit, if there is one."""
    return lost.until + ROW_DELAY


def is_absent(
    lost: LostSubmit, reading: ListReading, *, now: Instant, has_owner: Callable[[str], bool], own: OwnUser
) -> bool:
    """Whether a reading of the list proves that the service has no job of a lost submit.

    The reading has to be whole and to begin after the time in which the job can appear. It has to show a job of ours that
    was accepted later, so it is no old copy and no list of another account. And it must show no job without an owner
    that could be the lost one's: a row without parameters could be any job. A job of another user is not, if the submit
    was sent with the present key.

    Args:
        lost: The lost submit, with times by the service's clock.
        reading: With all rows since `lost.since`.
        now: An instant after the reading.
        has_owner: Whether a job belongs to an item of ours.
        own: The user of the key.
    """
    if not lost.is_comparable(now):
        return False
    if reading.began_at is None or reading.began_at < closes_at(lost) or not reading.is_whole:
        return False
    for job in reading.recent:
        is_in_time = _created_at(job) >= lost.since
        is_other = lost.has_present_key and own.is_other(job)
        if is_in_time and not (
            is_other or _surely_differs(lost.payload, job.payload) or has_owner(job.request_id)
        ):
            return False
    return any(
        job.created_at is not None
        and _created_at(job) > lost.until
        and has_owner(job.request_id)
        and not own.is_other(job)
        for job in reading.recent
    )


def explain_unmatched(
    lost: LostSubmit,
    rows: Iterable[Job],
    *,
    has_owner: Callable[[str], bool],
    own: OwnUser,
    is_clock_known: bool,
) -> str:
    """Why no row was matched to a lost submit, as the end of a sentence.

    Args:
        lost: The lost submit, with times by the service's clock if that is known.
        rows: The rows of the list since `lost.since`, at least.
        has_owner: Whether a job belongs to another item.
        own: The user of the key.
        is_clock_known: Whether the service's clock is known.
    """
    in_time = [row for row in rows if row.created_at is not None and _created_at(row) <= lost.until]
    candidates = select_candidates([lost], in_time, others=[])
    left = {id_ for id_ in candidates if not has_owner(id_)}
    ours = [row for row in in_time if canonical_id(row.request_id) in left and not own.is_other(row)]
    if own.may_be_mixed(ours):
        return "the list shows jobs of several users that could match"
    if len(ours) > 1:
        return "the list shows more than one job that could match"
    if ours:
        return "the list shows a job that could match, and may be that of another submit"
    if left:
        return "the only job in the list that could match is of another user"
    return "the list does not show it" if is_clock_known else _WRONG_CLOCK


def _created_at(job: Job) -> float:
    """Unix seconds; a row without a time can be of any time."""
    return float("inf") if job.created_at is None else job.created_at.timestamp()


def _surely_differs(sent: Mapping[str, Any], echo: Mapping[str, Any]) -> bool:
    """Whether a job is surely that of another request: a text or a number of both is another one.

    A service can echo a text cut short, and a picture under another address.
    """
    return any(_differs(value, echo[key]) for key, value in sent.items() if key in echo)


def _differs(sent: object, echo: object) -> bool:
    if isinstance(sent, str) and isinstance(echo, str):
        one, other = visible_text(sent), visible_text(echo)
        is_address = "://" in one or one.startswith("data:")
        return not is_address and not one.startswith(other) and not other.startswith(one)
    return isinstance(sent, int | float) and isinstance(echo, int | float) and sent != echo
