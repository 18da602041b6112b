"""The life of an entry as a table: which event leads from which state to which, and what an attempt costs.

Pure: no disk, no clock. `WriteAheadJournal` writes down only what this module allows, so that a mistake of the engine cannot
turn a paid job into an item that looks unpaid. A shared store sets two states by itself, each in the statement that decides:
`not_submitted` for an entry that it makes, and `submitted` for a lost submit that gets a job (`MAKE` and `MATCH_JOB` in
`_journal/postgres/statements.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async.errors import JournalError


class JournalEvent(StrEnum):
    """What happens to an entry. An end has the name of the state that it leads to."""

    INTENT = "intent"
    """A paid POST is about to be sent."""
    NOT_ACCEPTED = "not_accepted"
    """That POST was provably not accepted, or never sent."""
    RESEND_NOT_ACCEPTED = "resend_not_accepted"
    """That POST was provably not accepted, or never sent, and the POST before that one is unknown."""
    ACCEPTED = "accepted"
    """The service has a new job for the entry."""
    RESTORED = "restored"
    """The job of the attempt before one that was not accepted is the last job of the entry again."""
    AMBIGUOUS = "ambiguous"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    NOT_SUBMITTED = "not_submitted"
    DROPPED = "dropped"
    SAVED = "saved"
    """The video is on the disk."""


_OF_A_JOB: Mapping[JournalEvent, EntryState] = {
    JournalEvent.SUCCEEDED: EntryState.SUCCEEDED,
    JournalEvent.FAILED: EntryState.FAILED,
    JournalEvent.CANCELLED: EntryState.CANCELLED,
    JournalEvent.TIMED_OUT: EntryState.TIMED_OUT,
}
_BEFORE_A_POST: Mapping[JournalEvent, EntryState] = {
    JournalEvent.INTENT: EntryState.INTENDED,
    JournalEvent.NOT_SUBMITTED: EntryState.NOT_SUBMITTED,
    JournalEvent.DROPPED: EntryState.DROPPED,
}

TRANSITIONS: Mapping[EntryState | None, Mapping[JournalEvent, EntryState]] = {
    None: {JournalEvent.INTENT: EntryState.INTENDED},
    EntryState.INTENDED: {
        JournalEvent.INTENT: EntryState.INTENDED,
        JournalEvent.NOT_ACCEPTED: EntryState.NOT_SUBMITTED,
        JournalEvent.RESEND_NOT_ACCEPTED: EntryState.AMBIGUOUS,
        JournalEvent.ACCEPTED: EntryState.SUBMITTED,
        JournalEvent.AMBIGUOUS: EntryState.AMBIGUOUS,
    },
    EntryState.AMBIGUOUS: {
        JournalEvent.INTENT: EntryState.INTENDED,
        JournalEvent.ACCEPTED: EntryState.SUBMITTED,
        JournalEvent.AMBIGUOUS: EntryState.AMBIGUOUS,
    },
    EntryState.NOT_SUBMITTED: {**_BEFORE_A_POST, JournalEvent.RESTORED: EntryState.SUBMITTED},
    EntryState.DROPPED: _BEFORE_A_POST,
    EntryState.SUBMITTED: {JournalEvent.INTENT: EntryState.INTENDED, **_OF_A_JOB},
    EntryState.SUCCEEDED: {JournalEvent.SAVED: EntryState.SUCCEEDED, **_OF_A_JOB},
    EntryState.FAILED: {JournalEvent.INTENT: EntryState.INTENDED, **_OF_A_JOB},
    EntryState.CANCELLED: {JournalEvent.INTENT: EntryState.INTENDED, **_OF_A_JOB},
    EntryState.TIMED_OUT: {JournalEvent.INTENT: EntryState.INTENDED, **_OF_A_JOB},
}
"""From each state, None for an item without an entry, the state that each event leads to; all else is a mistake.

