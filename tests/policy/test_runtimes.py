from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_async._policy.ages import BINS, EDGES, WIDTHS
from kling_async._policy.runtimes import RunTimes

ages = st.floats(0.0, 1e6)


def tell(times, before, age, **how):
    """A job that was last seen unfinished at one age, and final at the next."""
    times.began()
    times.seen(before, before=0.0)
    times.finished(age, before=before, **how)


def taught(run_times, *, expected=200.0, width=0.5):
    """What is learned from jobs that were asked about every `width` seconds."""
    times = RunTimes(expected=expected)
    for run in run_times:
        tell(times, math.floor(run / width) * width, math.ceil(run / width) * width)
    times.learn()
    return times


def log_normal(median, sigma, count, seed=1):
    dice = random.Random(seed)  # noqa: S311 - samples, no secret
    return [median * math.exp(dice.gauss(0, sigma)) for _ in range(count)]


def share_done(times, age):
    return 1 - math.exp(
        -sum(h * w for h, w, edge in zip(times.hazards, WIDTHS, EDGES, strict=False) if edge < age)
    )


def test_the_share_that_is_done_by_an_age_is_that_of_the_samples():
    runs = log_normal(60.0, 0.35, 1000)
    times = taught(runs)
    for age in (40.0, 60.0, 90.0):
        seen = sum(run < age for run in runs) / len(runs)
        assert share_done(times, age) == pytest.approx(seen, abs=0.06)


def test_two_speeds_are_both_learned():
    times = taught([*log_normal(30.0, 0.1, 500), *log_normal(180.0, 0.1, 500, seed=2)])
    assert times.hazard(30.0) > 3 * times.hazard(80.0)
    assert times.hazard(180.0) > 3 * times.hazard(80.0)


def test_an_exact_time_is_better_than_the_moments_of_two_polls():
    vague, exact = RunTimes(expected=60.0), RunTimes(expected=60.0)
    for times, told in ((vague, None), (exact, 21.0)):
        for _ in range(50):
            tell(times, 0.0, 60.0, exact=told)
        times.learn()
    assert exact.hazard(21.0) > vague.hazard(21.0)


def test_a_job_that_was_not_done_at_the_last_look_ended_after_it():
    times = RunTimes(expected=200.0)
    for _ in range(100):
        tell(times, 90.0, 100.0)
    times.learn()
    assert share_done(times, 80.0) < 0.05
    assert share_done(times, 110.0) > 0.9


def test_refused_jobs_say_nothing_of_how_long_others_run():
    times = taught(log_normal(60.0, 0.35, 200))
    median = share_done(times, 60.0)
    for _ in range(20):
        tell(times, 0.5, 1.0, success=False)
    times.learn()
    assert share_done(times, 60.0) == pytest.approx(median, abs=0.12)
    assert times.samples == 200


def test_but_refusals_are_expected_at_the_age_they_come():
    times = taught(log_normal(60.0, 0.35, 200))
    before = times.hazard(1.0)
    for _ in range(200):
        tell(times, 0.9, 1.1, success=False)
    times.learn()
    assert times.hazard(1.0) > 3 * before


def test_jobs_given_up_were_not_done():
    kept, dropped = taught(log_normal(60.0, 0.35, 30)), taught(log_normal(60.0, 0.35, 30))
    for _ in range(30):
        dropped.began()
        dropped.seen(120.0, before=0.0)
        dropped.gave_up(before=120.0)
    dropped.learn()
    assert share_done(dropped, 100.0) < share_done(kept, 100.0)
    assert sum(dropped.unfinished) == 0


def test_a_service_that_becomes_slower_is_believed():
    times = taught(log_normal(20.0, 0.2, 1990))
    for run in log_normal(80.0, 0.2, 6000, seed=2):
        tell(times, run - 0.2, run + 0.2)
    times.learn()
    assert times.samples < 2000
    assert share_done(times, 60.0) < 0.3


def test_news_is_when_finished_jobs_have_grown_by_a_third():
    times = taught(log_normal(60.0, 0.35, 99))
    assert not times.has_news
    for count in range(100, 140):
        tell(times, 59.0, 60.0)
        assert times.has_news == (count > 1.3 * 99)


