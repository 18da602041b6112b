"""Calls and lags in simulated worlds, where every run starts knowing nothing, and the bounds of every interval."""

from __future__ import annotations

import math
import random
from statistics import fmean

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pace import OTHERS
from benchmarks.simulation import Adaptive, Life, Report, every_best, log_normal
from kling_async._policy.pace import JobKind, Pace
from kling_async._policy.polling import PollingPolicy

pytestmark = pytest.mark.unmeasured

KIND = JobKind("kling-v2-6", duration=5)
LONGER = JobKind("kling-v2-6", duration=10)
SEEDS = range(3)


def rng_of(seed):
    return random.Random(f"seed {seed}")  # noqa: S311 - samples, no secret


def simulate(draw, *, jobs=200, at_once=None, seed=0):
    """The lives that were drawn, and what the pace made of them."""
    rng = rng_of(seed)
    lives = [draw(rng) for _ in range(jobs)]
    return lives, Adaptive(lives, at_once or jobs, rng).run()


def ratio_of(lives, report):
    """Our calls over those of the best fixed interval of the same mean lag."""
    return report.calls / every_best(lives, lag=report.mean_lag).calls


def averages(draw, **options):
    """Calls a job, mean lag and ratio, over the seeds."""
    runs = [simulate(draw, seed=seed, **options) for seed in SEEDS]
    return (
        fmean(report.calls_per_job for _, report in runs),
        fmean(report.mean_lag for _, report in runs),
        fmean(ratio_of(lives, report) for lives, report in runs),
    )


@pytest.mark.parametrize(
    "world, most_calls, most_lag, most_ratio",
    [
        (log_normal(120.0, 0.2), 10.5, 4.0, 0.55),
        (log_normal(60.0, 0.35), 9.5, 3.3, 0.75),
        (log_normal(90.0, 0.6), 13.5, 5.0, 1.0),
    ],
    ids=["120 s, sigma 0.2", "60 s, sigma 0.35", "90 s, sigma 0.6"],
)
def test_two_hundred_jobs_at_once_cost_less_than_the_best_fixed_interval(
    world, most_calls, most_lag, most_ratio
):
    calls, lag, ratio = averages(world)
    assert calls <= most_calls
    assert lag <= most_lag
    assert ratio <= most_ratio


def test_one_cold_job_of_four_minutes_costs_at_most_sixty_calls_and_is_five_seconds_late():
    reports = [Adaptive([Life(run=235.0 + seed / 4)], 1, rng_of(seed)).run() for seed in range(40)]
    assert max(report.calls for report in reports) <= 60
    assert fmean(report.mean_lag for report in reports) <= 5.0


@pytest.mark.parametrize(
    "world, most_calls, most_lag, most_ratio",
    [
        ("60 s, after a queue of 10 s", 11.5, 3.2, 0.75),
        ("60 s, told waiting but runs", 10.0, 3.3, 0.8),
        ("60 s, never shown running", 11.0, 3.0, 0.8),
        ("60 s, 1 % never ends", 12.0, 3.5, 0.75),
        ("60 s, 5 % refused at once", 14.5, 4.5, 1.2),
        ("30 s or 180 s", 18.0, 4.0, 1.1),
        ("2 s, sigma 0.35", 3.2, 1.0, 0.9),
    ],
)
def test_services_that_behave_otherwise_cost_about_as_much(world, most_calls, most_lag, most_ratio):
    calls, lag, ratio = averages(OTHERS[world])
    assert calls <= most_calls
    assert lag <= most_lag
    assert ratio <= most_ratio


def test_a_job_that_never_ends_costs_some_hundreds_of_calls_in_an_hour():
    lives, report = simulate(OTHERS["60 s, 1 % never ends"])
    stuck = sum(1 for life in lives if math.isinf(life.run))
    usual = simulate(log_normal(60.0, 0.35))[1].calls
    assert stuck
    assert report.calls - usual < 320 * stuck


def test_a_service_that_fails_everything_in_a_second_is_noticed_in_seconds():
    _, report = simulate(lambda rng: Life(run=rng.uniform(0.8, 1.2), success=False), jobs=1000, at_once=20)
    assert report.calls_per_job < 4.5
    assert report.mean_lag < 0.2
    assert max(report.lags) < 1.0


def test_failures_at_once_do_not_hide_how_long_jobs_run_that_succeed():
    refused_first = [Life(run=1.0, success=False)] * 20
    rng = rng_of(0)
    lives = [*refused_first, *(log_normal(60.0, 0.35)(rng) for _ in range(200))]
    report = Adaptive(lives, 50, rng).run()
    assert report.calls_per_job < 21
    assert report.mean_lag < 2.5


def test_run_times_that_triple_half_way_are_followed():
    rng = rng_of(0)
    quick = [log_normal(60.0, 0.35)(rng) for _ in range(500)]
    slow = [log_normal(180.0, 0.35)(rng) for _ in range(500)]
    report = Adaptive([*quick, *slow], 50, rng).run()
    assert report.calls_per_job < 18
    assert report.mean_lag < 5.0
    assert fmean(report.lags[-200:]) < 7.0


