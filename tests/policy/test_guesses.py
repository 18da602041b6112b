from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.guesses import guess

HOME = math.log(200.0)


def share_done(guesses, age):
    return 1 - guesses.survival(math.log(age))


def test_before_anything_is_seen_the_expected_run_time_is_the_middle():
    assert share_done(guess([], home=HOME), 200.0) == pytest.approx(0.5, abs=0.1)


def test_jobs_a_hundred_times_quicker_are_held_possible():
    assert share_done(guess([], home=HOME), 2.0) > 1e-4


def test_many_unfinished_jobs_make_one_of_them_unlikely_to_be_done():
    alone = guess([(math.log(100.0), 1.0)], home=HOME)
    crowd = guess([(math.log(100.0), 200.0)], home=HOME)
    assert share_done(crowd, 110.0) < 0.02 < share_done(alone, 110.0)


@given(st.floats(0.05, 1e5), st.integers(1, 100_000))
def test_unfinished_jobs_never_make_an_early_end_likelier(age, count):
    before = guess([], home=HOME)
    after = guess([(math.log(age), float(count))], home=HOME)
    assert sum(after.weights) == pytest.approx(1.0)
    if age < 1000:
        for part in (0.1, 0.3, 0.6, 1.0):
            assert share_done(after, part * age) <= share_done(before, part * age) + 1e-9