A success is never bought again. A POST that is unknown is never recorded as not accepted. A job is never replaced but by a new
intent, which keeps the old one among the earlier attempts.
"""

UNKNOWN_STATES = frozenset({EntryState.INTENDED, EntryState.AMBIGUOUS})
"""A POST may have been accepted, and the entry has no job."""
UNKNOWN_STATES_IN_SQL = "(" + ", ".join(f"'{state}'" for state in sorted(UNKNOWN_STATES)) + ")"
OPEN_STATES = UNKNOWN_STATES | {EntryState.SUBMITTED}
"""The states that an entry has while something of it is under way."""
UNPRICED_IN_SQL = "attempts > 0 AND cost_usd IS NULL"
"""The condition of `Entry.is_unpriced`."""
_UNSENT_STATES = frozenset({EntryState.NOT_SUBMITTED, EntryState.DROPPED})


def next_state(state: EntryState | None, event: JournalEvent, *, number: int) -> EntryState:
    """The state that an event leads to.

    Args:
        state: The state of the entry; None if there is no entry yet.
        event: What happens to it.
        number: The number of the entry, for the error.

    Raises:
        JournalError: No entry in this state can meet this event. Nothing is to be written then.
    """
    after = TRANSITIONS[state].get(event)
    if after is None:
        raise JournalError(
            f"The journal cannot record {event.value!r} for entry {number}, which is {state or 'not there'}. Nothing was "
            "written. This is a mistake of kling_async: please report it with the log of this run."
        )
    return after


def is_unknown(entry: Entry) -> bool:
    """Whether the last POST of the entry may have been accepted without a known job."""
    return entry.state in UNKNOWN_STATES and entry.request_id is None


def is_attempt(entry: Entry) -> bool:
    """Whether the last POST of the entry was, or may have been, accepted, so that a new intent must keep it."""
    return entry.state not in _UNSENT_STATES or entry.request_id is not None


def begin_attempt(
    before: Entry | None,
    *,
    number: int,
    index: int,
    identity: Identity,
    model: str,
    payload: Mapping[str, Any],
    at: float,
    has_service_time: bool,
    timeout: float | None,
    cost_usd: Decimal | None,
) -> dict[str, Any]:
    """All fields of an entry but its state, at an intent: no job yet, one attempt more, and its cost added; see `price_posts`.

    Args:
        before: The entry as it is; None if there is none yet.
        number: Its number.
        index: The item's index in its batch.
        identity: What matches the item across runs.
        model: The model's id.
        payload: The parameters as they are sent.
        at: Unix seconds.
        has_service_time: Whether they are by the service's clock.
        timeout: Seconds after which the answer is given up; None is unknown.
        cost_usd: What the POST will cost; None is unknown.
    """
    posts = 0 if before is None else before.attempts
    earlier_usd, cost_usd = price_posts(posts, None if before is None else before.cost_usd, cost_usd)
    return {
        "number": number,
        "index": index,
        "identity": identity,
        "model": model,
        "payload": payload,
        "sent_at": at,
        "has_service_time": has_service_time,
        "timeout": timeout,
        "request_id": None,
        "record": None,
        "error": None,
        "path": None,
        "size_bytes": None,
        "sha256": None,
        "cost_usd": None if earlier_usd is None or cost_usd is None else earlier_usd + cost_usd,
        "attempt_cost_usd": cost_usd,
        "attempts": posts + 1,
    }


def price_posts(
    posts: int, earlier_usd: Decimal | None, price: Decimal | None
) -> tuple[Decimal | None, Decimal | None]:
    """What the earlier POSTs of an item cost together, and what its next one costs; None is unknown.

    All POSTs of an item ask for the same video. So one whose price no run knew costs what the others do: with a price for
    some of them alone, it would be free.

    Args:
        posts: How many earlier POSTs were, or may have been, accepted.
        earlier_usd: What they cost, by the journal.
        price: What the next one costs, by the prices of this run.
    """
    if earlier_usd is None:
        return (None if price is None else price * posts), price
    return earlier_usd, earlier_usd / posts if price is None and posts else price


def take_back_attempt(entry: Entry, *, error: str, unknown: Entry | None) -> dict[str, Any]:
    """The fields that change when the last POST of an entry was not accepted: one attempt less, and its cost taken back.

    Args:
        entry: The entry as it is, intended.
        error: Why, in one line.
        unknown: The entry as it was before the last intent, where that POST is unknown.
    """
    change: dict[str, Any] = {"error": error, "attempts": entry.attempts - 1, "attempt_cost_usd": None}
    if entry.attempt_cost_usd is not None and entry.cost_usd is not None:
        # Nothing left is unknown again, not free.
        change["cost_usd"] = (entry.cost_usd - entry.attempt_cost_usd) or None
    if unknown is not None:
        change.update(
            sent_at=unknown.sent_at,
            has_service_time=unknown.has_service_time,
            timeout=unknown.timeout,
            error=unknown.error or error,
        )
    return change
