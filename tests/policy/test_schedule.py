from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_async._policy.polling import PollingPolicy
from kling_async._policy.schedule import PollSchedule
from kling_async._policy.stage import JobKind

KIND = JobKind("kling-v2-6", duration=5)
LONGER = JobKind("kling-v2-6", duration=10)


def begin(schedule, *, now=0.0, chance=0.5, running=True, kind=KIND, age=0.0):
    return schedule.begin(kind, now=now, chance=chance, running=running, age=age)


def experienced(median=60.0, sigma=0.35, count=300, **options):
    """A schedule that has seen jobs run, and the time by its clock."""
    schedule = PollSchedule(PollingPolicy(), **options)
    dice = random.Random(1)  # noqa: S311 - samples, no secret
    for _ in range(count):
        run = median * math.exp(dice.gauss(0, sigma))
        track = begin(schedule)
        schedule.finished(track, now=run, exact=run)
    return schedule, 1000.0


def with_company(schedule, *kinds, now=0.0, count=4):
    """So many jobs of each kind in flight that the next is no scout."""
    for kind in kinds:
        for _ in range(count):
            schedule.due(begin(schedule, now=now, kind=kind), now=now)


@pytest.mark.parametrize("interval", [0, 0.05, 5, 120])
def test_a_fixed_pace_is_obeyed(interval):
    schedule = PollSchedule(PollingPolicy(poll_interval=interval), max_polls_per_second=0.1)
    for chance in (0.0, 0.99):
        track = begin(schedule, now=100.0, chance=chance)
        assert schedule.due(track, now=100.0) == 100.0 + interval
    assert schedule.list_delay(KIND.model, now=100.0, calls=3, rows=300) == interval


histories = st.lists(
    st.tuples(st.floats(0.0, 1e6), st.sampled_from(["waiting", "running", "done", "failed", "given up"])),
    max_size=25,
)


@settings(max_examples=40)
@given(histories, st.floats(0.0, 1.0), st.sampled_from([math.inf, 10.0, 0.01]), st.floats(0.05, 60.0))
def test_the_next_question_is_never_too_soon_nor_too_late(history, chance, budget, longest):
    schedule = PollSchedule(PollingPolicy(max_poll_interval=longest), max_polls_per_second=budget)
    now = 0.0
    probe = begin(schedule, running=False)
    for step, what in history:
        now += step
        track = begin(schedule, now=now, chance=chance, running=what == "running", age=step)
        schedule.seen(track, now=now + 1.0, chance=chance, running=what != "waiting")
        now += 2.0
        if what in {"done", "failed"}:
            schedule.finished(track, now=now, success=what == "done")
        elif what == "given up":
            schedule.gave_up(track)
        schedule.seen(probe, now=now, chance=chance, running=False)
        delay = schedule.due(probe, now=now) - now
        slack = 1e-6 + now * 1e-9
        assert min(0.2, longest) - slack <= delay
        assert delay < math.inf
        assert math.isinf(budget) is False or delay <= longest + slack


@pytest.mark.parametrize("age", [0.0, 1e-12, 1e5, 1e12, -5.0, math.nan])
def test_any_age_gives_a_moment(age):
    schedule, now = experienced()
    due = schedule.due(begin(schedule, now=now, age=age), now=now)
    assert 0.1 < due - now <= 30.0


def test_a_job_older_than_all_seen_is_not_forgotten():
    schedule, now = experienced()
    track = begin(schedule, now=now, age=3000.0, chance=0.0)
    assert 10.0 < schedule.due(track, now=now) - now <= 30.0


def test_questions_come_thick_when_jobs_are_likely_to_end():
    schedule, now = experienced()
    young, ripe = (begin(schedule, now=now, age=age, chance=0.0) for age in (5.0, 60.0))
    assert schedule.due(ripe, now=now) - now < 3.0 < schedule.due(young, now=now) - now


def test_chance_spreads_jobs_of_one_age():
    schedule, now = experienced()
    moments = [schedule.due(begin(schedule, now=now, age=60.0, chance=c), now=now) for c in (0.0, 0.5, 1.0)]
    assert moments == sorted(moments, reverse=True)
    assert moments[2] > now + 0.7 * (moments[0] - now)