@pytest.mark.parametrize("what", ["began", "seen", "finished", "gave_up"])
def test_whatever_is_told_is_a_change_until_it_is_learned(what):
    times = RunTimes(expected=60.0)
    times.began()
    times.learn()
    assert not times.has_changed
    tell_it = {
        "began": times.began,
        "seen": lambda: times.seen(1.0, before=0.0),
        "finished": lambda: times.finished(1.0, before=0.0),
        "gave_up": lambda: times.gave_up(before=0.0),
    }
    tell_it[what]()
    assert times.has_changed


def test_the_census_holds_every_unfinished_job_once():
    times = RunTimes(expected=60.0)
    for age in range(100):
        times.began()
        times.seen(float(age), before=0.0)
    assert sum(times.unfinished) == 100


def test_old_age_makes_no_job_likelier_to_end_soon():
    times = taught(log_normal(60.0, 0.35, 500))
    assert times.hazard(3600.0) < times.hazard(90.0) / 10
    assert times.hazard(1e9) < times.hazard(3600.0)


events = st.lists(
    st.tuples(st.sampled_from(["alive", "done", "failed", "gone", "learn"]), ages, ages), max_size=30
)


@settings(max_examples=40)
@given(events, st.floats(0.1, 5000.0))
def test_the_hazard_is_finite_and_never_negative_whatever_happened(history, expected):
    times = RunTimes(expected=expected)
    for what, one, other in history:
        before, age = sorted((one, other))
        if what == "learn":
            times.learn()
            continue
        times.began()
        times.seen(before, before=0.0)
        if what == "gone":
            times.gave_up(before=before)
        elif what != "alive":
            times.finished(age, before=before, success=what == "done")
    times.learn()
    assert len(times.hazards) == BINS
    assert all(math.isfinite(hazard) and hazard >= 0 for hazard in times.hazards)
    assert all(times.hazard(age) >= 0 for age in (0.0, 1e-9, 1e12, math.inf, math.nan))


@settings(max_examples=40)
@given(st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=20), st.integers(1, 50))
def test_unfinished_jobs_alone_never_make_a_young_one_likelier_to_end(seen_at, count):
    before, after = RunTimes(expected=200.0), RunTimes(expected=200.0)
    for age in seen_at:
        for _ in range(count):
            after.began()
            after.seen(age, before=0.0)
    after.learn()
    youngest = min(seen_at)
    for part in (0.2, 0.5, 0.9):
        assert after.hazard(part * youngest) <= before.hazard(part * youngest) * 1.01


@given(run=st.floats(0.1, 1e4), after=ages, longer=st.floats(0.0, 1e5))
@settings(max_examples=50)
def test_a_job_left_between_the_two_ages_that_are_known(run, after, longer):
    times = taught([run] * 3)
    assert after <= times.likely(after=after, before=after + longer) <= after + longer


@pytest.mark.parametrize("after, before", [(5.0, 5.0), (1e6, 2e6), (0.0, 1e-12)])
def test_it_left_between_them_at_the_ends_of_all_ages_too(after, before):
    assert after <= taught([60.0] * 3).likely(after=after, before=before) <= before


def test_where_jobs_are_known_to_leave_soon_one_that_was_long_not_seen_left_soon():
    quick, slow = taught([0.4] * 20, width=0.2), taught([20.0] * 20)
    assert quick.likely(after=0.0, before=30.0) < 1.0
    assert slow.likely(after=0.0, before=30.0) == pytest.approx(20.0, abs=3.0)
    assert slow.likely(after=0.0, before=1.0) < 1.0


def test_half_of_those_that_leave_in_a_while_do_so_before_the_likely_age():
    dice = random.Random(3)  # noqa: S311 - samples, no secret
    runs = [60.0 * math.exp(dice.gauss(0, 0.35)) for _ in range(2000)]
    likely = taught(runs).likely(after=50.0, before=90.0)
    within = [run for run in runs if 50.0 < run <= 90.0]
    assert sum(run <= likely for run in within) / len(within) == pytest.approx(0.5, abs=0.05)
