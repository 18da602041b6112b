"""Whether a model's list can replace status calls, and how far to read it; learned per model.

Nothing is assumed of a list: not its order, nor how many rows a page has, nor that it shows every job, nor that its rows
are fresh. Costs are counted in status calls.
"""

from __future__ import annotations

import math

import attrs

_ROWS, _MAX_ROWS = 100, 1000
"""Rows to ask for at once. Source: a client of the service pages by 100; larger pages are tried and may be refused."""
_CALL_BYTES = 262_144
"""So many bytes of a page cost as much as a status call; and so does a second that it takes."""
_JOBS_PER_CALL = 4
"""A list pays with so many jobs for each status call that a scan costs: some jobs need their own all the same."""
_SHORT_REST, _LONG_REST = 30.0, 600.0
"""Seconds without scans after a scan of no use: the first time, and at most."""
_CHECK_INTERVAL = 2.0
"""After a scan that shows no end, a status call for one job tests the list, if so many seconds have passed since the last.
Measured: with 1 s and 3 s the calls for a good list are 2 % more and 1 % fewer, and the lag of a stale one is about equal."""
_PAGE_DELAY = 1.0
"""Seconds for which a job waits for a page of the list that is due."""


@attrs.define
class ListState:
    """The knowledge about one model's list."""

    is_on: bool = False
    """Whether scans of the list replace status calls now."""
    number: int = 0
    """How many scans there were."""
    rows: int = _ROWS
    """Rows to ask for."""
    cost: float = 1.0
    """The cost of the last scan."""
    suspect: str | None = None
    """A job that a status call showed final: a list that then shows it in flight is stale."""
    is_stale: bool = False
    """Whether the last scan showed such a job in flight all the same."""
    max_rows: int = _MAX_ROWS
    page_at: float = -math.inf
    """When the next page is due."""
    _start: int = 0
    """The offset of the first page that showed a job of ours."""
    _reach: int = 0
    """The offset behind the last page that did."""
    _is_quiet: bool = False
    """Whether the last scan showed no end."""
    _checked_at: float = -math.inf
    _rest: float = _SHORT_REST
    _rests_until: float = -math.inf

    def pays(self, in_flight: int) -> bool:
        """Whether scans notice the ends of so many jobs sooner than status calls that cost as much.

        A status call for each of n jobs in an interval costs n calls and is half the interval late on average; a scan in
        the same interval is as late, and costs `cost`.
        """
        return in_flight >= _JOBS_PER_CALL * (
            self.cost if self.number else math.ceil(in_flight / self.max_rows)
        )

    def plan_scan(self, now: float, *, interval: float) -> None:
        """Set when the next scan begins: after the interval, or when the list has been left alone for long enough."""
        self.is_on = now >= self._rests_until
        self.page_at = now + interval if self.is_on else self._rests_until

    def stop_scans(self) -> None:
        """No scan is planned: status calls replace the list again."""
        self.is_on = False

    def next_shown_at(self, scan_number: int) -> float:
        """When the next scan has probably shown a job; `-inf` if no scan is likely to.

        Args:
            scan_number: The number of the last scan that showed the job, or of the last one before the job was added.
        """
        # The scan before may still have been under way.
        is_shown = self.is_on and self.number - scan_number <= 1
        return self.page_at + _PAGE_DELAY if is_shown else -math.inf

    def record_end(self, id_: str, *, scan_number: int) -> None:
        """A status call showed a job final. If the last scan showed the job in flight, a later scan must not."""
        if self.is_on and scan_number == self.number > 0:
            self.suspect = id_

    def begin_scan(self, in_flight: int) -> Scan:
        """A scan from where the last one found the first job of ours, in pages of as many rows as there are jobs."""
        self.is_on, self.is_stale = True, False
        self.rows = min(max(math.ceil(in_flight / _ROWS) * _ROWS, self.rows), self.max_rows)
        return Scan(
            number=self.number + 1, next_offset=self._start, in_flight=in_flight, suspect=self.suspect
        )

    def add_page(
        self,
        scan: Scan,
        *,
        rows: int,
        new_rows: int,
        hits: int,
        ends: int,
        has_more: bool | None,
        total: int | None,
        cost: float,
    ) -> None:
        """Take a page into a scan, and decide where the next one begins, if there is to be one.

        Args:
            scan: The scan.
            rows: How many rows the page has.
            new_rows: How many of them no page of the scan has shown.
            hits: How many of them are news of jobs of ours.
            ends: How many of those are final.
            has_more: What the page says of further pages.
            total: What the page says of the length of the list.
            cost: What it cost.
        """
        offset = scan.next_offset
        assert offset is not None
        scan.next_offset, end = None, offset + rows
        scan.cost += cost
        scan.ends += ends
        if hits:
            scan.first = offset if scan.first is None else scan.first
            scan.reach = end
            scan.found += hits
        left = scan.in_flight - scan.found
        was_stuck, scan.is_stuck = scan.is_stuck, not new_rows
        if left <= 0 or has_more is False or scan.is_stale:
            return
        newest = (total or 0) - math.ceil(scan.in_flight / self.rows) * self.rows
        if not (scan.found or scan.has_jumped) and newest > offset:
            # The newest rows may stand at the end of the list.
            scan.next_offset = newest
            scan.has_jumped = True
        elif left >= cost and (hits >= cost or end < self._reach or (scan.is_stuck and not was_stuck)):
            # The next page may show as many jobs as this one, or as last time. A list that grows in front has moved on by
            # the rows that it repeats, and moves on by as many at most until the next page is here.
            scan.next_offset = end + (rows - new_rows) // 2

    def end_scan(self, scan: Scan, now: float) -> None:
        """Record the end of a scan. Further scans are planned only if this one replaced more status calls than it cost."""
        self._start, self._reach = scan.first or 0, scan.reach
        self.number += 1
        self.cost = scan.cost
        self._is_quiet = scan.ends == 0
        self.is_stale = scan.is_stale
        if scan.is_stale:
            self._rest = _LONG_REST
            self.back_off(now)
        elif scan.found >= scan.cost:
            self._rest = _SHORT_REST
        elif scan.in_flight >= scan.cost:
            self.back_off(now)

    def wants_spot_check(self, now: float) -> bool:
        """Whether to test the list by a status call, for it shows no ends."""
        if not (self.is_on and self._is_quiet) or now < self._checked_at + _CHECK_INTERVAL:
            return False
        self._checked_at = now
        return True

    def record_failure(self, now: float, *, is_refusal: bool) -> None:
        """The list cannot be read: ask for smaller pages if the service may have refused a large one, else back off."""
        if is_refusal and self.rows > _ROWS:
            self.max_rows = self.rows = _ROWS
        else:
            self.back_off(now)

    def back_off(self, now: float) -> None:
        """Leave the list alone for a while, longer each time."""
        self.is_on, self.suspect = False, None
        self._start, self._reach, self.rows = 0, 0, _ROWS
        self._rests_until = now + self._rest
        self._rest = min(2 * self._rest, _LONG_REST)