def test_while_jobs_are_young_another_takes_the_place_of_a_scout_that_ended():
    schedule = PollSchedule(PollingPolicy())
    first, second, third = jobs = [begin(schedule) for _ in range(3)]
    far = [schedule.due(job, now=0.0) for job in jobs][-1]
    edition = schedule.edition
    schedule.finished(first, now=1.0)
    assert schedule.edition > edition
    assert schedule.due(third, now=1.0) <= 1.0 < far
    assert schedule.is_scouting(third)
    schedule.finished(second, now=1.5)
    assert not schedule.is_scouting(begin(schedule, now=1.5))


def test_old_jobs_need_no_scout_any_more():
    schedule = PollSchedule(PollingPolicy())
    first, _, third = jobs = [begin(schedule) for _ in range(3)]
    for job in jobs:
        schedule.due(job, now=0.0)
    for now in (5.0, 10.0, 20.0, 40.0, 60.0):
        schedule.seen(first, now=now, chance=0.5, running=True)
    schedule.finished(first, now=90.0)
    schedule.due(third, now=90.0)
    assert not schedule.is_scouting(third)


def test_what_others_show_meanwhile_may_put_a_question_off():
    schedule = PollSchedule(PollingPolicy())
    with_company(schedule, KIND)
    jobs = [begin(schedule, chance=i / 200) for i in range(200)]
    late = schedule.due(jobs[0], now=0.0)
    for job in jobs[1:]:
        schedule.seen(job, now=late, chance=0.5, running=True)
    assert schedule.due(jobs[0], now=late) > late + 1.0


def test_the_first_ends_make_a_new_edition_in_which_jobs_are_due_sooner():
    schedule = PollSchedule(PollingPolicy())
    jobs = [begin(schedule, chance=0.0) for _ in range(20)]
    for job in jobs:
        schedule.seen(job, now=5.0, chance=0.0, running=True)
    before = schedule.due(jobs[-1], now=5.0)
    edition = schedule.edition
    for job in jobs[:5]:
        schedule.finished(job, now=6.0)
    assert schedule.edition > edition
    assert schedule.due(jobs[-1], now=6.0) < before


def test_jobs_that_wait_are_due_as_soon_as_others_are_seen_to_run_shortly():
    schedule = PollSchedule(PollingPolicy())
    shown = [begin(schedule, running=False) for _ in range(20)]
    unseen = [begin(schedule, running=False) for _ in range(20)]
    for track in shown:
        schedule.seen(track, now=0.3, chance=0.5, running=True)
        schedule.due(unseen[0], now=0.3)
    assert schedule.due(unseen[-1], now=0.3) > 5.0
    for track in shown:
        schedule.finished(track, now=1.8)
    assert max(schedule.due(track, now=1.8) for track in unseen) < 5.0


def test_kinds_are_learned_apart():
    schedule, now = experienced(median=60.0)
    other = JobKind("kling-v2-6", duration=5, sound=True)
    for _ in range(100):
        schedule.finished(begin(schedule, kind=other), now=300.0, exact=300.0)
    ripe, not_yet = (begin(schedule, now=now, age=60.0, chance=0.0, kind=kind) for kind in (KIND, other))
    assert schedule.due(ripe, now=now) < schedule.due(not_yet, now=now) - 5.0


def test_a_new_kind_borrows_from_another_of_its_model():
    schedule, now = experienced(median=2.0, count=50)
    with_company(schedule, LONGER, JobKind("another"), JobKind("kling-v2-6", has_image=True), now=now)
    borrowed = begin(schedule, now=now, kind=LONGER, chance=0.0)
    stranger = begin(schedule, now=now, kind=JobKind("another"), chance=0.0)
    from_image = begin(schedule, now=now, kind=JobKind("kling-v2-6", has_image=True), chance=0.0)
    first = schedule.due(borrowed, now=now) - now
    assert first < 0.5 * (schedule.due(stranger, now=now) - now)
    assert first < 0.5 * (schedule.due(from_image, now=now) - now)


def test_run_time_counts_from_when_jobs_are_likely_to_start():
    schedule, now = experienced()
    track = begin(schedule, now=now, running=False)
    schedule.seen(track, now=now + 20.0, chance=0.5, running=True)
    assert now + 3.0 < track.since < now + 17.0
    for _ in range(20):
        schedule.seen(begin(schedule, now=now, running=False), now=now + 0.2, chance=0.5, running=True)
    track = begin(schedule, now=now, running=False)
    schedule.due(track, now=now + 19.0)
    schedule.seen(track, now=now + 20.0, chance=0.5, running=True)
    assert now < track.since < now + 1.0
    told = begin(schedule, now=now, running=False)
    schedule.seen(told, now=now + 20.0, chance=0.5, running=True, age=3.0)
    assert told.since == now + 17.0


