"""What a client knows and limits in all its event loops together."""

from __future__ import annotations

import math
from collections import deque

import attrs

from kling_async._policy.circuit_breaker import LostStreak
from kling_async._policy.job_owners import JobOwners
from kling_async._policy.lost_submit import CLOCK_SKEW, LostSubmit
from kling_async._policy.own_user import OwnUser
from kling_async._policy.pace import Pace
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import Limits, TokenBucket
from kling_async._policy.recent_job_ids import RecentJobIds

_MAX_UNRESOLVED = 1000


@attrs.define(eq=False)
class Pauses:
    """The pauses of all submits after the service throttled some."""

    until: float = float("-inf")
    """When the last pause ends, by the engine's clock."""
    throttles_in_a_row: int = 0


@attrs.frozen(eq=False, kw_only=True)
class UnresolvedSubmit:
    """A lost submit whose reconciliation ended without a job."""

    model: str
    lost: LostSubmit
    journal: str | None
    """The location of the journal that knows the submit; None without a journal."""
    entry_number: int | None
    """The number of its journal entry."""


class SharedState:
    """The rates, the pauses and the knowledge that a client keeps from one event loop to the next.

    Args:
        limits: How much the client may ask for at once.
        polling: How the client waits; a view of the client can wait otherwise.
    """

    def __init__(self, limits: Limits, polling: PollingPolicy) -> None:
        self.limits = limits
        self.polling = polling
        rate = limits.max_polls_per_second
        self.poll_rate = TokenBucket(rate=rate, burst=max(1.0, rate))
        """The rate of status and list calls."""
        hourly = limits.max_submits_per_hour
        burst = max(1.0, min(limits.max_concurrent_submits, hourly)) if hourly else 1.0
        self.submit_rate = TokenBucket(rate=hourly / 3600 if hourly else math.inf, burst=burst)
        """The hourly rate of submits."""
        self.pauses = Pauses()
        self.lost_streak = LostStreak()
        """The lost submits in a row."""
        self.pace = Pace()
        """The knowledge of run times."""
        self.longest_timeout = 0.0
        """Seconds that a POST can be in flight."""
        self.job_owners = JobOwners()
        """The jobs that have an owner."""
        self.own_user = OwnUser()
        """The organization and the user of the key."""
        self.answered = RecentJobIds(0.0)
        """The jobs of answered POSTs: their rows in a list name the user of the key, while that is not known."""
        self.unresolved: deque[UnresolvedSubmit] = deque(maxlen=_MAX_UNRESOLVED)
        """The lost submits without a job, so that no later one of another journal, or without a journal, takes their jobs."""

    def forget_unresolved(self, journal: str | None, entry_number: int) -> None:
        """Forget the last attempt of a journal entry, which is reconciled again."""
        for one in reversed(tuple(self.unresolved)):
            if (one.journal, one.entry_number) == (journal, entry_number):
                self.unresolved.remove(one)
                return

    def cover_timeout(self, timeout: float) -> None:
        """From now on a POST can be in flight for so many seconds: remember the owners of jobs for as long."""
        self.longest_timeout = max(self.longest_timeout, timeout)
        self.answered.span = self.job_owners.span = self.longest_timeout + 2 * CLOCK_SKEW