@pytest.mark.parametrize("at_once", [20, 50])
def test_a_few_at_a_time_profit_from_those_before(at_once):
    calls, lag, ratio = averages(log_normal(60.0, 0.35), jobs=400, at_once=at_once)
    assert calls <= 11.5
    assert lag <= 3.0
    assert ratio <= 0.75


# What each interval keeps to


@attrs.define
class Known:
    """A pace that has seen jobs of a minute end."""

    pace: Pace = attrs.field(factory=Pace)
    policy: PollingPolicy = attrs.field(factory=PollingPolicy)
    now: float = 1000.0

    def __attrs_post_init__(self):
        rng = rng_of(1)
        for _ in range(100):
            run = log_normal(60.0, 0.35)(rng).run
            age = self.begin(since=self.now - run - 1.0)
            self.pace.record_sighting(age, now=self.now - 2.0, running=True, jitter=0.0)
            self.pace.record_end(age, now=self.now, success=True)
        self.interval(seen=0.0)  # a poll fits the run times

    def begin(self, *, since=None, running=True, kind=KIND, jitter=0.0):
        return self.pace.track(kind, now=self.now if since is None else since, running=running, jitter=jitter)

    def interval(self, *, seen, running=True, jitter=0.0):
        """Seconds to the next poll of a job that was seen at an age."""
        age = self.begin(since=self.now - seen, running=running)
        self.pace.record_sighting(age, now=self.now, running=running, jitter=jitter)
        due = self.pace.next_poll(age, self.policy, now=self.now)
        self.pace.forget(age)
        return due - self.now


def test_a_job_is_polled_often_when_jobs_usually_end_and_seldom_before_and_after():
    known = Known()
    young, ripe, late = (known.interval(seen=age) for age in (1.0, 60.0, 1500.0))
    assert ripe < 5.0
    assert young > 4 * ripe
    assert late > 4 * ripe


def test_a_random_number_spreads_jobs_of_one_age_a_little():
    known = Known()
    least, most = known.interval(seen=60.0, jitter=1.0), known.interval(seen=60.0, jitter=0.0)
    assert 0.7 * most < least < 0.95 * most


def first_jobs(count, *, seen=10.0):
    """A pace that has seen no job end, and jobs of one age."""
    pace = Pace()
    jobs = [pace.track(KIND, now=0.0, running=True, jitter=0.0) for _ in range(count)]
    for job in jobs:
        pace.record_sighting(job, now=seen, running=True, jitter=0.0)
    return pace, jobs


def test_until_a_job_has_ended_one_job_is_polled_early():
    pace, jobs = first_jobs(50)
    first, second, *_ = sorted(pace.next_poll(job, PollingPolicy(), now=10.0) for job in jobs)
    assert first <= 20.0
    assert second > 25.0


def test_another_job_is_polled_early_in_place_of_one_that_is_forgotten():
    pace, jobs = first_jobs(5)
    assert pace.next_poll(jobs[0], PollingPolicy(), now=10.0) <= 20.0
    pace.forget(jobs[0])
    assert min(pace.next_poll(job, PollingPolicy(), now=10.0) for job in jobs[1:]) <= 20.0


def test_the_first_end_brings_the_polls_of_all_jobs_forward():
    pace, jobs = first_jobs(20, seen=9.0)
    due = max(pace.next_poll(job, PollingPolicy(), now=9.0) for job in jobs[2:])
    assert pace.record_end(jobs[0], now=10.0, success=True)
    assert max(pace.next_poll(job, PollingPolicy(), now=10.0) for job in jobs[2:]) < due
    assert not pace.record_end(jobs[1], now=11.0, success=True)


def test_the_start_of_a_job_that_waits_is_not_looked_for_in_haste():
    pace, policy = Pace(), PollingPolicy()
    started, waits = (pace.track(KIND, now=0.0, running=False, jitter=0.0) for _ in range(2))
    pace.record_sighting(started, now=1.0, running=True, jitter=0.0)
    pace.record_sighting(waits, now=190.0, running=False, jitter=0.0)
    assert pace.next_poll(waits, policy, now=190.0) >= 190.0 + 15.0


def test_jobs_that_are_forgotten_leave_no_trace():
    pace, jobs = first_jobs(5)
    for job in jobs:
        pace.forget(job)
        pace.forget(job)
    assert scan_interval(pace, now=1.0) == 0.2


# Lists


def scan_interval(pace, *, now, cost=1.0, policy=PollingPolicy()):  # noqa: B008
    return pace.scan_interval(KIND.model, policy, cost=cost, now=now)


