"""How far the service's clock is ahead of ours, learned from the `Date` headers of its answers."""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime

import attrs

_SUCCESSES = range(200, 300)
_RELEARN_INTERVAL = 10.0
"""Seconds for which an offset is taken as it is: to parse a header takes as long as to read a small answer."""
_MAX_ROUND_TRIP = 20.0
"""Seconds of a call beyond which its answer shows no clock: the process may have stood still before it was sent or read."""
_MAX_OFFSET = 100 * 365 * 86_400.0
"""Seconds beyond which a date is no time of a clock: a machine without a battery begins in 1970."""
_MAX_DRIFT = 5.0
"""Seconds by which the two clocks of a machine differ more or less than at the last reading, at the most.

More is no drift: the clock that shows the time was set, or the machine slept, and the other clock with it.
"""


@attrs.frozen(kw_only=True)
class Instant:
    """One instant by the clocks of this machine and, where that is known, by the service's clock."""

    wall: float
    """Unix seconds by the clock of this machine."""
    monotonic: float
    """Seconds of a clock that no one sets; only differences have a meaning."""
    offset: float | None
    """Seconds that the service's clock is ahead of `wall`; None is unknown."""
    clock_changes: int
    """How often the clock of this machine was set, or the machine slept, as far as this process has seen it."""

    @property
    def time(self) -> float:
        """Unix seconds by the service's clock where it is known, else by the clock of this machine."""
        return self.wall + (self.offset or 0.0)


@attrs.define
class ServiceClock:
    """The service's clock, as far as its answers have shown it.

    A `Date` has whole seconds, and the answer was on its way for some time, so each answer gives bounds. Answers that
    agree narrow the bounds. An answer that does not agree replaces them: one of the two clocks was set.

    Once the clock of this machine was set, or the machine slept, the offset is unknown until the next answer.
    """

    _earliest: float = -math.inf
    """The least offset: seconds that the service's clock is ahead."""
    _latest: float = math.inf
    _learned_at: float = -math.inf
    _gap: float | None = None
    """Seconds that our clock was ahead of the monotonic clock at the last reading."""
    _clock_changes: int = 0
    _changes_at_call: int = -1
    """The clock changes when the last call was made only to learn the time; -1 before the first."""

    @property
    def offset(self) -> float | None:
        """Seconds that the service's clock is ahead of ours; None while no answer has shown it."""
        return None if self._earliest == -math.inf else (self._earliest + self._latest) / 2

    def read(self, *, wall: float, monotonic: float) -> Instant:
        """The present instant; see `compare` for what a reading changes.

        Args:
            wall: Unix seconds by our clock.
            monotonic: Seconds of the monotonic clock.
        """
        self.compare(wall=wall, monotonic=monotonic)
        return Instant(wall=wall, monotonic=monotonic, offset=self.offset, clock_changes=self._clock_changes)

    def compare(self, *, wall: float, monotonic: float) -> None:
        """Count it, and forget the offset, if the two clocks of this machine show that one was set, or stood still."""
        gap = wall - monotonic
        if self._gap is not None and abs(gap - self._gap) > _MAX_DRIFT:
            self._earliest, self._latest, self._learned_at = -math.inf, math.inf, -math.inf
            self._clock_changes += 1
        self._gap = gap

    def wants_call(self, now: Instant) -> bool:
        """Whether a call is worth its cost that only learns the time: it is unknown, and none was made since a clock change."""
        return now.offset is None and now.clock_changes > self._changes_at_call

    def record_call(self, began: Instant) -> None:
        """A call that only learns the time has ended, with an answer or without one."""
        self._changes_at_call = began.clock_changes

    def wants(self, status: int, *, wall: float) -> bool:
        """Whether an answer is worth reading: a success, for a proxy can answer with an error and its own time."""
        return status in _SUCCESSES and abs(wall - self._learned_at) >= _RELEARN_INTERVAL

    def learn(self, date: str | None, *, sent_at: float, received_at: float) -> None:
        """Learn from one answer; a header that is missing or unreadable, and a slow answer, change nothing.

        Args:
            date: The `Date` header.
            sent_at: Unix seconds by our clock, before the request.
            received_at: Unix seconds by our clock, after the answer.

        Source: RFC 9110 section 6.6.1: the date at which the message was originated.
        """
        moment = parse_http_date(date)
        is_slow = received_at - sent_at > _MAX_ROUND_TRIP
        if moment is None or is_slow or abs(moment - received_at) > _MAX_OFFSET:
            return
        earliest, latest = moment - received_at, moment + 1.0 - sent_at
        if max(earliest, self._earliest) < min(latest, self._latest):
            earliest, latest = max(earliest, self._earliest), min(latest, self._latest)
        self._earliest, self._latest = earliest, max(earliest, latest)
        self._learned_at = received_at


def parse_http_date(text: str | None) -> float | None:
    """Unix seconds of an HTTP date; None if it is none."""
    try:
        moment = parsedate_to_datetime(text or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
