from __future__ import annotations

from decimal import Decimal

import pytest

from kling_async import JournalError
from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.transitions import (
    OPEN_STATES,
    TRANSITIONS,
    UNKNOWN_STATES,
    JournalEvent,
    begin_attempt,
    is_attempt,
    is_unknown,
    next_state,
    price_posts,
    take_back_attempt,
)

IDENTITY = Identity(None, "f", 0)
STATES = [None, *EntryState]
ENDS_OF_A_JOB = "succeeded failed cancelled timed_out"
ALLOWED = {
    None: "intent",
    "intended": "intent not_accepted resend_not_accepted accepted ambiguous",
    "ambiguous": "intent accepted ambiguous",
    "not_submitted": "intent restored not_submitted dropped",
    "dropped": "intent not_submitted dropped",
    "submitted": f"intent {ENDS_OF_A_JOB}",
    "succeeded": f"saved {ENDS_OF_A_JOB}",
    "failed": f"intent {ENDS_OF_A_JOB}",
    "cancelled": f"intent {ENDS_OF_A_JOB}",
    "timed_out": f"intent {ENDS_OF_A_JOB}",
}
LEADS_TO = {
    "intent": "intended",
    "not_accepted": "not_submitted",
    "resend_not_accepted": "ambiguous",
    "accepted": "submitted",
    "restored": "submitted",
    "saved": "succeeded",
}
"""The other events have the name of the state that they lead to."""
WITH_A_JOB = {"submitted", "succeeded", "failed", "cancelled", "timed_out"}


def entry(state=EntryState.INTENDED, **fields):
    return Entry(number=3, identity=IDENTITY, model="m", payload={}, state=state, **fields)


# States


@pytest.mark.parametrize("event", JournalEvent, ids=str)
@pytest.mark.parametrize("state", STATES, ids=str)
def test_each_state_allows_its_events_and_refuses_all_others(state, event):
    if event in ALLOWED[state].split():
        assert next_state(state, event, number=3) == LEADS_TO.get(event, event)
    else:
        with pytest.raises(
            JournalError, match=rf"cannot record '{event}' for entry 3, .*[Nn]othing was\s+written"
        ):
            next_state(state, event, number=3)


def test_every_state_is_in_the_table_and_can_be_reached():
    assert set(TRANSITIONS) == set(STATES)
    reached = {after for events in TRANSITIONS.values() for after in events.values()}
    assert reached == set(EntryState)


def test_a_success_is_never_bought_again():
    assert JournalEvent.INTENT not in TRANSITIONS[EntryState.SUCCEEDED]


@pytest.mark.parametrize("state", STATES, ids=str)
def test_only_an_intended_post_can_end_without_being_accepted(state):
    ends = {JournalEvent.NOT_ACCEPTED, JournalEvent.RESEND_NOT_ACCEPTED} & set(TRANSITIONS[state])
    assert bool(ends) == (state == EntryState.INTENDED)


@pytest.mark.parametrize("state", sorted(WITH_A_JOB))
def test_a_job_is_never_replaced_or_forgotten(state):
    after = {
        str(each) for event, each in TRANSITIONS[EntryState(state)].items() if event != JournalEvent.INTENT
    }
    assert after <= WITH_A_JOB - {"submitted"}


def test_a_post_of_unknown_fate_leaves_its_state_only_by_an_answer_or_a_new_intent():
    assert set(TRANSITIONS[EntryState.AMBIGUOUS].values()) == {
        EntryState.INTENDED,
        EntryState.SUBMITTED,
        EntryState.AMBIGUOUS,
    }


def test_open_states_are_those_that_wait_for_the_service():
    assert {"intended", "ambiguous"} == UNKNOWN_STATES
    assert {"intended", "ambiguous", "submitted"} == OPEN_STATES


# What a new attempt keeps


@pytest.mark.parametrize("state", EntryState, ids=str)
def test_an_entry_without_a_job_is_unknown_where_its_post_may_have_been_accepted(state):
    assert is_unknown(entry(state)) == (state in {"intended", "ambiguous"})
    assert not is_unknown(entry(state, request_id="r-1"))


