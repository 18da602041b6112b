from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kling_async._journal.sieve import Sieve


@given(st.sets(st.text(), max_size=20))
def test_what_was_added_may_be_there(values):
    sieve = Sieve()
    for value in values:
        sieve.add(value)

    assert all(sieve.may_hold(value) for value in values)


def test_nearly_nothing_else_is():
    sieve = Sieve()
    for number in range(10_000):
        sieve.add(("here", number))

    wrong = sum(sieve.may_hold(("elsewhere", number)) for number in range(10_000))
    assert wrong < 100
