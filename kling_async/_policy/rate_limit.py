"""The limits of a client, and a token bucket that keeps a rate."""

from __future__ import annotations

import math

import attrs

from kling_async._calls import public_class
from kling_async._field_docs import describe_fields
from kling_async._policy.validators import at_least


@public_class
@attrs.frozen(kw_only=True)
class Limits:
    """The most that one client does at the same time, over all its calls, batches and views.

    The rates and the pauses after a 429 hold from one event loop to the next. Event loops that run at the same time, in
    several threads, have their own concurrent submits and downloads.

    The client lowers numbers of submits and downloads that need more files than the process can have open.

    Raises:
        ConfigurationError: A value is zero, negative or not a number.
    """

    max_concurrent_submits: int = attrs.field(default=16, validator=at_least(1, whole=True))
    """Paid POSTs in flight at the same time. How many jobs run at the service is `max_concurrency` of a batch."""
    max_submits_per_hour: float | None = attrs.field(
        default=None, validator=at_least(0, above=True, optional=True)
    )
    """Paid POSTs per hour, spread evenly. The service counts video requests per hour and organization. None is no limit."""
    max_polls_per_second: float = attrs.field(default=10.0, validator=at_least(0, above=True))
    """Status and list calls per second for waits and reconciliations; `get_job` and `list_jobs` are sent at once.
    `math.inf` is no limit.
    """
    max_concurrent_downloads: int = attrs.field(default=8, validator=at_least(1, whole=True))
    """Videos that are downloaded at the same time."""


@attrs.define
class TokenBucket:
    """A rate that allows bursts, for two ways to wait.

    A call that is sent in any case, such as a poll, takes its turn by `take` at once, and waits the seconds that this returns.
    A submit, which can be stopped while it waits, asks `wait` again and again until a turn is free, takes it where it leaves,
    and puts it back if it was not sent after all.
    """

    rate: float
    """Turns per second; with `math.inf` no turn waits."""
    burst: float
    """How many turns a full bucket gives without a wait."""
    _ready_at: float = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until a turn is free; takes none."""
        return max(0.0, self._ready_at - now)

    def take(self, now: float) -> float:
        """Take one turn; returns the seconds until it can be used, 0 for now."""
        if math.isinf(self.rate):
            return 0.0
        wait = self.wait(now)
        earliest = now - (self.burst - 1) / self.rate
        self._ready_at = max(self._ready_at, earliest) + 1 / self.rate
        return wait

    def put_back(self) -> None:
        """Put back a turn that was free when it was taken, and that was not used."""
        self._ready_at -= 1 / self.rate


describe_fields(__name__)
