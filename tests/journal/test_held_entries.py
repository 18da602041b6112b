from __future__ import annotations

import pytest

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.postgres.held_entries import HeldEntries
from kling_async._journal.store import PendingWrites

RAIN = Identity(None, "rain", 0)
ENTRY = Entry(number=1, identity=RAIN, model="m", payload={}, state=EntryState.NOT_SUBMITTED)
INTENT = {
    "number": 1,
    "identity": RAIN,
    "model": "m",
    "payload": {},
    "state": EntryState.INTENDED,
    "attempts": 1,
}


@pytest.fixture
def held():
    held = HeldEntries()
    held.keep(ENTRY, 1)
    return held


@pytest.mark.parametrize(
    "is_reserved, posts, is_written",
    [
        pytest.param(True, set(), False, id="its reservation has ended"),
        pytest.param(True, {1}, True, id="its commit has lost the answer"),
        pytest.param(False, set(), True, id="it costs nothing that is known"),
    ],
)
def test_an_intent_needs_another_permit_if_its_reservation_ended_with_a_session(
    held, is_reserved, posts, is_written
):
    held.mark_allowed(1, is_reserved=is_reserved)
    held.move(2, {1: 2}, posts=posts)
    held.keep(ENTRY, 2)  # as a write of something else does

    after = held.apply(PendingWrites({1: INTENT}))

    assert [entry.state for entry in after.values()] == [EntryState.INTENDED] * is_written
    assert held.is_lost(1) is not is_written


def test_another_permit_is_good_for_an_intent(held):
    held.mark_allowed(1, is_reserved=True)
    held.move(2, {1: 2}, posts=set())
    held.mark_allowed(1, is_reserved=True)

    assert held.apply(PendingWrites({1: INTENT}))


def test_a_reservation_ends_with_its_intent(held):
    held.mark_allowed(1, is_reserved=True)
    held.mark_intended(1)
    held.move(2, {1: 2}, posts=set())

    assert held.apply(PendingWrites({1: INTENT}))