def test_a_job_that_a_list_will_show_waits_for_the_list():
    pace, (job,) = first_jobs(1)
    assert pace.next_poll(job, PollingPolicy(), now=10.0, next_shown_at=70.0) == 70.0
    assert pace.next_poll(job, PollingPolicy(poll_interval=1.0), now=10.0, next_shown_at=70.0) == 70.0


def test_a_job_that_only_a_stale_list_has_shown_is_polled_as_if_it_had_not():
    known = Known()
    job = known.begin(since=known.now - 90.0, jitter=0.5)
    other = known.begin(since=known.now - 90.0, jitter=0.5, kind=JobKind("other"))
    for one in (job, other):
        known.pace.record_sighting(one, now=known.now, running=True, jitter=0.5, by_list=True)
    assert known.pace.next_poll(job, known.policy, now=known.now) > known.now
    known.pace.forget_lists(KIND.model)
    assert known.pace.next_poll(job, known.policy, now=known.now) < known.now
    assert known.pace.next_poll(other, known.policy, now=known.now) > known.now


def test_a_list_is_scanned_at_a_share_of_the_usual_run_time():
    known = Known()
    for age in (10.0, 50.0, 60.0, 70.0):
        known.begin(since=known.now - age)
    assert 0.5 < scan_interval(known.pace, now=known.now, cost=0.0) < 1.5


def test_before_anything_ended_scans_follow_the_oldest_job():
    pace = Pace()
    pace.track(KIND, now=0.0, running=True, jitter=0.0)
    intervals = [scan_interval(pace, now=now) for now in (0.0, 10.0, 100.0)]
    assert intervals == sorted(intervals)
    assert intervals[0] == pytest.approx(0.2)
    assert 2.0 < intervals[2] < 12.0


def test_a_list_is_scanned_for_the_quickest_kind_of_its_model():
    known = Known()
    known.begin(since=known.now - 60.0)
    alone = scan_interval(known.pace, now=known.now)
    known.begin(since=known.now - 600.0, kind=LONGER)
    known.begin(since=known.now - 600.0, kind=JobKind("other"))
    assert scan_interval(known.pace, now=known.now) == pytest.approx(alone)


def test_scans_of_a_list_with_few_jobs_are_as_rare_as_status_calls_would_be():
    known = Known()
    intervals = []
    for count in (2, 18, 180):
        for _ in range(count):
            known.begin(since=known.now - 60.0)
        intervals.append(scan_interval(known.pace, now=known.now, cost=4.0))
    assert intervals == sorted(intervals, reverse=True)
    assert intervals[0] == pytest.approx(10 * intervals[1], rel=0.5)


def test_a_fixed_poll_interval_is_the_interval_of_scans_too():
    assert scan_interval(Known().pace, now=0.0, policy=PollingPolicy(poll_interval=7.0)) == 7.0


# Whatever happens


@pytest.mark.parametrize("interval", [0, 0.05, 5, 120])
def test_a_fixed_interval_is_obeyed_exactly(interval):
    known = Known(policy=PollingPolicy(poll_interval=interval))
    for seen in (0.0, 60.0, 5000.0):
        for jitter in (0.0, 0.99):
            assert known.interval(seen=seen, jitter=jitter) == pytest.approx(interval, abs=1e-9)


histories = st.lists(
    st.tuples(st.floats(0.0, 1e6), st.sampled_from(["waiting", "running", "done", "failed", "given up"])),
    max_size=25,
)


@settings(max_examples=100)
@given(histories, st.floats(0.0, 1.0), st.floats(0.05, 60.0), st.booleans())
def test_no_poll_is_too_soon_nor_too_late_whatever_happened_before(history, jitter, longest, running):
    pace, policy, now = Pace(), PollingPolicy(max_poll_interval=longest), 0.0
    probe = pace.track(KIND, now=0.0, running=running, jitter=jitter)
    for step, state in history:
        age = pace.track(KIND, now=now, running=state == "running", jitter=jitter)
        now += step
        pace.record_sighting(age, now=now, running=state != "waiting", jitter=jitter)
        if state in {"done", "failed"}:
            pace.record_end(age, now=now + 1.0, success=state == "done")
        elif state == "given up":
            pace.forget(age)
        now += 2.0
        pace.record_sighting(probe, now=now, running=running, jitter=jitter)
        due = pace.next_poll(probe, policy, now=now)
        slack = 1e-9 * (1 + now)
        assert min(0.2, longest) - slack <= due - now <= longest + slack
        assert 0.2 <= scan_interval(pace, now=now, policy=policy) <= max(longest, 0.2)


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 600.0), min_size=1, max_size=30), st.integers(1, 10), st.integers(0, 99))
def test_every_end_is_noticed_once_and_never_before(runs, at_once, seed):
    report = Adaptive([Life(run=run) for run in runs], at_once, rng_of(seed)).run()
    assert isinstance(report, Report)
    assert len(report.lags) == len(runs)
    assert min(report.lags) >= 0
    assert max(report.lags) <= 30.0 + 1e-6
    assert report.calls >= len(runs)