@pytest.mark.parametrize("state", EntryState, ids=str)
def test_an_entry_whose_post_was_never_accepted_is_no_attempt(state):
    assert is_attempt(entry(state)) == (state not in {"not_submitted", "dropped"})
    assert is_attempt(entry(state, request_id="r-1"))


# Attempts and their cost


def begun(before, *, cost_usd):
    return begin_attempt(
        before,
        number=3,
        index=8,
        identity=IDENTITY,
        model="m",
        payload={"x": 1},
        at=9.0,
        has_service_time=True,
        timeout=60.0,
        cost_usd=cost_usd,
    )


def test_an_intent_sets_every_field_but_the_state():
    change = begun(None, cost_usd=Decimal(1))

    whole = Entry(**change, state=EntryState.INTENDED)
    assert (whole.number, whole.identity, whole.payload, whole.sent_at) == (3, IDENTITY, {"x": 1}, 9.0)
    assert (whole.attempts, whole.cost_usd, whole.attempt_cost_usd) == (1, Decimal(1), Decimal(1))


def test_a_second_attempt_starts_without_the_job_of_the_first():
    before = entry(
        EntryState.FAILED,
        request_id="r-1",
        record={},
        error="no",
        path="x",
        size_bytes=1,
        sha256="ab",
        cost_usd=Decimal(1),
        attempts=1,
    )

    change = begun(before, cost_usd=Decimal(2))

    gone = ("request_id", "record", "error", "path", "size_bytes", "sha256")
    assert [change[name] for name in gone] == [None] * len(gone)
    assert (change["attempts"], change["cost_usd"], change["attempt_cost_usd"]) == (2, Decimal(3), Decimal(2))


@pytest.mark.parametrize(
    "posts, earlier, price, costs",
    [
        (0, None, None, (None, None)),
        (0, None, Decimal(2), (Decimal(0), Decimal(2))),
        (0, Decimal(6), None, (Decimal(6), None)),  # another program has changed the row
        (3, None, None, (None, None)),
        (3, None, Decimal(2), (Decimal(6), Decimal(2))),
        (3, Decimal(6), None, (Decimal(6), Decimal(2))),
        (3, Decimal(6), Decimal(1), (Decimal(6), Decimal(1))),
    ],
)
def test_a_post_without_a_price_costs_what_the_others_of_its_item_do(posts, earlier, price, costs):
    assert price_posts(posts, earlier, price) == costs

    before = entry(EntryState.FAILED, request_id="r-1", cost_usd=earlier, attempts=posts)
    after = Entry(**begun(before, cost_usd=price), state=EntryState.INTENDED)
    assert after.cost_usd == (None if None in costs else sum(costs))
    assert after.is_unpriced == (None in costs)


@pytest.mark.parametrize("cost", [None, Decimal(2)])
def test_an_attempt_that_is_not_accepted_leaves_what_was_there_before_it(cost):
    first = entry(EntryState.FAILED, request_id="r-1", cost_usd=Decimal(1), attempts=1)
    second = Entry(**begun(first, cost_usd=cost), state=EntryState.INTENDED)

    change = take_back_attempt(second, error="refused", unknown=None)

    assert (change["attempts"], change["attempt_cost_usd"], change["error"]) == (1, None, "refused")
    assert change["cost_usd"] == Decimal(1)
    assert "sent_at" not in change


@pytest.mark.parametrize("error, shown", [("lost", "lost"), (None, "refused")])
def test_a_resend_that_is_not_accepted_shows_the_unknown_post_before_it(error, shown):
    unknown = entry(EntryState.AMBIGUOUS, sent_at=5.0, timeout=300.0, error=error, attempts=1)
    second = Entry(**begun(unknown, cost_usd=None), state=EntryState.INTENDED)

    change = take_back_attempt(second, error="refused", unknown=unknown)

    assert (change["sent_at"], change["error"], change["attempts"]) == (5.0, shown, 1)
    assert (change["has_service_time"], change["timeout"]) == (False, 300.0)
