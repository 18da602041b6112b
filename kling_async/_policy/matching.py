"""Reconciles lost submits: when to scan the service's list, and which of its rows is the job of which submit."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
from typing import Any

import attrs

from kling_async._policy.own_user import OwnUser
from kling_async._policy.service_clock import Instant
from kling_async.jobs import Job, canonical_id

CLOCK_SKEW = 60.0
"""Seconds by which a recorded time can be wrong, also by the service's clock: a service can have several clocks."""
MAX_INTENT_AGE = 5.0
"""Seconds after its recorded time in which a POST can begin; connecting is a part of its timeout.

A process can stand still, and a disk or a database can be slow. A later run searches for the job around this time, and
takes an empty list for the proof that there is none.
"""
_SCAN_AGES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Ages of a lost submit, in seconds, at which the list is scanned: a new job may appear in it late."""
_ANSWER_DELAY = 6.0
"""Seconds for the record of an answer that comes at the last moment."""
_LATE_DELAYS = (0.0, 2.0)
"""The delays before the scans for a submit that is so old that at most one of these ages is left."""


@attrs.frozen(kw_only=True)
class LostSubmit:
    """A paid POST whose answer never came, described by the facts that identify its job."""

    payload: Mapping[str, Any]
    """The payload that was sent."""
    since: float
    """Unix seconds; a job that was created earlier belongs to another submit."""
    until: float
    """Unix seconds; a job that was created later belongs to another submit."""
    has_present_key: bool = True
    """Whether it was sent with the key of this client, and not by an earlier run, which can have had another one."""
    is_service_time: bool = True
    """Whether both times are by the service's clock; else they are by the clock of a machine."""
    may_have_other_clock: bool = False
    """Whether that clock may have been another one, or another process may have found it set: the times prove nothing then."""
    times_set: int = 0
    """`Instant.times_set` before the POST, or when a recorded POST was read."""
    payload_json: str = attrs.field(
        init=False,
        repr=False,
        default=attrs.Factory(lambda self: json.dumps(self.payload, sort_keys=True), takes_self=True),
    )
    """The payload as JSON with sorted keys: equal payloads have equal texts."""

    def by_service_clock(self, offset: float | None) -> LostSubmit:
        """This submit with its times by the service's clock.

        Args:
            offset: Seconds that the service's clock is ahead of the clock of this machine; None is unknown.
        """
        if self.is_service_time or not offset:
            return self
        return attrs.evolve(self, since=self.since + offset, until=self.until + offset, is_service_time=True)

    def age(self, now: Instant) -> float | None:
        """Seconds since the POST; None if the time of the POST and the present time are by two clocks.

        A fresh submit that is taken for an old one is searched for too briefly.
        """
        if self.is_service_time:
            is_known = now.offset is not None
        else:
            is_known = now.times_set == self.times_set and not self.may_have_other_clock
        sent_at = self.by_service_clock(now.offset).since + CLOCK_SKEW
        return max(0.0, now.time - sent_at) if is_known else None


def lost_submit(payload: Mapping[str, Any], *, sent: Instant, given_up: Instant) -> LostSubmit:
    """A POST of this process whose answer was given up.

    Where the clock of this machine was set meanwhile, or the machine slept, the times are found from what was known before
    and from the monotonic clock. The search for the job needs them; a proof of absence needs a clock that was not set.

    Args:
        payload: The payload that was sent.
        sent: Just before the POST.
        given_up: When its answer was given up.
    """
    elapsed = given_up.monotonic - sent.monotonic
    if sent.times_set == given_up.times_set:
        sent_at, given_up_at = sent.wall + (given_up.offset or 0.0), given_up.time
    elif sent.offset is not None:
        sent_at = sent.time
        given_up_at = sent_at + elapsed
        if given_up.offset is not None:  # it was learned after the clock was set
            given_up_at = max(given_up_at, given_up.time)
    else:
        given_up_at = given_up.time
        sent_at = min(sent.wall + (given_up.offset or 0.0), given_up_at - elapsed)
    return LostSubmit(
        payload=payload,
        since=sent_at - CLOCK_SKEW,
        until=given_up_at + CLOCK_SKEW,
        is_service_time=sent.offset is not None or given_up.offset is not None,
        times_set=sent.times_set,
    )


def recorded_submit(
    payload: Mapping[str, Any],
    *,
    sent_at: float,
    timeout: float,
    is_service_time: bool,
    times_set: int,
) -> LostSubmit:
    """A POST of which an earlier process has recorded the intent and no answer.

    Args:
        payload: The payload that was sent.
        sent_at: Unix seconds; the POST began at most `MAX_INTENT_AGE` later.
        timeout: Seconds after which its sender gave the answer up.
        is_service_time: Whether `sent_at` is by the service's clock; else by that of a machine, which can have been set since
            then, or be another machine's.
        times_set: `Instant.times_set` at present.
    """
    return LostSubmit(
        payload=payload,
        since=sent_at - CLOCK_SKEW,
        until=sent_at + MAX_INTENT_AGE + timeout + CLOCK_SKEW,
        has_present_key=False,
        is_service_time=is_service_time,
        may_have_other_clock=not is_service_time,
        times_set=times_set,
    )


def last_answer_age(timeout: float) -> float:
    """Seconds after the recorded time of a POST after which no process waits for its answer any more.

    Args:
        timeout: Seconds after which its sender gives the answer up.
    """
    return MAX_INTENT_AGE + timeout + _ANSWER_DELAY


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


def scan_delays(age: float, *, last_age: float = 0.0) -> Sequence[float]:
    """Seconds to wait before each list scan, for a submit that was lost `age` seconds ago.

    Args:
        age: Seconds since the POST.
        last_age: The age that the last scan waits for, at least: until then another process may still get the answer.
    """
    ages = [scan_age for scan_age in _SCAN_AGES if scan_age > age]
    delays: list[float] = list(_LATE_DELAYS)
    if len(ages) >= len(_LATE_DELAYS):
        delays = [later - earlier for earlier, later in zip([age, *ages[:-1]], ages, strict=True)]
    left = last_age - age - sum(delays)
    return [*delays, left] if left > 0 else delays


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
