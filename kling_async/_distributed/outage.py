"""Decides how long an outage of the service or of a store is ridden out, and when a shard is tried again."""

from __future__ import annotations

import attrs

MAX_OUTAGE = 3600.0
"""Seconds after which an item that cannot be submitted ends with the reason."""
TRANSIENT_DELAY = 15.0
"""Seconds before a shard is tried again that its worker cannot run now, and that another one may be able to run."""
_LONGEST_DELAY = 600.0
"""The most seconds before a shard is tried again in an outage."""
_SAME_WITHIN = 1800.0
"""Seconds between two troubles that are one outage. After a longer time, in which no worker has tried, it is another one."""


@attrs.frozen
class Outage:
    """A time in which a batch could not be submitted. The times are those of one clock, that of the database."""

    began_at: float
    """When the first item was given back."""
    seen_at: float
    """When the last item was given back."""

    def is_too_long(self, *, now: float) -> bool:
        """Whether items are not given back any more."""
        return now - self.seen_at <= _SAME_WITHIN and now - self.began_at > MAX_OUTAGE

    @property
    def delay(self) -> float:
        """Seconds before a shard is tried again: as long as the outage has lasted, within limits.

        So there are about ten tries in an hour. Each can lose submits whose jobs may be charged, where the service takes
        requests and answers with an error.
        """
        return min(max(self.seen_at - self.began_at, TRANSIENT_DELAY), _LONGEST_DELAY)


@attrs.define
class Contact:
    """What the run of a shard has seen of the service."""

    is_reached: bool = False
    """Whether a job has come to its end in this run."""
    is_troubled: bool = False
    """Whether an item could not be submitted, for a reason that goes away."""


def next_outage(outage: Outage | None, contact: Contact, *, now: float) -> Outage | None:
    """The outage of a batch after the run of a shard; None if there is none.

    Args:
        outage: The outage before.
        contact: What the run has seen.
        now: The time.
    """
    if contact.is_reached:
        outage = None
    if not contact.is_troubled:
        return outage
    is_same = outage is not None and now - outage.seen_at <= _SAME_WITHIN
    return Outage(outage.began_at if outage is not None and is_same else now, now)


def delay_of_shard(
    *,
    left: int | None = None,
    is_stopping: bool = False,
    is_refused: bool = False,
    pause: float = 0.0,
    outage: Outage | None = None,
) -> float | None:
    """Seconds before a shard that its worker gives back is tried again; None if the worker runs it, or has run it to its end.

    Args:
        left: How many items the run has left; None before the run.
        is_stopping: Whether the worker stops. Then another worker can have the shard at once.
        is_refused: Whether the worker cannot run the batch. Another one may be able to.
        pause: Seconds for which the worker does not try the batch, after it could not be submitted.
        outage: The outage that the run has seen.
    """
    if left == 0:
        return None
    if is_stopping:
        return 0.0
    if is_refused:
        return TRANSIENT_DELAY
    if left is None:
        return pause if pause > 0 else None
    return TRANSIENT_DELAY if outage is None else outage.delay
