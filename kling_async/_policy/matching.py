"""The job of a lost reply: when to look for it in the service's list, and which row it is."""

from __future__ import annotations

import json
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

import attrs

from kling_async.jobs import Job

CLOCK_SKEW = 60.0
"""Seconds by which the service's clock may differ from ours."""
_AGES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds after the loss at which the list is looked through; a row may take a moment to show."""
_LATE = (0.0, 2.0)
"""The delays of the lookups for a loss that is older than all of these."""


@attrs.frozen(kw_only=True)
class LostSubmit:
    """A paid POST whose reply never came, as far as its job can be told from others."""

    payload: Mapping[str, Any]
    """As it went over the wire."""
    since: float
    """Unix seconds; a job created earlier is another's."""
    until: float
    """Unix seconds; a job created later is another's."""
    payload_json: str = attrs.field(
        init=False,
        repr=False,
        default=attrs.Factory(lambda self: json.dumps(self.payload, sort_keys=True), takes_self=True),
    )
    """The same for equal payloads."""


@attrs.define(eq=False)
class _Candidate:
    """A row that may be the job of a lost reply."""

    row: Job
    at: float
    """Unix seconds of its creation."""
    possible_posts: list[LostSubmit] = attrs.field(factory=list)
    """Whose it may be, however late it came: of each kind of request the first."""

    def echoes(self, payload: Mapping[str, Any]) -> bool:
        """Whether the row has every key that was sent, with an equal value; its echo may carry more."""
        echo = self.row.payload
        return all(key in echo and echo[key] == value for key, value in payload.items())

    def fits_another_better(self, payload: Mapping[str, Any]) -> bool:
        """Whether a request of another kind may claim it that says as much or more."""
        return any(len(one.payload) >= len(payload) and one.payload != payload for one in self.possible_posts)


def scan_delays(age: float) -> Sequence[float]:
    """Seconds to wait before each lookup, for a loss that is `age` seconds old when the looking begins."""
    ages = [at for at in _AGES if at > age]
    if len(ages) < len(_LATE):
        return _LATE
    return [at - before for before, at in zip([age, *ages[:-1]], ages, strict=True)]


def could_match(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the job of one payload might be taken for that of another: they differ in no key that both have.

    The echo of a payload may carry defaults in the keys that were not sent.
    """
    return all(other[key] == value for key, value in one.items() if key in other)


def match_jobs(
    lost: Sequence[LostSubmit],
    rows: Iterable[Job],
    *,
    others: Sequence[LostSubmit],
    is_claimed: Callable[[str], bool],
) -> dict[int, Job]:
    """Which row is the job of which lost reply, by its index in `lost`; those that cannot be told are left out.

    Equal requests make equal jobs, so it is the number that counts: each unclaimed row must have a reply of its own;
    where one is left over, some are strangers, and none is taken. A row that fits requests of several kinds is left
    to the one that says most, however late it comes for that.

    Args:
        lost: The lost replies.
        rows: What the list shows, at least since `earliest_creation`.
        others: Further lost replies, for which nobody looks now.
        is_claimed: Whether a job is known to be another item's.
    """
    found: dict[int, Job] = {}
    known = [*lost, *others]
    candidates = _find_candidates(known, rows)
    for indexes in _group_equal(lost, others):
        one, until = known[indexes[0]], max(known[index].until for index in indexes)
        fitting = [
            candidate
            for candidate in candidates[one.payload_json]
            if one.since <= candidate.at <= until
            and not is_claimed(candidate.row.request_id)
            and not candidate.fits_another_better(one.payload)
        ]
        if len(_pair_by_time(indexes, known, fitting)) == len(fitting):
            found.update(_pair_by_time([index for index in indexes if index < len(lost)], known, fitting))
    return found


def earliest_creation(lost: Sequence[LostSubmit], others: Sequence[LostSubmit]) -> float:
    """The Unix seconds since when `match_jobs` needs the rows."""
    known = [*lost, *others]
    return min(known[index].since for indexes in _group_equal(lost, others) for index in indexes)


def select_recent(lost: Iterable[LostSubmit], rows: Iterable[Job]) -> list[Job]:
    """The rows that may be the job of one of these replies, or of any that is lost from now on."""
    first = min(one.since for one in lost)
    return [row for row in rows if row.created_at is not None and row.created_at.timestamp() >= first]


def _find_candidates(known: Iterable[LostSubmit], rows: Iterable[Job]) -> defaultdict[str, list[_Candidate]]:
    """The rows that may be the job of each kind of request, oldest first, however late they came.

    Only rows are compared that share the rarest of a request's texts: a thousand requests and their rows would
    make millions of pairs.
    """
    first: dict[str, LostSubmit] = {}
    for one in sorted(known, key=lambda one: one.since):
        first.setdefault(one.payload_json, one)
    sharing: defaultdict[tuple[str, str | None], list[_Candidate]] = defaultdict(list)
    dated = (_Candidate(row, row.created_at.timestamp()) for row in rows if row.created_at is not None)
    for candidate in sorted(dated, key=lambda candidate: candidate.at):
        for trait in _list_traits(candidate.row.payload):
            sharing[trait].append(candidate)
    found: defaultdict[str, list[_Candidate]] = defaultdict(list)
    for payload_json, one in first.items():
        for candidate in min((sharing[trait] for trait in _list_traits(one.payload)), key=len, default=[]):
            if candidate.at >= one.since and candidate.echoes(one.payload):
                candidate.possible_posts.append(one)
                found[payload_json].append(candidate)
    return found


def _list_traits(payload: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """What an echo shares with the payload, whatever it carries besides."""
    return [(key, value if isinstance(value, str) else None) for key, value in payload.items()]


def _group_equal(lost: Sequence[LostSubmit], others: Sequence[LostSubmit]) -> list[list[int]]:
    """The replies that only their number tells apart, by their indexes in both: equal requests at overlapping times.

    Those of the others that are like no lost one are left out.
    """
    known = [*lost, *others]
    last: dict[str, tuple[float, list[int]]] = {}
    groups = []
    for index in sorted(range(len(known)), key=lambda index: known[index].since):
        one = known[index]
        until, group = last.get(one.payload_json, (-math.inf, []))
        if one.since > until:
            group = []
            groups.append(group)
        group.append(index)
        last[one.payload_json] = max(until, one.until), group
    return [group for group in groups if min(group) < len(lost)]


def _pair_by_time(
    group: Sequence[int], lost: Sequence[LostSubmit], rows: Iterable[_Candidate]
) -> dict[int, Job]:
    """Each row, oldest first, for the reply whose time ends first among those that it fits: as many as can be.

    Args:
        group: Places of the replies, by the beginning of their times.
        lost: The replies.
        rows: Those that may be theirs, oldest first.
    """
    found: dict[int, Job] = {}
    waiting: list[tuple[float, int, int]] = []
    coming = deque(enumerate(group))
    for candidate in rows:
        while coming and lost[coming[0][1]].since <= candidate.at:
            order, index = coming.popleft()
            heappush(waiting, (lost[index].until, order, index))
        while waiting and waiting[0][0] < candidate.at:
            heappop(waiting)
        if waiting:
            found[heappop(waiting)[-1]] = candidate.row
    return found
