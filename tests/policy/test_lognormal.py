from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._policy.lognormal import LogNormal, fit, upper_tail, with_strays

HOME = math.log(200.0)
places = st.floats(math.log(0.05), math.log(1e5))
tallies = st.lists(st.tuples(places, st.integers(1, 1000).map(float)), max_size=12)


def drawn(median, sigma, count, seed=1):
    dice = random.Random(seed)  # noqa: S311 - samples, no secret
    return [(math.log(median) + dice.gauss(0, sigma), 1.0) for _ in range(count)]


@pytest.mark.parametrize("median, sigma", [(120.0, 0.2), (60.0, 0.35), (90.0, 0.6), (2.0, 0.35)])
def test_finished_jobs_tell_the_law_they_came_from(median, sigma):
    law = fit(drawn(median, sigma, 400), [], home=HOME)
    assert math.exp(law.centre) == pytest.approx(median, rel=0.08)
    assert law.spread == pytest.approx(sigma, rel=0.15)


def test_jobs_cut_off_unfinished_are_not_taken_for_quick_ones():
    samples = drawn(60.0, 0.35, 400)
    cut = math.log(50.0)
    ended = [sample for sample in samples if sample[0] < cut]
    unfinished = [(cut, float(len(samples) - len(ended)))]
    naive = fit(ended, [], home=HOME)
    law = fit(ended, unfinished, home=HOME)
    assert math.exp(naive.centre) < 50.0
    assert math.exp(law.centre) == pytest.approx(60.0, rel=0.1)


def test_a_job_stuck_for_ever_does_not_stretch_the_law():
    ended = drawn(60.0, 0.35, 99)
    without = fit(ended, [], home=HOME)
    with_stuck = fit(ended, [(math.log(3600.0), 2.0)], home=HOME)
    assert with_stuck.spread == pytest.approx(without.spread, rel=0.1)
    assert with_stuck.centre == pytest.approx(without.centre, abs=0.05)


def test_a_handful_of_jobs_overrules_what_was_expected():
    law = fit(drawn(3.0, 0.2, 5), [], home=HOME)
    assert math.exp(law.centre) == pytest.approx(3.0, rel=0.3)


def test_doubt_falls_as_jobs_finish():
    doubts = [fit(drawn(60.0, 0.35, count), [], home=HOME).doubt for count in (1, 10, 100, 1000)]
    assert doubts == sorted(doubts, reverse=True)
    assert doubts[-1] < 0.02


def test_a_search_that_starts_in_the_wrong_place_is_begun_anew():
    far = LogNormal(math.log(5000.0), 0.2, 0.1)
    law = fit(drawn(3.0, 0.2, 20), [], home=HOME, near=far)
    assert math.exp(law.centre) == pytest.approx(3.0, rel=0.2)


def test_a_search_keeps_to_where_it_started_when_the_rest_are_strays():
    ended = drawn(60.0, 0.3, 50)
    near = fit(ended, [], home=HOME)
    strays = [(math.log(0.1), 1.0)]
    law = fit([*ended, *strays], [], home=HOME, near=near)
    assert law.centre == pytest.approx(near.centre, abs=0.05)
    assert law.spread == pytest.approx(near.spread, rel=0.15)


def test_equal_run_times_do_not_shrink_the_spread_to_nothing():
    law = fit([(math.log(60.0), 500.0)], [], home=HOME)
    assert 0.03 <= law.spread < 0.1


@given(tallies.filter(bool), tallies)
def test_any_history_gives_a_law_that_makes_sense(ended, unfinished):
    law = fit(ended, unfinished, home=HOME)
    again = fit(ended, unfinished, home=HOME, near=law)
    for one in (law, again):
        assert all(map(math.isfinite, (one.centre, one.spread, one.doubt)))
        assert one.spread >= 0.03
        assert one.doubt > 0


@given(places, places, st.floats(0.03, 3.0), st.floats(0.0, 3.0))
def test_fewer_jobs_survive_to_a_greater_age(one, other, spread, doubt):
    law = LogNormal(4.0, spread, doubt)
    young, old = sorted((one, other))
    assert 1 >= law.survival(young) >= law.survival(old) >= 0


def test_half_survive_to_the_median():
    assert LogNormal(4.0, 0.3, 0.1).survival(4.0) == pytest.approx(0.5)
    assert upper_tail(0.0) == 0.5


@given(st.floats(0, 1), st.floats(-1e3, 1e3))
def test_strays_leave_some_jobs_alive_at_any_age(survival, log_age):
    share = with_strays(survival, log_age, home=HOME)
    assert 0 < share <= 1 + 1e-9
