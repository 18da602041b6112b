from __future__ import annotations

from decimal import Decimal

import pytest

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.store import PendingWrites, apply_change

RAIN = Identity(None, "rain", 0)
SNOW = Identity(None, "snow", 0)
WHOLE = {
    "number": 1,
    "identity": RAIN,
    "model": "m",
    "payload": {},
    "state": EntryState.INTENDED,
    "cost_usd": Decimal(1),
}


def test_of_two_changes_the_later_value_of_each_field_counts():
    first = PendingWrites({1: {"state": "a", "error": "old"}, 2: {"error": "x"}}, {RAIN: 1})
    second = PendingWrites({1: {"error": "new"}, 3: {"path": "y"}}, {SNOW: 3})

    both = first.merge(second)

    assert both.fields == {1: {"state": "a", "error": "new"}, 2: {"error": "x"}, 3: {"path": "y"}}
    assert both.numbers == {RAIN: 1, SNOW: 3}
    assert first.fields[1] == {"state": "a", "error": "old"}


def test_earlier_attempts_of_both_changes_are_kept():
    one, other = Entry(**WHOLE), Entry(**{**WHOLE, "number": 2})

    assert PendingWrites(earlier=[one]).merge(PendingWrites(earlier=[other])).earlier == [one, other]


def test_a_change_of_all_fields_makes_an_entry():
    assert apply_change(None, WHOLE) == Entry(**WHOLE)


def test_a_change_of_some_fields_keeps_the_others():
    entry = apply_change(Entry(**WHOLE), {"state": EntryState.FAILED})
    assert entry == Entry(**{**WHOLE, "state": EntryState.FAILED})


def test_the_first_change_of_an_entry_must_be_its_intent():
    with pytest.raises(AssertionError, match="is its intent"):
        apply_change(None, {"state": EntryState.FAILED})