@attrs.define(eq=False)
class Scan:
    """How far one scan of a list has come."""

    number: int
    """Its number among the scans of the list, from 1."""
    next_offset: int | None
    """Where the next page begins; None when the scan is over."""
    in_flight: int
    """Our jobs of the model when it began."""
    suspect: str | None = None
    """A job that was final when it began."""
    is_stale: bool = False
    """Whether a page showed the suspect in flight all the same."""
    found: int = 0
    """Our jobs that it has shown."""
    ends: int = 0
    """Our jobs that it has shown as final."""
    cost: float = 0.0
    """The cost of its pages."""
    first: int | None = None
    """The offset of the first page with a job of ours."""
    reach: int = 0
    """The offset behind the last page with a job of ours."""
    has_jumped: bool = False
    is_stuck: bool = False
    """Whether the last page showed nothing new."""
    ids: set[str] = attrs.field(factory=set)
    """The ids of the rows so far."""

    def check_suspect(self, *, is_final: bool) -> None:
        """Take in how a row shows the suspect."""
        self.is_stale = self.is_stale or not is_final


def page_cost(*, size_bytes: int, seconds: float) -> float:
    """The cost of a page in status calls: the call, its bytes and its time."""
    return 1.0 + size_bytes / _CALL_BYTES + seconds
