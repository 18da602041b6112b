from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from kling_async._policy.runtimes import RunTimes
from kling_async._policy.stage import (
    EXPECTED_FROM_IMAGE,
    EXPECTED_FROM_TEXT,
    Course,
    JobKind,
    Stage,
    new_course,
)
from kling_async._policy.timetable import Pressure

KIND = JobKind("kling-v2-6", duration=5)


def stage_of(median, sigma, count=500):
    dice = random.Random(1)  # noqa: S311 - samples, no secret
    stage = Stage(RunTimes(expected=200.0), 30.0)
    for _ in range(count):
        run = median * math.exp(dice.gauss(0, sigma))
        stage.times.began()
        stage.times.finished(run, before=0.0, exact=run)
    stage.learn(0.0)
    return stage


def calls_until(stage, age):
    """How many times a job is asked about until it is that old."""
    calls, now = 0, 0.0
    while now < age:
        now += stage.free_interval(now)
        calls += 1
    return calls


def test_the_usual_time_is_the_median():
    assert stage_of(60.0, 0.35).usual == pytest.approx(60.0, rel=0.06)


def test_jobs_are_asked_about_when_they_are_likely_to_end():
    stage = stage_of(120.0, 0.2)
    stage.plan(lag=1.5)
    assert stage.rate(20.0) < stage.rate(120.0) / 10
    assert stage.free_interval(120.0) < 3.0
    assert calls_until(stage, 60.0) <= 4


@pytest.mark.parametrize("lag", [0.5, 1.0, 2.0])
def test_the_mean_lag_is_the_one_asked_for(lag):
    stage = stage_of(60.0, 0.35)
    stage.plan(lag=lag)
    course = Course(JobKind("kling-v2-6"), waiting=Stage(RunTimes(expected=8.0), 30.0), running=stage)
    dice = random.Random(2)  # noqa: S311 - samples, no secret
    lags = []
    for _ in range(400):
        end = 60.0 * math.exp(dice.gauss(0, 0.35))
        now = 0.0
        while now < end:
            now += stage.free_interval(now) * (1 - course.jitter(now) * dice.random())
        lags.append(now - end)
    assert sum(lags) / len(lags) == pytest.approx(lag, rel=0.25)


def test_a_wish_for_less_lag_never_asks_later():
    stage = stage_of(60.0, 0.35)
    intervals = []
    for lag in (0.5, 1.0, 2.0):
        stage.plan(lag=lag)
        intervals.append([stage.free_interval(float(age)) for age in range(0, 600, 7)])
    for sooner, later in pairwise(intervals):
        assert all(a <= b + 1e-9 for a, b in zip(sooner, later, strict=True))


def test_a_job_much_later_than_usual_is_asked_about_ever_more_seldom():
    stage = stage_of(2.0, 0.3)
    stage.plan(lag=0.05)
    intervals = [stage.free_interval(age) for age in (8.0, 60.0, 400.0, 3000.0)]
    assert intervals == sorted(intervals)
    assert intervals[-1] == 30.0


def test_pressure_makes_a_timetable_once_and_a_new_plan_forgets_it():
    stage = stage_of(60.0, 0.35)
    stage.plan(lag=1.0)
    tight = Pressure(share=0.2, longest=1000.0)
    pressed = stage.interval(60.0, tight)
    assert pressed > stage.free_interval(60.0)
    assert stage.interval(60.0, tight) == pressed
    stage.plan(lag=2.0)
    assert stage.interval(60.0, tight) > pressed


def test_a_lesson_is_wanted_at_first_then_when_something_was_told_that_matters():
    stage = Stage(RunTimes(expected=100.0), 30.0)
    assert stage.wants_lesson(0.0)
    stage.learn(0.0)
    stage.plan(lag=1.0)
    assert not stage.wants_lesson(1000.0)
    stage.times.began()
    assert not stage.wants_lesson(1.0)
    assert stage.wants_lesson(3.0)
    stage.times.finished(0.5, before=0.0)
    assert stage.wants_lesson(1.0)


def test_however_short_jobs_are_time_brings_few_lessons():
    stage = stage_of(0.01, 0.3)
    stage.plan(lag=0.001)
    stage.times.began()
    assert not stage.wants_lesson(0.2)
    assert stage.wants_lesson(0.3)


def test_chance_spreads_the_first_question_widely_while_nothing_has_ended():
    course = new_course(JobKind("kling-v2-6"), longest=30.0)
    course.waiting.times.began()
    course.waiting.times.finished(0.2, before=0.0)
    course.starts += 1
    wide = course.jitter(0.0)
    assert wide > course.jitter(5.0)
    course.running.times.began()
    course.running.times.finished(60.0, before=0.0)
    assert course.jitter(0.0) == course.jitter(5.0)
    jumping = new_course(JobKind("kling-v2-6"), longest=30.0)
    jumping.jumps += 1
    assert jumping.jitter(0.0) < wide


def test_pages_turn_with_the_first_ends_and_no_more_when_knowledge_is_settled():
    stage = Stage(RunTimes(expected=100.0), 30.0)
    turned = []
    for count in range(1, 200):
        stage.times.began()
        stage.times.finished(50.0, before=0.0)
        if stage.turns_page():
            turned.append(count)
    assert turned[:4] == [1, 2, 3, 5]
    assert turned[-1] <= 64


def course_after(*, starts, jumps):
    course = new_course(KIND, longest=30.0)
    course.starts, course.jumps = starts, jumps
    course.keep_up(0.0)
    return course


def test_waiting_jobs_are_asked_about_seldom_once_they_are_known_to_start_first():
    both = [course_after(starts=200, jumps=0), course_after(starts=0, jumps=200)]
    starting, jumping = (course.waiting.rate(8.0) for course in both)
    assert starting < jumping / 5


def test_running_jobs_get_a_pace_of_their_own():
    course = course_after(starts=0, jumps=0)
    course.keep_up(0.0)
    assert course.running.usual == pytest.approx(EXPECTED_FROM_TEXT, rel=0.1)
    assert course.running.free_interval(200.0) < course.running.free_interval(0.0)


def test_videos_from_images_are_expected_sooner():
    course = new_course(JobKind("m", has_image=True), longest=30.0)
    assert course.running.usual == pytest.approx(EXPECTED_FROM_IMAGE, rel=0.1)


def test_a_new_kind_expects_what_its_sibling_showed():
    sibling = Course(KIND, waiting=stage_of(1.0, 0.3), running=stage_of(3.0, 0.3))
    course = new_course(JobKind("kling-v2-6", duration=10), longest=30.0, sibling=sibling)
    assert course.running.usual == pytest.approx(3.0, rel=0.2)
    assert course.waiting.usual == pytest.approx(1.0, rel=0.2)