def test_of_jobs_that_wait_some_are_asked_about_early_until_one_has_ended():
    schedule = PollSchedule(PollingPolicy())
    with_company(schedule, KIND)
    for _ in range(3):
        schedule.seen(begin(schedule, running=False), now=0.2, chance=0.5, running=True)
    late, early = (begin(schedule, now=1.0, running=False, chance=chance) for chance in (0.0, 1.0))
    assert schedule.due(early, now=1.0) - 1.0 < 0.3 * (schedule.due(late, now=1.0) - 1.0)
    schedule.finished(begin(schedule), now=30.0)
    assert schedule.due(early, now=30.0) - 1.0 > 0.6 * (schedule.due(late, now=30.0) - 1.0)


def test_a_job_once_seen_running_stays_so():
    schedule, now = experienced()
    track = begin(schedule, now=now)
    schedule.seen(track, now=now + 5.0, chance=0.5, running=False)
    assert track.stage is track.course.running
    assert track.since == now


def test_a_service_that_never_shows_jobs_running_is_learned_too():
    schedule = PollSchedule(PollingPolicy())
    dice = random.Random(1)  # noqa: S311 - samples, no secret
    for _ in range(200):
        run = 60.0 * math.exp(dice.gauss(0, 0.2))
        schedule.finished(begin(schedule, running=False), now=run, exact=run)
    now = 1000.0
    young, ripe = (begin(schedule, now=now, age=age, running=False, chance=0.0) for age in (10.0, 60.0))
    assert schedule.due(ripe, now=now) - now < 3.0 < schedule.due(young, now=now) - now


def test_a_refusal_while_waiting_is_no_way_to_be_done():
    schedule = PollSchedule(PollingPolicy())
    track = begin(schedule, running=False)
    schedule.finished(track, now=1.0, success=False)
    assert track.course.jumps == 0


def due_gaps(schedule, now, ages):
    tracks = [begin(schedule, now=now, age=age, chance=0.0) for age in ages]
    for track in tracks:
        schedule.due(track, now=now)
    return [schedule.due(track, now=now) - now for track in tracks]


def test_a_tight_budget_puts_questions_off():
    ages = [60.0] * 200
    free, now = experienced()
    tight, _ = experienced(max_polls_per_second=10.0)
    assert min(due_gaps(tight, now, ages)) > 2 * max(due_gaps(free, now, ages))


def test_a_tight_budget_goes_where_jobs_are_likely_to_end():
    schedule, now = experienced(max_polls_per_second=10.0)
    gaps = due_gaps(schedule, now, [5.0, 60.0] * 100)
    assert max(gaps[1::2]) < 0.5 * min(gaps[0::2])


def test_a_budget_that_is_free_again_is_used():
    schedule, now = experienced(max_polls_per_second=10.0)
    tracks = [begin(schedule, now=now, age=60.0, chance=0.0) for _ in range(200)]
    for track in tracks:
        schedule.due(track, now=now)
    tight = schedule.due(tracks[0], now=now)
    for track in tracks[1:100]:
        schedule.gave_up(track)
    for track in tracks[100:]:
        schedule.finished(track, now=now)
    assert schedule.due(tracks[0], now=now) < tight


def test_a_list_pays_for_many_jobs_and_not_for_one():
    schedule, now = experienced()
    assert not schedule.list_pays(KIND.model, now=now, calls=1, rows=100)
    begin(schedule, now=now, age=60.0)
    assert not schedule.list_pays(KIND.model, now=now, calls=1, rows=100)
    for _ in range(99):
        begin(schedule, now=now, age=60.0)
    assert schedule.list_pays(KIND.model, now=now, calls=1, rows=100)
    assert not schedule.list_pays(KIND.model, now=now, calls=100, rows=10_000)
    assert not schedule.list_pays("another model", now=now, calls=1, rows=1)


def test_a_list_pays_for_many_jobs_only_where_they_are_asked_about_together():
    schedule, now = experienced()
    with_company(schedule, KIND, now=now, count=100)
    assert schedule.list_pays(KIND.model, now=now, calls=1, rows=100)
    assert schedule.list_pays(KIND.model, now=now, calls=1, rows=100, jobs=100)
    assert not schedule.list_pays(KIND.model, now=now, calls=1, rows=100, jobs=1)
    several = schedule.list_delay(KIND.model, now=now, calls=1, rows=100, jobs=10)
    assert schedule.list_delay(KIND.model, now=now, calls=1, rows=100) < several


