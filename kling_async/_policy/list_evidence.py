"""Which pages of the service's list are read for a lost submit, and what they say about one whose job was not found."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import attrs

from kling_async._policy.lost_submit import LostSubmit
from kling_async._policy.matching import select_candidates
from kling_async._policy.own_user import OwnUser
from kling_async._policy.service_clock import Instant
from kling_async._policy.visible_text import visible_text
from kling_async.jobs import Job, canonical_id

MAX_EMPTY_PAGES = 10
"""Pages in a row without a readable row after which reading ends."""
ROW_DELAY = 60.0
"""Seconds that the row of a new job can take to appear in the list, at the most."""
_WRONG_CLOCK = (
    "the list does not show it at the time of the POST by the clock of this machine, which may differ from the "
    "service's: no answer of the service had a Date header"
)


@attrs.define(kw_only=True)
class RecentReading:
    """One reading of a model's list for the jobs created since a time: says which page is read next.

    The whole list is read, unless its pages are sorted with the newest job first: then reading ends at the first older
    page. If a long list has its oldest jobs first, its end is read first.
    """

    since: float
    """Unix seconds."""
    page_rows: int
    """How many rows a page is asked for."""
    next_offset: int = attrs.field(init=False, default=0)
    """The row at which the next page begins."""
    is_over: bool = attrs.field(init=False, default=False)
    """Whether no further page is to be read."""
    _total: int = attrs.field(init=False, default=0)
    """The number of rows on all pages, as the first page said it; of use only where that page has the oldest rows."""
    _rows_from_end: int = attrs.field(init=False, default=0)
    """How far before the end of the list the recent rows are looked for; 0 while pages are read one after the other."""
    _seen: set[str] = attrs.field(init=False, factory=set)
    _newest: float = attrs.field(init=False, default=-math.inf)
    _oldest: float = attrs.field(init=False, default=math.inf)
    """When the last row was created; -inf once the rows are not sorted with the newest first."""
    _empty_pages: int = attrs.field(init=False, default=0)

    def add(self, jobs: Collection[Job], *, rows: int, total: int | None, has_more: bool | None) -> None:
        """Add the page at `next_offset`.

        Args:
            jobs: Its rows.
            rows: Their number, unreadable ones included.
            total: The number of rows on all pages, if the service says it.
            has_more: Whether more pages follow, if the service says it.
        """
        times = [_created_at(job) for job in jobs if job.created_at is not None]
        self._find_start(times, rows=rows, total=total)
        if self._rows_from_end:
            self.next_offset = max(0, self._total - self._rows_from_end)
            return
        known = len(self._seen)
        self._seen.update(canonical_id(job.request_id) for job in jobs)
        self._record_order(times)
        self._empty_pages = 0 if jobs else self._empty_pages + 1
        is_last = has_more is False or rows == 0 or (bool(jobs) and len(self._seen) == known)
        is_past_recent = -math.inf < self._oldest < min(self.since, self._newest)
        self.is_over = is_last or is_past_recent or self._empty_pages == MAX_EMPTY_PAGES
        self.next_offset += rows

    def _find_start(self, times: list[float], *, rows: int, total: int | None) -> None:
        """If the first page has the oldest rows, step back from the end of the list until a page begins with an older row."""
        is_first = self.next_offset == 0 and not self._rows_from_end
        if is_first and total is not None and total > rows and self._are_oldest(times):
            self._total, self._rows_from_end = total, self.page_rows
        elif self._rows_from_end and self.next_offset > 0 and not (times and times[0] < self.since):
            self._rows_from_end *= 2
        else:
            self._rows_from_end = 0

    def _are_oldest(self, times: list[float]) -> bool:
        """Whether the rows of the first page are sorted with the oldest first, and all of them too old."""
        return bool(times) and times == sorted(times) and times[0] < times[-1] < self.since

    def _record_order(self, times: list[float]) -> None:
        if times and times[0] <= self._oldest and times == sorted(times, reverse=True):
            self._newest, self._oldest = max(self._newest, times[0]), times[-1]
        elif times:
            self._oldest = -math.inf  # not sorted with the newest first: read to the end


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
