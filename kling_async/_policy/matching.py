"""Decides which row of the service's list is the job of which lost submit."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
from typing import Any

import attrs

from kling_async._policy.lost_submit import LostSubmit
from kling_async._policy.own_user import OwnUser
from kling_async.jobs import Job, canonical_id


@attrs.define(eq=False)
class _Candidate:
    """A row of the list that can be the job of a lost submit."""

    row: Job
    created_at: float
    """Unix seconds."""
    possible_posts: list[LostSubmit] = attrs.field(factory=list)
    """The lost submits that it can belong to if `until` is ignored: the first one of each payload."""

    def echoes(self, payload: Mapping[str, Any]) -> bool:
        """Whether the row has every key that was sent, with an equal value; the row may have more keys."""
        echo = self.row.payload
        return all(key in echo and echo[key] == value for key, value in payload.items())

    def fits_another_better(self, payload: Mapping[str, Any]) -> bool:
        """Whether it can belong to a submit with another payload of as many keys or more."""
        return any(len(one.payload) >= len(payload) and one.payload != payload for one in self.possible_posts)


def could_match(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the job of one payload could match the other payload: they differ in no key that both have.

    The service may fill the keys that were not sent with defaults.
    """
    return all(other[key] == value for key, value in one.items() if key in other)


def look_alike_group(payload: Mapping[str, Any]) -> str | None:
    """A text that two payloads of one model share if `could_match` holds for them; None shares with each.

    A store can compare these texts. Payloads that differ in another key than the prompt share a text too, so a look-alike
    may wait in vain for a while.
    """
    prompt = payload.get("prompt")
    if not isinstance(prompt, str):
        return None
    return hashlib.sha256(prompt.encode(errors="surrogatepass")).hexdigest()


def match_jobs(
    lost: Sequence[LostSubmit],
    rows: Iterable[Job],
    *,
    others: Sequence[LostSubmit],
    owned: AbstractSet[str],
    own: OwnUser,
) -> dict[int, Job]:
    """The jobs of lost submits, by the submit's index in `lost`; a submit without a certain job is left out.

    Equal payloads make equal jobs, so the jobs are matched by count: each row without an owner needs a lost submit of
    its own. If there are more rows than submits, some rows are jobs without an owner, and no row is matched. A row that
    fits several payloads goes only to the payload with the most keys, even if the row is too late for that submit.

    A row of another user is the job of no submit. Where the user of the key is not known, rows of several users match
    none.

    Args:
        lost: The lost submits.
        rows: The rows of the list, at least those created since `earliest_creation`.
        others: Further lost submits, which are not reconciled now but can be the owners of rows.
        owned: The canonical ids of the jobs that belong to other items; those of `select_candidates` are enough.
        own: The user of the key.
    """
    found: dict[int, Job] = {}
    known = [*lost, *others]
    candidates = _find_candidates(known, (row for row in rows if not own.is_other(row)))
    for indexes in _group_equal(lost, others):
        one, until = known[indexes[0]], max(known[index].until for index in indexes)
        fitting = [
            candidate
            for candidate in candidates[one.payload_json]
            if one.since <= candidate.created_at <= until
            and canonical_id(candidate.row.request_id) not in owned
            and not candidate.fits_another_better(one.payload)
        ]
        is_mixed = own.may_be_mixed(candidate.row for candidate in fitting)
        if not is_mixed and len(_pair_by_time(indexes, known, fitting)) == len(fitting):
            found.update(_pair_by_time([index for index in indexes if index < len(lost)], known, fitting))
    return found


def select_candidates(
    lost: Sequence[LostSubmit], rows: Iterable[Job], *, others: Sequence[LostSubmit]
) -> set[str]:
    """The canonical ids of the rows that `match_jobs` can give to a lost submit, unless the job has an owner."""
    candidates = _find_candidates([*lost, *others], rows)
    return {canonical_id(candidate.row.request_id) for group in candidates.values() for candidate in group}


def earliest_creation(lost: Sequence[LostSubmit], others: Sequence[LostSubmit]) -> float:
    """The Unix seconds since which `match_jobs` needs the rows."""
    known = [*lost, *others]
    return min(known[index].since for indexes in _group_equal(lost, others) for index in indexes)


def select_recent(lost: Iterable[LostSubmit], rows: Iterable[Job]) -> list[Job]:
    """The rows that can be the job of one of these submits, or of a submit that is lost later."""
    first = min(one.since for one in lost)
    return [row for row in rows if row.created_at is not None and row.created_at.timestamp() >= first]


def _find_candidates(known: Iterable[LostSubmit], rows: Iterable[Job]) -> defaultdict[str, list[_Candidate]]:
    """By `payload_json`, the rows that can be a job of that payload if `until` is ignored, oldest first.

    A payload is compared only with the rows that share its rarest text. To compare a thousand payloads with all their
    rows would take a million comparisons.
    """
    first: dict[str, LostSubmit] = {}
    for one in sorted(known, key=lambda one: one.since):
        first.setdefault(one.payload_json, one)
    sharing: defaultdict[tuple[str, str | None], list[_Candidate]] = defaultdict(list)
    dated = (_Candidate(row, row.created_at.timestamp()) for row in rows if row.created_at is not None)
    for candidate in sorted(dated, key=lambda candidate: candidate.created_at):
        for trait in _list_traits(candidate.row.payload):
            sharing[trait].append(candidate)
    found: defaultdict[str, list[_Candidate]] = defaultdict(list)
    for payload_json, one in first.items():
        for candidate in min((sharing[trait] for trait in _list_traits(one.payload)), key=len, default=[]):
            if candidate.created_at >= one.since and candidate.echoes(one.payload):
                candidate.possible_posts.append(one)
                found[payload_json].append(candidate)
    return found


def _list_traits(payload: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """The pairs that a row has in common with the payload that was sent, even if the row has more keys."""
    return [(key, value if isinstance(value, str) else None) for key, value in payload.items()]


def _group_equal(lost: Sequence[LostSubmit], others: Sequence[LostSubmit]) -> list[list[int]]:
    """Groups of submits whose jobs only their count tells apart: equal payloads at overlapping times.

    The submits are given by their indexes in `[*lost, *others]`. Groups without a submit of `lost` are left out.
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
    """By index, the row of each submit: as many pairs as the submits' times allow.

    Each row, the oldest first, goes to the submit whose time ends first among those that the row fits.

    Args:
        group: Indexes in `lost`, in the order of `since`.
        lost: The submits.
        rows: The rows that can be their jobs, oldest first.
    """
    found: dict[int, Job] = {}
    open_submits: list[tuple[float, int, int]] = []
    not_started = deque(enumerate(group))
    for candidate in rows:
        while not_started and lost[not_started[0][1]].since <= candidate.created_at:
            order, index = not_started.popleft()
            heappush(open_submits, (lost[index].until, order, index))
        while open_submits and open_submits[0][0] < candidate.created_at:
            heappop(open_submits)
        if open_submits:
            found[heappop(open_submits)[-1]] = candidate.row
    return found
