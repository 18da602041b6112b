from __future__ import annotations

import math
from collections import Counter

import attrs
import pytest

from kling_async.emulator.service_queue import (
    ERRORS,
    FINAL,
    LIFECYCLES,
    RATE_LIMITED,
    RefusedError,
    ServiceQueue,
    Status,
)
from kling_async.emulator.settings import EmulatorSettings, JobScript, LogNormal, ResponseFormat

NOON = 1_800_000_000.0
PLAIN = EmulatorSettings(
    time_scale=1.0,
    workers=None,
    queue_time=LogNormal(10.0),
    dispatch_time=2.0,
    run_time=LogNormal(100.0),
    image_run_time=LogNormal(50.0),
)


def queue(**settings):
    return ServiceQueue(attrs.evolve(PLAIN, **settings))


def submit(queue, *, now=NOON, prompt="rain", **options):
    return queue.submit("kling-v2-6", {"prompt": prompt}, now=now, **options)


def queue_with_ending(chosen, **rest):
    return queue(script=lambda _number, _payload: JobScript(ending=chosen, **rest))


@pytest.mark.parametrize(
    "age, status, since",
    [
        (-5, Status.QUEUED, 0),
        (0, Status.QUEUED, 0),
        (9.9, Status.QUEUED, 0),
        (10, Status.DISPATCHED, 10),
        (12, Status.PROCESSING, 12),
        (111.9, Status.PROCESSING, 12),
        (112, Status.SUCCESS, 112),
        (1e9, Status.SUCCESS, 112),
    ],
)
def test_the_status_of_a_job_depends_only_on_its_age(age, status, since):
    job = submit(queue())

    assert job.status_at(now=NOON + age) == (status, NOON + since)


@pytest.mark.parametrize("ending", list(LIFECYCLES))
def test_each_lifecycle_has_its_statuses_in_order(ending):
    job = submit(queue_with_ending(ending))

    assert job.statuses == LIFECYCLES[ending]
    assert list(job.status_times) == sorted(job.status_times)
    assert job.status_at(now=job.status_times[-1])[0] is LIFECYCLES[ending][-1]
    assert (job.final_at < math.inf) == (LIFECYCLES[ending][-1] in FINAL)


def test_only_the_last_status_of_a_lifecycle_is_final():
    assert not FINAL.intersection(status for statuses in LIFECYCLES.values() for status in statuses[:-1])


def test_time_scale_shortens_every_status():
    assert submit(queue(time_scale=4.0)).final_at == NOON + 112 / 4


def test_an_image_has_its_own_run_time():
    job = queue().submit("kling-v2-6", {"prompt": "rain", "image": "https://example.com/a.png"}, now=NOON)

    assert job.final_at == NOON + 10 + 2 + 50


def test_jobs_wait_for_a_free_worker_in_the_order_of_their_submits():
    waiting = queue(workers=2, queue_time=LogNormal(0.0), dispatch_time=0.0)

    ends = [submit(waiting).final_at - NOON for _ in range(5)]

    assert ends == [100, 100, 200, 200, 300]


def test_a_free_worker_starts_a_job_after_its_queue_time():
    waiting = queue(workers=1)

    assert submit(waiting).final_at == NOON + 112
    assert submit(waiting, now=NOON + 500).final_at == NOON + 612


@pytest.mark.parametrize("ending", ["stuck_queued", "stuck_processing", "cancelled", "instant"])
def test_a_job_that_does_not_run_to_its_end_uses_no_worker(ending):
    waiting = queue(
        workers=1, script=lambda number, _payload: JobScript(ending=ending) if number == 1 else None
    )
    submit(waiting)

    assert submit(waiting).final_at == NOON + 112


def test_count_in_flight_counts_jobs_until_they_are_final():
    jobs = queue()
    submit(jobs)
    submit(jobs, now=NOON + 50)

    assert [jobs.count_in_flight(now=NOON + age) for age in (50, 111, 112, 161, 162)] == [2, 2, 1, 1, 0]
    assert jobs.max_jobs_in_flight == 2


def test_a_stuck_job_stays_in_flight():
    stuck = queue_with_ending("stuck_queued")
    submit(stuck)

    assert stuck.count_in_flight(now=NOON + 1e12) == 1


def test_an_instant_job_is_never_in_flight():
    done = queue_with_ending("instant")

    assert submit(done).status_at(now=NOON) == (Status.SUCCESS, NOON)
    assert (done.count_in_flight(now=NOON), done.max_jobs_in_flight) == (0, 0)


def test_the_same_seed_gives_the_same_jobs_at_any_submit_times():
    settings = {
        "failure_rate": 0.3,
        "stuck_rate": 0.2,
        "queue_time": LogNormal(10, 1),
        "run_time": LogNormal(9, 1),
    }
    one, other = queue(**settings), queue(**settings)
    jobs = [(submit(one), submit(other, now=NOON + 7.0 * number)) for number in range(200)]

    for early, late in jobs:
        assert early.request_id == late.request_id
        assert early.statuses == late.statuses
        assert early.error == late.error
        assert [at - early.accepted_at for at in early.status_times] == pytest.approx(
            [at - late.accepted_at for at in late.status_times], abs=1e-6
        )


def test_another_seed_gives_other_ids():
    assert submit(queue(seed=1)).request_id != submit(queue(seed=2)).request_id


def test_rates_do_not_change_the_times_of_jobs():
    plain, failing = queue(run_time=LogNormal(9, 1)), queue(run_time=LogNormal(9, 1), failure_rate=1.0)

    assert [submit(plain).status_times for _ in range(20)] == [
        submit(failing).status_times for _ in range(20)
    ]


