"""The job of a lost reply: when to look for it in the service's list, and which row it is."""

from __future__ import annotations

import json
import math
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
        return self.fits_however_late(job) and _creation(job) <= self.until

    def fits_however_late(self, job: Job) -> bool:
        """The same of a row that came after all when nobody expected it any more."""
        if job.created_at is None or not self.payload or _creation(job) < self.since:
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
    rows: Iterable[Job],
    *,
    others: Sequence[Lost],
    is_claimed: Callable[[str], bool],
) -> dict[int, Job]:
    """Which row is the job of which lost reply, by its place in `lost`; those that cannot be told are left out.

    Equal requests make equal jobs, so it is the number that counts: each unclaimed row must have a reply of its own;
    where one is left over, some are strangers, and none is taken. A row that fits requests of several kinds is left
    to the one that says most, however late it comes for that.

    Args:
        lost: The lost replies.
        rows: What the list shows, at least since `earliest`.
        others: Further lost replies, for which nobody looks now.
        is_claimed: Whether a job is known to be another item's.
    """
    found: dict[int, Job] = {}
    known, rows = [*lost, *others], list(rows)
    for places in _alike(lost, others):
        payload = known[places[0]].payload
        rivals = [one for one in known if len(one.payload) >= len(payload) and one.payload != payload]
        fitting = [
            row
            for row in rows
            if any(known[place].fits(row) for place in places)
            and not is_claimed(row.request_id)
            and not any(rival.fits_however_late(row) for rival in rivals)
        ]
        if len(_matched(places, known, fitting)) == len(fitting):
            found.update(_matched([place for place in places if place < len(lost)], known, fitting))
    return found


def earliest(lost: Sequence[Lost], others: Sequence[Lost]) -> float:
    """The Unix seconds since when `adoptable` needs the rows."""
    known = [*lost, *others]
    return min(known[place].since for places in _alike(lost, others) for place in places)


def since_first(lost: Iterable[Lost], rows: Iterable[Job]) -> list[Job]:
    """The rows that may be the job of one of these replies, or of any that is lost from now on."""
    first = min(one.since for one in lost)
    return [row for row in rows if row.created_at is not None and _creation(row) >= first]


def _alike(lost: Sequence[Lost], others: Sequence[Lost]) -> list[list[int]]:
    """The replies that only their number tells apart, by their places in both: equal requests at overlapping times.

    Those of the others that are like no lost one are left out.
    """
    known = [*lost, *others]
    last: dict[str, tuple[float, list[int]]] = {}
    groups = []
    for place in sorted(range(len(known)), key=lambda place: known[place].since):
        one, kind = known[place], json.dumps(known[place].payload, sort_keys=True)
        until, group = last.get(kind, (-math.inf, []))
        if one.since > until:
            group = []
            groups.append(group)
        group.append(place)
        last[kind] = max(until, one.until), group
    return [group for group in groups if min(group) < len(lost)]


def _matched(group: Sequence[int], lost: Sequence[Lost], rows: Iterable[Job]) -> dict[int, Job]:
    """Each row, oldest first, for the reply whose time ends first among those that it fits: as many as can be."""
    found: dict[int, Job] = {}
    for row in sorted(rows, key=_creation):
        places = [place for place in group if place not in found and lost[place].fits(row)]
        if places:
            found[min(places, key=lambda place: lost[place].until)] = row
    return found


def _creation(job: Job) -> float:
    assert job.created_at is not None, "only a row with a time fits"
    return job.created_at.timestamp()
