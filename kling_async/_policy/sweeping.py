"""Whether a model's list may stand for status calls, and how far to page; learned per model as it goes.

Nothing is assumed of the list: not its order, nor how many rows a page has, nor that it shows every job, nor
that what it shows is fresh. Costs are counted in status calls.
"""

from __future__ import annotations

import math

import attrs

from kling_async._policy.listing import list_cost

_ROW_COST = list_cost(calls=0, rows=1)

_FIRST_LIMIT, _LARGEST_LIMIT = 100, 1000
"""Rows asked for at once. Source: a client of the service pages by 100; larger pages are tried and may be refused."""
_USUAL_BYTES, _HEAVY_BYTES = 2_048.0, 65_536.0
"""The size up to which records weigh alike, and what must come on top for one to cost as much as the call around it."""
_SHORTEST_REST, _LONGEST_REST = 30.0, 600.0
_FIRST_AUDIT, _RAREST_AUDIT = 2, 64
_LONGEST_TRUST = 30.0
"""Seconds after which a list is put to the test again, however few sweeps there were."""
_MOST_STRIKES = 3
_MISSES = 2
"""So many sweeps may pass a job by before it is asked about on its own."""


@attrs.define
class ListScanState:
    """What is known of one model's list, and what follows from it."""

    is_on: bool = False
    """Whether sweeps of the list stand for status calls now."""
    limit: int = _FIRST_LIMIT
    """Rows to ask for."""
    number: int = 0
    """How many sweeps there have been."""
    calls: int = 1
    """Calls that the last sweep took."""
    cost: float = 1.0 + _FIRST_LIMIT * _ROW_COST
    """What it cost, in status calls."""
    swept_alive: int = 0
    """Jobs that were in flight when it began."""
    start: int = 0
    """The offset of the first page that showed a job of ours."""
    reach: int = 0
    """The offset behind the last page that did."""
    span: int = 0
    """Rows from there to the last job of ours that it showed."""
    suspect: str | None = None
    """A job that a status call showed final: a list that then shows it alive is stale."""
    _largest: int = _LARGEST_LIMIT
    _resting_until: float = -math.inf
    _rest: float = _SHORTEST_REST
    _strikes: int = 0
    _audited: float = -math.inf
    _audit_at: int = _FIRST_AUDIT
    _audit_step: int = _FIRST_AUDIT

    @property
    def rows(self) -> float:
        """How many rows of usual weight the last sweep read."""
        return (self.cost - self.calls) / _ROW_COST

    def may_begin(self, now: float) -> bool:
        """Whether sweeps may begin, if they pay."""
        return not self.is_on and now >= self._resting_until

    def expect(self, alive: int) -> None:
        """Fit the page to the jobs in flight and to what stands between them, in whole hundreds of rows."""
        wanted = math.ceil(max(alive, self.span) / _FIRST_LIMIT) * _FIRST_LIMIT
        self.limit = max(_FIRST_LIMIT, min(wanted, self._largest))
        if self.number == 0:
            self.calls = math.ceil(alive / self.limit)
            self.cost = self.calls + _ROW_COST * max(alive, _FIRST_LIMIT)

    def expected(self, alive: int) -> tuple[float, float]:
        """Calls and rows that the next sweep should take: as the last one, if as many jobs were in flight."""
        share = min(1.0, alive / self.swept_alive) if self.swept_alive else 1.0
        calls = max(1.0, self.calls * share)
        return calls, max(min(self.rows, float(self.limit)), self.rows * share)

    def covers(self, shown_in: int) -> bool:
        """Whether a job that sweep number `shown_in` showed, or that was added after it, may wait for the next."""
        return self.is_on and self.number - shown_in < _MISSES

    def wants_audit(self, now: float) -> bool:
        """Whether a job that the list covers is to be asked about on its own all the same, to test the list."""
        if self.number < self._audit_at and now < self._audited + _LONGEST_TRUST:
            return False
        self._audited = now
        self._audit_at = self.number + self._audit_step
        self._audit_step = min(2 * self._audit_step, _RAREST_AUDIT)
        return True

    def goes_on(self, *, hits: int, left: int, cost: float, end: int) -> bool:
        """Whether the next page is worth its call: it may show as much as this one, or what it showed last time.

        Args:
            hits: Jobs of ours that only this page has shown.
            left: Jobs of ours that no page has shown yet.
            cost: What this page cost.
            end: The offset behind it.
        """
        return left >= cost and (hits >= cost or end < self.reach)

    def swept(self, *, found: int, alive: int, calls: int, cost: float, now: float) -> None:
        """A sweep is over; keep on only if it replaced more status calls than it cost."""
        self.number += 1
        self.swept_alive = alive
        self.suspect = None
        self.calls, self.cost = calls, cost
        if found >= cost:
            self._rest = _SHORTEST_REST
        elif alive >= cost:
            self.rest(now)

    def rest(self, now: float, *, long: bool = False) -> None:
        """Leave the list alone for a while, longer each time."""
        self.is_on = False
        self.start = self.reach = self.span = 0
        self._resting_until = now + (_LONGEST_REST if long else self._rest)
        self._rest = min(2 * self._rest, _LONGEST_REST)

    def refused(self, now: float) -> None:
        """The service refuses the call: perhaps for too large a page; else it has no such list."""
        if self.limit > _FIRST_LIMIT:
            self._largest = self.limit = _FIRST_LIMIT
        else:
            self.rest(now, long=True)

    def strike(self, now: float, *, proof: bool = False) -> None:
        """The list showed a job as it was long ago; one proof, or a few signs, and it is taken for stale."""
        self._strikes += 1
        if proof or self._strikes >= _MOST_STRIKES:
            self._strikes = 0
            self.rest(now, long=True)


def page_cost(*, rows: int, size_bytes: int, seconds: float, status_seconds: float) -> float:
    """What a page cost, in status calls: the call, its rows by weight, and the time that it took longer.

    Args:
        rows: Rows on the page.
        size_bytes: Its size.
        seconds: How long it took.
        status_seconds: How long a status call takes.
    """
    weight = max(0.0, size_bytes / max(rows, 1) - _USUAL_BYTES) / _HEAVY_BYTES
    row = (_ROW_COST + weight) / (1.0 + weight)
    return 1.0 + rows * row + max(0.0, seconds - status_seconds)