def test_many_jobs_have_the_endings_of_the_rates():
    mixed = queue(failure_rate=0.2, stuck_rate=0.2, instant_rate=0.1)
    counts = Counter(submit(mixed).statuses for _ in range(4000))

    shares = {ending: counts[LIFECYCLES[ending]] / 4000 for ending in LIFECYCLES}
    assert shares == pytest.approx(
        {
            "success": 0.5,
            "failed": 0.2,
            "cancelled": 0.0,
            "stuck_queued": 0.1,
            "stuck_processing": 0.1,
            "instant": 0.1,
        },
        abs=0.03,
    )


def test_times_are_log_normal_around_their_median():
    spread = queue(run_time=LogNormal(100.0, 0.35))
    runs = sorted(submit(spread).status_times[3] - NOON - 12 for _ in range(2000))

    assert runs[1000] == pytest.approx(100, rel=0.05)
    assert runs[int(2000 * 0.84)] == pytest.approx(100 * math.exp(0.35), rel=0.05)


def test_failed_jobs_have_every_known_form_of_error():
    errors = [submit(job_queue).error for job_queue in [queue(failure_rate=1.0)] for _ in range(50)]

    assert {str(error) for error in errors} == {str(error) for error in ERRORS}


def test_a_successful_job_has_no_error():
    assert submit(queue()).error is None


def test_a_script_chooses_ending_times_and_error():
    job = submit(queue_with_ending("failed", queue_time=1.0, run_time=2.0, error="no"))

    assert (job.final_at, job.error) == (NOON + 1 + 2 + 2, "no")


def test_a_script_that_returns_none_leaves_the_job_random():
    assert submit(queue(script=lambda _number, _payload: None)).final_at == NOON + 112


def test_a_rejected_payload_fails_after_the_refusal_time():
    job = submit(queue(), rejection="duration must be one of 5, 10")

    assert job.statuses == (Status.QUEUED, Status.FAILED)
    assert (job.final_at, job.error) == (NOON + 1.0, "duration must be one of 5, 10")


def test_credits_are_spent_by_accepted_submits():
    poor = queue(credits=2)
    submit(poor)
    submit(poor, rejection="failed jobs are paid too")

    with pytest.raises(RefusedError) as refused:
        submit(poor)
    assert refused.value.status == 402
    assert len(poor.jobs) == 2


@pytest.mark.parametrize("retry_after, headers", [(None, {}), (2.5, {"Retry-After": "2.5"})])
def test_a_submit_above_the_limit_is_throttled_until_a_job_ends(retry_after, headers):
    narrow = queue(max_jobs_in_flight=1, retry_after=retry_after)
    submit(narrow)

    with pytest.raises(RefusedError) as refused:
        submit(narrow, now=NOON + 111)
    assert (refused.value.status, refused.value.headers) == (429, headers)
    assert submit(narrow, now=NOON + 112).number == 2


def test_a_throttled_submit_can_be_a_failed_job():
    narrow = queue(max_jobs_in_flight=0, throttle="failed_job")

    assert submit(narrow).error == RATE_LIMITED


def test_jobs_are_found_by_id_and_by_model():
    some = queue()
    first = submit(some)
    other = some.submit("kling-v2-5-turbo", {"prompt": "rain"}, now=NOON)

    assert some.find(first.request_id) is first
    assert some.find("unknown") is None
    assert list(some.of_model("kling-v2-5-turbo")) == [other]
    assert list(some.of_model("unknown")) == []
    assert list(some.of_model(None)) == [first, other] == list(some.jobs)


def test_a_job_has_the_organization_of_its_submit():
    assert submit(queue(), organization_id="org-7").organization_id == "org-7"
    assert submit(queue()).organization_id == "org-emulator"


def test_a_share_of_jobs_is_never_listed():
    jobs = queue(response_format=ResponseFormat(unlisted_rate=0.5))

    assert {submit(jobs).shows_at for _ in range(50)} == {NOON, math.inf}


@pytest.mark.parametrize("scale, script, shows, vanishes", [
    (1.0, {}, 5.0, math.inf),
    (10.0, {}, 0.5, math.inf),
    (10.0, {"list_delay": 20.0, "lifetime": 30.0}, 2.0, 3.0),
    (1.0, {"list_delay": math.inf}, math.inf, math.inf),
])  # fmt: skip
def test_a_script_says_when_a_job_shows_and_vanishes(scale, script, shows, vanishes):
    jobs = queue(
        time_scale=scale,
        response_format=ResponseFormat(list_delay=5.0),
        script=lambda _number, _payload: JobScript(**script),
    )
    job = submit(jobs)

    assert (job.shows_at, job.vanishes_at) == (NOON + shows, NOON + vanishes)


def test_a_job_can_be_put_into_the_queue_and_replaced_there():
    jobs = queue(run_time=LogNormal(60.0))
    first, second = submit(jobs), submit(jobs)
    stranger = attrs.evolve(
        first, request_id="stranger", status_times=(NOON - 9, NOON - 8, NOON - 7, NOON - 6)
    )
    jobs.put(stranger)
    ended = attrs.evolve(second, statuses=(Status.FAILED,), status_times=(NOON,), error="no")
    jobs.put(ended)

    assert list(jobs.jobs) == list(jobs.of_model(first.model)) == [first, ended, stranger]
    assert (jobs.find("stranger"), jobs.find(second.request_id)) == (stranger, ended)
    assert (jobs.count_in_flight(now=NOON), jobs.max_jobs_in_flight) == (1, 2)
    assert submit(jobs).number == 3


def test_jobs_with_one_id_are_all_accepted():
    jobs = queue(script=lambda _number, _payload: JobScript(request_id="same"))
    first, second = submit(jobs), submit(jobs)

    assert list(jobs.jobs) == [first, second]
    assert jobs.find("same") is second
