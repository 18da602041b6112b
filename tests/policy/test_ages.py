from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.ages import BINS, EDGES, LOG_EDGES, LOG_MIDDLES, WIDTHS, bin_of, read


@given(st.floats(0.0, EDGES[-1], exclude_max=True))
def test_an_age_lies_between_the_edges_of_its_bin(age):
    i = bin_of(age)
    assert EDGES[i] * (1 - 1e-12) <= age <= EDGES[i + 1] * (1 + 1e-12)


@pytest.mark.parametrize("age", [0.0, -1.0, -math.inf, math.nan])
def test_what_is_no_age_stands_at_the_beginning(age):
    assert bin_of(age) == 0
    assert read(range(1, BINS + 2), age) == 1


@pytest.mark.parametrize("age", [EDGES[-1], 1e9, 1e300, math.inf])
def test_the_last_bin_takes_all_that_is_older(age):
    assert bin_of(age) == BINS - 1


def test_bins_grow_with_age_and_leave_no_gap():
    assert all(math.isclose(EDGES[i] + WIDTHS[i], EDGES[i + 1]) for i in range(BINS))
    assert list(WIDTHS[1:]) == sorted(WIDTHS[1:])
    assert all(LOG_EDGES[i] < LOG_MIDDLES[i] < LOG_EDGES[i + 1] for i in range(BINS))


@given(st.floats(0.0, 1e7))
def test_a_value_read_lies_between_those_of_the_edges(age):
    i = bin_of(age)
    assert EDGES[i] * (1 - 1e-9) <= read(EDGES, age) <= EDGES[i + 1] * (1 + 1e-9)
