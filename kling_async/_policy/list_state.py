"""Whether a model's list can replace status calls, and how far to read it; learned per model.

Nothing is assumed of a list: not its order, nor how many rows a page has, nor that it shows every job, nor that its rows
are fresh. Costs are counted in status calls.
"""

from __future__ import annotations

import math

import attrs

_MIN_LIMIT, _MAX_LIMIT = 100, 1000
"""Rows to ask for at once. Source: a client of the service pages by 100; larger pages are tried and may be refused."""
_ROW_COST, _USUAL_ROW_BYTES, _CALL_BYTES = 0.005, 2_048, 65_536
"""The cost of a row in status calls: a row takes microseconds to decode, a call takes hundreds. The bytes beyond the usual
size of the rows cost one call more for each 64 KiB.
"""
_SHORT_REST, _LONG_REST = 30.0, 600.0
"""Seconds without scans after a scan of no use: the first time, and at most."""
_MAX_SPOT_CHECK_STEP, _MAX_TRUST = 64, 30.0
"""A spot check follows after at most so many scans, and at most so many seconds."""
_MAX_SIGNS = 3
"""The list counts as stale after so many rows that show a job in an earlier status."""
_MAX_MISSES = 2
"""A job that so many scans do not show is polled on its own."""


@attrs.define
class ListState:
    """The knowledge about one model's list."""

    is_on: bool = False
    """Whether scans of the list replace status calls now."""
    limit: int = _MIN_LIMIT
    """Rows to ask for."""
    number: int = 0
    """How many scans there were."""
    calls: int = 1
    """How many pages the last scan read."""
    cost: float = 1.0
    """The cost of the last scan, or of the next one if there was none."""
    start: int = 0
    """The offset of the first page that showed a job of ours."""
    suspect: str | None = None
    """A job that a status call showed final: a list that then shows it in flight is stale."""
    _reach: int = 0
    """The offset behind the last page that did."""
    _span: int = 0
    """Rows from `start` to the last job of ours."""
    _largest: int = _MAX_LIMIT
    _resting_until: float = -math.inf
    _rest: float = _SHORT_REST
    _signs: int = 0
    _checked_at: float = -math.inf
    _next_check: int = 2
    _check_step: int = 2

    def may_begin(self, now: float) -> bool:
        """Whether scans can begin, if they pay."""
        return not self.is_on and now >= self._resting_until

    def fit_page(self, in_flight: int) -> None:
        """Ask for as many rows as our jobs stand among, in whole hundreds."""
        wanted = math.ceil(max(in_flight, self._span) / _MIN_LIMIT) * _MIN_LIMIT
        self.limit = max(_MIN_LIMIT, min(wanted, self._largest))
        if self.number == 0:
            self.cost = math.ceil(in_flight / self.limit) + _ROW_COST * max(in_flight, _MIN_LIMIT)

    def covers(self, scan_number: int) -> bool:
        """Whether a job that this scan showed, or that was added after it, can wait for the next scan."""
        return self.is_on and self.number - scan_number < _MAX_MISSES

    def spot_check_due(self, now: float) -> bool:
        """Whether a job that the list covers is to be polled on its own all the same, to test the list."""
        if self.number < self._next_check and now < self._checked_at + _MAX_TRUST:
            return False
        self._checked_at = now
        self._next_check = self.number + self._check_step
        self._check_step = min(2 * self._check_step, _MAX_SPOT_CHECK_STEP)
        return True

    def end_scan(self, scan: Scan, *, now: float) -> None:
        """A scan is over: go on only if it replaced more status calls than it cost."""
        self.start, self._reach = scan.first or 0, scan.last
        self._span = max(0, scan.last_row - self.start)
        self.number += 1
        self.suspect, self.calls, self.cost = None, scan.calls, scan.cost
        if scan.found >= scan.cost:
            self._rest = _SHORT_REST
        elif scan.in_flight >= scan.cost:
            self.back_off(now)

    def back_off(self, now: float, *, is_long: bool = False) -> None:
        """Leave the list alone for a while, longer each time."""
        self.is_on = False
        self.start = self._reach = self._span = 0
        self._resting_until = now + (_LONG_REST if is_long else self._rest)
        self._rest = min(2 * self._rest, _LONG_REST)

    def record_refusal(self, now: float) -> None:
        """The service refuses the call: perhaps for too large a page; else it has no such list."""
        if self.limit > _MIN_LIMIT:
            self._largest = self.limit = _MIN_LIMIT
        else:
            self.back_off(now, is_long=True)

    def report_stale(self, now: float, *, is_proof: bool = False) -> None:
        """The list showed a job as it was before; one proof, or a few signs, and it is left alone."""
        self._signs += 1
        if is_proof or self._signs >= _MAX_SIGNS:
            self._signs = 0
            self.back_off(now, is_long=True)

    def begin_scan(self, in_flight: int) -> Scan:
        """A scan from where the last one found the first job of ours."""
        self.fit_page(in_flight)
        return Scan(next_offset=self.start, in_flight=in_flight)

    def add_page(self, scan: Scan, page: PageFacts) -> None:
        """Take a page into a scan, and decide where the next one begins, if there is to be one."""
        offset = scan.next_offset
        assert offset is not None
        scan.next_offset, end = None, offset + page.rows
        scan.calls += 1
        scan.cost += page.cost
        growth = max(0, page.total - scan.total) if page.total is not None and scan.total is not None else 0
        scan.total = page.total
        if page.hits:
            scan.first = offset if scan.first is None else scan.first
            scan.last, scan.last_row = end, offset + page.last_hit
            scan.found += page.hits
        left = scan.in_flight - scan.found
        was_stuck, scan.is_stuck = scan.is_stuck, page.new_rows == 0
        if left <= 0 or page.has_more is False:
            return
        if (newest := self._newest_offset(scan, offset)) is not None:
            scan.next_offset, scan.has_jumped = newest, True
        elif scan.is_stuck:
            if page.repeated_rows and growth and not was_stuck:
                scan.next_offset = end + growth // 2
        elif left >= page.cost and (page.hits >= page.cost or end < self._reach):
            # The page may show as many jobs as this one, or as last time. A list that grows in front has moved on, and
            # moves on until the next page is here: by as much at most, and a row too many costs less than a status call
            # for each job that is jumped over.
            scan.next_offset = end + (growth // 2 if page.repeated_rows else 0)

    def _newest_offset(self, scan: Scan, offset: int) -> int | None:
        """Where the newest rows may stand in a list whose first page shows no job of ours; None for nowhere else."""
        if scan.found or scan.has_jumped or scan.total is None:
            return None
        newest = scan.total - math.ceil(scan.in_flight / self.limit) * self.limit
        return newest if newest > offset else None


@attrs.define(eq=False)
class Scan:
    """How far one scan of a list has come."""

    next_offset: int | None
    """Where the next page begins; None when the scan is over."""
    in_flight: int
    """Our jobs of the model when it began."""
    found: int = 0
    """Our jobs that it has shown."""
    calls: int = 0
    """How many pages it has read."""
    cost: float = 0.0
    """The cost of its pages."""
    first: int | None = None
    """The offset of the first page with a job of ours."""
    last: int = 0
    """The offset behind the last one."""
    last_row: int = 0
    """The offset behind the last row that is a job of ours."""
    has_jumped: bool = False
    is_stuck: bool = False
    """Whether the last page showed nothing new."""
    total: int | None = None
    """How many rows the list had at the last page."""
    seen: set[str] = attrs.field(factory=set)
    """The ids of the rows so far."""


@attrs.frozen(kw_only=True)
class PageFacts:
    """What a page tells the scan."""

    rows: int
    new_rows: int
    """Rows that no page of the scan has shown."""
    repeated_rows: int
    """Rows that an earlier page of the scan has shown."""
    hits: int
    """Rows that are news of jobs of ours."""
    last_hit: int
    """How many rows of the page there are up to the last of them."""
    has_more: bool | None
    total: int | None
    cost: float


def page_cost(*, rows: int, size_bytes: int, seconds: float, status_seconds: float) -> float:
    """The cost of a page in status calls: the call, its rows, their bytes beyond the usual, and the longer time."""
    heavy = max(0, size_bytes - rows * _USUAL_ROW_BYTES) / _CALL_BYTES
    return 1.0 + rows * _ROW_COST + heavy + max(0.0, seconds - status_seconds)
