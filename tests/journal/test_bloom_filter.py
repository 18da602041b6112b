from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kling_async._journal.bloom_filter import BloomFilter


@given(st.sets(st.text(), max_size=20))
def test_added_values_may_be_contained(values):
    filter_ = BloomFilter()
    for value in values:
        filter_.add(value)

    assert all(filter_.may_contain(value) for value in values)


def test_few_other_values_may_be_contained():
    filter_ = BloomFilter()
    for number in range(10_000):
        filter_.add(f"here {number}")

    wrong = sum(filter_.may_contain(f"elsewhere {number}") for number in range(10_000))
    assert wrong < 100