def test_lists_take_in_all_kinds_of_a_model():
    schedule, now = experienced()
    for kind in (KIND, LONGER):
        begin(schedule, now=now, age=60.0, kind=kind)
    alone = schedule.list_delay("another model", now=now, calls=1, rows=2)
    assert schedule.list_delay(KIND.model, now=now, calls=1, rows=2) < alone == 30.0


def test_lists_keep_to_the_budget():
    schedule, now = experienced(max_polls_per_second=2.0)
    for _ in range(1000):
        begin(schedule, now=now, age=60.0)
    assert schedule.list_delay(KIND.model, now=now, calls=10, rows=1000) >= 5.0


def test_until_one_has_ended_jobs_are_listed_again_after_a_share_of_their_age():
    schedule = PollSchedule(PollingPolicy(max_poll_interval=1000.0))
    crowd = [begin(schedule) for _ in range(200)]

    def delay(age, rows=200):
        for track in crowd[1:]:
            schedule.seen(track, now=age, chance=0.5, running=True)
        return schedule.list_delay(KIND.model, now=age, calls=1, rows=rows)

    assert delay(32.0) < 0.2 * 32.0
    assert delay(64.0) == pytest.approx(2 * delay(32.0), rel=0.2)
    assert 2 * delay(64.0) < delay(64.0, rows=20_000)
    begin(schedule, now=64.0)  # a newcomer makes no haste
    assert delay(64.0) > 0.1 * 64.0
    before = delay(2000.0)
    schedule.finished(crowd[0], now=2000.0, exact=2000.0)
    assert delay(2000.0) < before


def test_a_lone_job_of_an_unknown_kind_is_asked_about_soon_and_then_ever_later():
    schedule = PollSchedule(PollingPolicy())
    track = begin(schedule, chance=0.0)
    now, asked = 0.0, []
    while now < 10.0:
        now = schedule.due(track, now=now)
        asked.append(now)
        schedule.seen(track, now=now, chance=0.0, running=True)
    assert asked[0] == pytest.approx(0.2)
    assert asked[4] < 2.0
    assert len(asked) < 20


def test_of_many_jobs_of_an_unknown_kind_a_few_are_asked_about_soon():
    schedule = PollSchedule(PollingPolicy())
    tracks = [begin(schedule, chance=0.0) for _ in range(20)]
    soon = [track for track in tracks if schedule.due(track, now=0.0) < 1.0]
    assert soon == tracks[:2]
    schedule.gave_up(tracks[0])
    assert schedule.due(begin(schedule, chance=0.0), now=0.0) < 1.0


def test_the_last_of_a_crowd_are_asked_about_sooner_for_all_wait_for_them():
    schedule, now = experienced()
    crowd = [begin(schedule, now=now, chance=0.9) for _ in range(300)]

    def interval(age):
        schedule.seen(crowd[0], now=now + age, chance=0.9, running=True)
        return schedule.due(crowd[0], now=now + age) - now - age

    usual, late = interval(50), interval(70)
    for track in crowd[3:]:
        schedule.gave_up(track)
    assert interval(50) == pytest.approx(usual, rel=0.1)
    assert interval(70) == pytest.approx(0.56 * math.sqrt(3))
    for track in crowd[1:3]:
        schedule.seen(track, now=now + 70, chance=0.9, running=True)
    delay = schedule.list_delay(KIND.model, now=now + 70, calls=1, rows=300)
    assert delay == pytest.approx(0.56 * math.sqrt(3), rel=0.1)
    for track in crowd[1:3]:
        schedule.gave_up(track)
    assert interval(70) == pytest.approx(0.56)
    assert late > 1.0
    schedule.gave_up(crowd[0])
    crowd = [begin(schedule, now=now, chance=0.9)]
    assert interval(70) == pytest.approx(late, rel=0.1)


def test_of_a_huge_crowd_only_a_handful_are_the_last():
    schedule, now = experienced()
    crowd = [begin(schedule, now=now) for _ in range(1000)]
    for track in crowd[5:]:
        schedule.gave_up(track)
    schedule.seen(crowd[0], now=now + 400, chance=0.0, running=True)
    late = schedule.due(crowd[0], now=now + 400)
    schedule.gave_up(crowd[4])
    soon = schedule.due(crowd[0], now=now + 400)
    assert soon == pytest.approx(now + 406.4)
    assert soon < late
