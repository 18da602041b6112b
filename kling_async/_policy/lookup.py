"""The job of a lost reply: when to look for it in the service's list, and which row it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from kling_async.models import Job

CLOCK_SKEW = 60.0
"""Seconds by which the service's clock may differ from ours."""
_AGES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds after the loss at which the list is looked through; a row may take a moment to show."""
_LATE = (0.0, 2.0)
"""The delays of the lookups for a loss that is older than all of these."""


@attrs.frozen(kw_only=True)
class Lost:
    """A paid POST whose reply never came, as far as its job can be told from others."""

    payload: Mapping[str, Any]
    """As it went over the wire."""
    since: float
    """Unix seconds; a job created earlier is another's."""
    until: float
    """Unix seconds; a job created later is another's."""

    def fits(self, job: Job) -> bool:
        """Whether a row may be its job: created in time, with every key that was sent; the echo may carry more."""
        created = job.created_at
        if created is None or not self.payload or not self.since <= created.timestamp() <= self.until:
            return False
        echo = job.payload
        return all(key in echo and echo[key] == value for key, value in self.payload.items())


def lookup_delays(age: float) -> Sequence[float]:
    """Seconds to wait before each lookup, for a loss that is `age` seconds old when the looking begins."""
    ages = [at for at in _AGES if at > age]
    if len(ages) < len(_LATE):
        return _LATE
    return [at - before for before, at in zip([age, *ages[:-1]], ages, strict=True)]


def may_be_confused(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the job of one payload might be taken for that of another: they differ in no key that both have.

    The echo of a payload may carry defaults in the keys that were not sent.
    """
    return all(other[key] == value for key, value in one.items() if key in other)


def adoptable(
    lost: Sequence[Lost],
    rows: Sequence[Job],
    *,
    known: Sequence[Sequence[Lost]],
    is_claimed: Callable[[str], bool],
) -> dict[int, Job]:
    """Which row is the job of which lost reply, by its place in `lost`; those that cannot be told are left out.

    Equal requests make equal jobs, so it is the number that counts: as many unclaimed rows as lost replies, or
    fewer, and each may be taken; more, and some are strangers. A row that fits requests of several kinds is
    looked at for the one that says most, and left to it also where nobody looks for that one now.

    Args:
        lost: The lost replies.
        rows: What the list shows.
        known: For each, all lost replies that its caller knows of, also those that nobody looks for now.
        is_claimed: Whether a job is known to be another item's.
    """
    found: dict[int, Job] = {}
    seen: set[str] = set()
    all_known = [one for replies in known for one in replies]
    open_places = sorted(range(len(lost)), key=lambda place: len(lost[place].payload), reverse=True)
    while open_places:
        payload = lost[open_places[0]].payload
        alike = [place for place in open_places if lost[place].payload == payload]
        open_places = [place for place in open_places if place not in alike]
        rivals = [one for one in all_known if _says_more(one.payload, than=payload)]
        fitting = [
            row
            for row in rows
            if row.request_id not in seen
            and any(lost[place].fits(row) for place in alike)
            and not is_claimed(row.request_id)
            and not any(rival.fits(row) for rival in rivals)
        ]
        seen.update(row.request_id for row in fitting)
        if len(fitting) <= max(len(alike), *(_count(known[place], payload, fitting) for place in alike)):
            found.update(_matched(alike, lost, fitting))
    return found


def _says_more(payload: Mapping[str, Any], *, than: Mapping[str, Any]) -> bool:
    return len(payload) >= len(than) and payload != than


def _count(known: Iterable[Lost], payload: Mapping[str, Any], rows: Iterable[Job]) -> int:
    """How many of these replies may be to one of the rows."""
    return sum(1 for one in known if one.payload == payload and any(map(one.fits, rows)))


def _matched(alike: Sequence[int], lost: Sequence[Lost], rows: Iterable[Job]) -> dict[int, Job]:
    """Each row, oldest first, for the reply whose time ends first among those that it fits."""
    found: dict[int, Job] = {}
    for row in sorted(rows, key=_creation):
        places = [place for place in alike if place not in found and lost[place].fits(row)]
        if places:
            found[min(places, key=lambda place: lost[place].until)] = row
    return found


def _creation(job: Job) -> float:
    assert job.created_at is not None, "only a row with a time fits"
    return job.created_at.timestamp()
