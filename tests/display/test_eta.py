from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_async._display.eta import EtaEstimator
from kling_async.errors import KlingError
from kling_async.events import Finished, PollFailed, Resumed, StatusChanged, SubmitReconciled, Submitted
from kling_async.jobs import Job, JobStatus
from kling_async.results import ResultState


def submitted_event(name: str, at: float, kind=Submitted):
    return kind(at=at, request_id=name, job=Job(request_id=name, status=JobStatus.QUEUED))


def finished_event(name: str | None, at: float):
    return Finished(at=at, request_id=name, state=ResultState.SUCCEEDED)


def status_event(name: str, at: float, status: JobStatus):
    return StatusChanged(at=at, request_id=name, status=status, previous=JobStatus.QUEUED)


def estimate(*events) -> EtaEstimator:
    eta = EtaEstimator()
    for event in events:
        eta(event)
    return eta


@pytest.mark.parametrize(
    "events",
    [
        [],
        [submitted_event("a", 0.0)],
        [finished_event(None, 1.0)],
        [finished_event("a job of another batch", 1.0)],
        [submitted_event("a", 0.0), status_event("a", 1.0, JobStatus.PROCESSING)],
        [submitted_event("a", 0.0), PollFailed(at=1.0, request_id="a", delay=1.0, error=KlingError("lost"))],
    ],
)
def test_there_is_no_estimate_before_a_job_has_ended(events):
    assert estimate(*events).seconds_left(waiting=3, now=5.0) is None


def test_no_time_is_left_when_all_jobs_have_ended():
    assert (
        estimate(submitted_event("a", 0.0), finished_event("a", 60.0)).seconds_left(waiting=0, now=60.0)
        == 0.0
    )


@pytest.mark.parametrize("kind", [Submitted, SubmitReconciled])
def test_jobs_in_sequence_take_their_mean_time_each(kind):
    eta = estimate(submitted_event("a", 0.0), finished_event("a", 60.0), submitted_event("b", 60.0, kind))
    assert eta.seconds_left(waiting=2, now=60.0) == pytest.approx(180.0)


def test_the_age_of_a_job_shortens_the_time_left():
    eta = estimate(*(submitted_event(name, 0.0) for name in "abcd"), finished_event("a", 60.0))
    late = eta.seconds_left(waiting=0, now=60.0)
    eta = estimate(
        submitted_event("a", 0.0), *(submitted_event(name, 50.0) for name in "bcd"), finished_event("a", 60.0)
    )
    early = eta.seconds_left(waiting=0, now=60.0)
    assert late is not None
    assert early is not None
    assert early > late


def test_an_item_that_is_not_submitted_takes_a_whole_mean_time():
    events = [submitted_event(str(number), 0.0) for number in range(50)]
    events += [finished_event(str(number), 60.0) for number in range(50)]
    assert estimate(*events).seconds_left(waiting=1, now=60.0) == pytest.approx(60.0)


def test_an_overdue_job_has_some_time_left():
    eta = estimate(submitted_event("a", 0.0), submitted_event("b", 0.0), finished_event("a", 60.0))
    left = eta.seconds_left(waiting=0, now=10_000.0)
    assert left is not None
    assert left >= 6.0


def test_a_job_that_failed_and_is_submitted_again_counts_once():
    eta = estimate(
        submitted_event("a", 0.0),
        status_event("a", 60.0, JobStatus.FAILED),
        submitted_event("b", 60.0),
        finished_event("b", 120.0),
    )
    assert eta.seconds_left(waiting=0, now=120.0) == 0.0


@pytest.mark.parametrize("created_at, left", [(datetime.fromtimestamp(40.0, UTC), 40.0), (None, 60.0)])
def test_a_job_of_an_earlier_run_has_its_age_if_its_record_has_a_time(created_at, left):
    job = Job(request_id="b", status=JobStatus.PROCESSING, created_at=created_at)
    eta = estimate(
        submitted_event("a", 0.0), finished_event("a", 60.0), Resumed(at=60.0, request_id="b", job=job)
    )
    events = [
        Finished(at=60.0 + left, request_id="b", state=ResultState.SUCCEEDED),
        submitted_event("c", 200.0),
    ]
    for event in events:
        eta(event)
    assert eta._sum_of_times == pytest.approx(120.0)


@pytest.mark.parametrize("job", [None, Job(request_id="a", status=JobStatus.SUCCESS)])
def test_a_finished_job_of_an_earlier_run_adds_no_time(job):
    eta = estimate(Resumed(at=0.0, request_id="a", job=job), finished_event("a", 0.0))
    assert eta.seconds_left(waiting=1, now=1.0) is None
    assert eta.pace(now=1.0) == 0.0


def test_the_pace_counts_the_ends_of_this_run():
    eta = estimate(
        submitted_event("a", 0.0),
        submitted_event("b", 0.0),
        finished_event("a", 60.0),
        finished_event("b", 60.0),
    )
    assert eta.pace(now=60.0) == pytest.approx(2 / 60)
    assert eta.pace(now=-1.0) == 0.0


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(-10, 1e6)), min_size=1, max_size=30),
    st.integers(0, 1_000),
    st.integers(0, 30),
    st.floats(-10, 1e7),
)
def test_no_clock_makes_the_time_left_negative(lives, waiting, in_flight, now):
    events = []
    for number, (begin, run) in enumerate(lives):
        events.append(submitted_event(str(number), begin))
        if number >= in_flight:
            events.append(finished_event(str(number), begin + run))
    left = estimate(*events).seconds_left(waiting=waiting, now=now)
    assert left is None or left >= 0.0
