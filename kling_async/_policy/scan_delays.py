"""Decides when the service's list is scanned for the job of a lost submit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kling_async._policy.list_evidence import closes_at
from kling_async._policy.lost_submit import LostSubmit
from kling_async._policy.service_clock import Instant

_SCAN_AGES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Ages of a lost submit, in seconds, at which the list is scanned: a new job may appear in it late."""
_LATE_DELAYS = (0.0, 2.0)
"""The delays before the scans for a submit that is so old that at most one of these ages is left."""
_PROOF_DELAYS = (0.0, 20.0, 40.0)
"""Seconds between the readings for a proof: a job of ours that was accepted later may not be listed yet."""


def scan_delays(age: float, *, search_until_age: float = 0.0) -> Sequence[float]:
    """Seconds to wait before each list scan, for a submit that was lost `age` seconds ago.

    Args:
        age: Seconds since the POST.
        search_until_age: The age that the last scan waits for, at least: until then another process may still get the answer.
    """
    ages = [scan_age for scan_age in _SCAN_AGES if scan_age > age]
    delays: list[float] = list(_LATE_DELAYS)
    if len(ages) >= len(_LATE_DELAYS):
        delays = [later - earlier for earlier, later in zip([age, *ages[:-1]], ages, strict=True)]
    left = search_until_age - age - sum(delays)
    return [*delays, left] if left > 0 else delays


def proof_delays(lost: LostSubmit, *, now: Instant, may_wait: bool) -> Iterable[float]:
    """Seconds to wait before each reading of the whole list; none if a reading can prove nothing.

    Args:
        lost: The lost submit.
        now: The present instant.
        may_wait: Whether the caller wants the proof so much that it waits for it.
    """
    if now.offset is None or not lost.is_comparable(now):
        return ()
    left = closes_at(lost.by_service_clock(now.offset)) - now.time
    if may_wait:
        return (max(0.0, left) + _PROOF_DELAYS[0], *_PROOF_DELAYS[1:])
    return () if left > 0 else _PROOF_DELAYS[:1]
