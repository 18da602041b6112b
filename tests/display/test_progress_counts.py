from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from kling_async._display.progress_counts import ProgressCounts, describe_trouble
from kling_async.errors import APIConnectionError, RateLimitError
from kling_async.events import (
    Downloaded,
    Downloading,
    Finished,
    NotSubmitted,
    PollFailed,
    Resumed,
    Retrying,
    Spent,
    StatusChanged,
    SubmitLost,
    SubmitReconciled,
    Submitted,
    Throttled,
)
from kling_async.jobs import Job, JobStatus
from kling_async.results import ResultState

LOST = APIConnectionError("no connection.")


def submitted_event(request_id: str, status: JobStatus = JobStatus.QUEUED, kind=Submitted):
    return kind(at=0.0, request_id=request_id, job=Job(request_id=request_id, status=status))


def status_event(request_id: str, status: JobStatus, previous: JobStatus = JobStatus.QUEUED):
    return StatusChanged(at=0.0, request_id=request_id, status=status, previous=previous)


def finished_event(request_id: str | None, state: ResultState):
    return Finished(at=0.0, request_id=request_id, state=state)


def downloaded_event(request_id: str):
    return Downloaded(at=0.0, request_id=request_id, path=Path("a.mp4"), size_bytes=1)


def count_events(*events, saves: bool = True) -> ProgressCounts:
    counts = ProgressCounts(total=9, saves=saves)
    for event in events:
        counts(event)
    return counts


def nonzero(counts: ProgressCounts) -> dict[str, int]:
    names = ("queued", "running", "succeeded", "failed", "not_submitted", "saved", "submitted", "without_job")
    return {name: getattr(counts, name) for name in names if getattr(counts, name)}


@pytest.mark.parametrize(
    "events, expected, pending_ids",
    [
        ([], {}, ()),
        ([submitted_event("a")], {"queued": 1, "submitted": 1}, ("a",)),
        ([submitted_event("a", kind=SubmitReconciled)], {"queued": 1, "submitted": 1}, ("a",)),
        (
            [submitted_event("a"), status_event("a", JobStatus.DISPATCHED)],
            {"queued": 1, "submitted": 1},
            ("a",),
        ),
        (
            [submitted_event("a"), status_event("a", JobStatus.PROCESSING)],
            {"running": 1, "submitted": 1},
            ("a",),
        ),
        (
            [submitted_event("a", JobStatus.PROCESSING), finished_event("a", ResultState.SUCCEEDED)],
            {"succeeded": 1, "submitted": 1},
            ("a",),
        ),
        (
            [submitted_event("a"), finished_event("a", ResultState.SUCCEEDED), downloaded_event("a")],
            {"succeeded": 1, "saved": 1, "submitted": 1},
            (),
        ),
        ([submitted_event("a"), finished_event("a", ResultState.FAILED)], {"failed": 1, "submitted": 1}, ()),
        (
            [submitted_event("a"), finished_event("a", ResultState.CANCELLED)],
            {"failed": 1, "submitted": 1},
            (),
        ),
        (
            [submitted_event("a"), finished_event("a", ResultState.TIMED_OUT)],
            {"failed": 1, "submitted": 1},
            ("a",),
        ),
        ([finished_event(None, ResultState.NOT_SUBMITTED)], {"not_submitted": 1, "without_job": 1}, ()),
        ([finished_event(None, ResultState.AMBIGUOUS)], {"failed": 1, "without_job": 1}, ()),
    ],
)
def test_counts_follow_the_events(events, expected, pending_ids):
    counts = count_events(*events)
    assert nonzero(counts) == expected
    assert counts.pending_ids == pending_ids
    assert counts.ended == counts.succeeded + counts.failed + counts.not_submitted


@pytest.mark.parametrize(
    "state, in_flight_ids, unsaved", [(ResultState.SUCCEEDED, (), 1), (ResultState.TIMED_OUT, ("a",), 0)]
)
def test_a_job_whose_video_is_made_is_not_in_flight(state, in_flight_ids, unsaved):
    counts = count_events(
        submitted_event("a"), status_event("a", JobStatus.SUCCESS), finished_event("a", state)
    )
    assert (counts.in_flight_ids, counts.unsaved, counts.pending_ids) == (in_flight_ids, unsaved, ("a",))


def test_a_success_that_is_not_to_be_saved_is_not_pending():
    assert (
        count_events(
            submitted_event("a"), finished_event("a", ResultState.SUCCEEDED), saves=False
        ).pending_ids
        == ()
    )


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_failed_job_is_not_counted_after_its_item_got_another(status):
    counts = count_events(submitted_event("a"), status_event("a", status), submitted_event("b"))
    assert nonzero(counts) == {"queued": 1, "submitted": 2}
    assert counts.pending_ids == ("b",)


@pytest.mark.parametrize("total, waiting", [(9, 8), (None, 0), (0, 0)])
def test_items_that_are_not_submitted_wait_if_the_total_is_known(total, waiting):
    counts = ProgressCounts(total=total)
    counts(submitted_event("a"))
    assert counts.waiting == waiting


def test_jobs_of_an_earlier_run_are_followed():
    counts = ProgressCounts(total=1, saves=True)
    counts.follow("a")
    assert nonzero(counts) == {"queued": 1, "submitted": 1}
    counts(status_event("a", JobStatus.PROCESSING, JobStatus.UNKNOWN))
    assert nonzero(counts) == {"running": 1, "submitted": 1}


def test_a_note_of_trouble_stays_until_the_next_progress():
    counts = count_events(Throttled(at=0.0, delay=3.0, error=RateLimitError("slow down")))
    assert counts.note == "slow down; no submit for 3 s"
    counts(NotSubmitted(at=0.0, error=LOST))
    assert counts.note == "slow down; no submit for 3 s"
    counts(submitted_event("a"))
    assert counts.note is None


@pytest.mark.parametrize(
    "event, note",
    [
        (
            Retrying(at=0.0, call="list", attempt=1, delay=0.54, error=LOST),
            "no connection; trying again in 0.5 s",
        ),
        (PollFailed(at=0.0, delay=2.0, error=LOST), "no connection; polling again in 2.0 s"),
        (submitted_event("a"), None),
    ],
)
def test_only_trouble_has_a_note(event, note):
    assert describe_trouble(event) == note


@pytest.mark.parametrize(
    "status, expected",
    [
        (JobStatus.QUEUED, {"queued": 1, "submitted": 1}),
        (JobStatus.PROCESSING, {"running": 1, "submitted": 1}),
        (JobStatus.SUCCESS, {"submitted": 1}),
        (None, {}),
    ],
)
def test_an_unfinished_job_of_an_earlier_run_is_in_flight(status, expected):
    job = Job(request_id="a", status=status) if status else None
    assert nonzero(count_events(Resumed(at=0.0, request_id="a", job=job))) == expected


def test_a_video_that_an_earlier_run_saved_is_neither_pending_nor_unsaved():
    job = Job(request_id="a", status=JobStatus.SUCCESS)
    resumed = Resumed(at=0.0, request_id="a", job=job, path=Path("a.mp4"))
    counts = count_events(resumed, finished_event("a", ResultState.SUCCEEDED))
    assert nonzero(counts) == {"succeeded": 1, "saved": 1, "submitted": 1}
    assert (counts.saved_before, counts.pending_ids) == (1, ())


@pytest.mark.parametrize(
    "lost", [SubmitLost(at=0.0, index=3, error=LOST), Resumed(at=0.0, index=3)], ids=["now", "before"]
)
@pytest.mark.parametrize(
    "end, expected",
    [
        (Finished(at=0.0, index=3, state=ResultState.AMBIGUOUS), 0),
        (SubmitReconciled(at=0.0, index=3, request_id="a", job=Job(request_id="a", status="queued")), 0),
        (Submitted(at=0.0, index=3, request_id="a", job=Job(request_id="a", status="queued")), 0),
        (Finished(at=0.0, index=4, state=ResultState.SUCCEEDED), 1),
    ],
)
def test_a_lost_submit_is_unanswered_until_it_is_reconciled(lost, end, expected):
    counts = count_events(lost)
    assert counts.unanswered == 1
    counts(end)
    assert counts.unanswered == expected


def test_spent_is_the_latest_total_and_bought_the_sum_of_this_run():
    assert (count_events().spent_usd, count_events().bought_usd) == (None, None)
    spent = [Spent(at=0.0, cost_usd=Decimal(1), total_usd=Decimal(total)) for total in (4, 5)]
    counts = count_events(*spent)
    assert (counts.spent_usd, counts.bought_usd) == (5, 2)


def test_the_download_rate_follows_the_bytes_as_they_come():
    job = Job(request_id="a", status=JobStatus.QUEUED)
    made = [
        Submitted(at=0.0, request_id="a", job=job),
        Finished(at=10.0, request_id="a", state=ResultState.SUCCEEDED),
    ]
    so_far = [
        Downloading(at=10.0 + step, request_id="a", size_bytes=5_000 + step * 1_000) for step in range(4)
    ]
    counts = count_events(*made, *so_far)
    assert counts.bytes_per_second(now=13.0) == pytest.approx(1_000, rel=0.2)  # not those of an earlier run
    whole = Downloaded(at=14.0, request_id="a", path=Path("a.mp4"), size_bytes=9_000)
    assert count_events(*made, *so_far, whole).bytes_per_second(now=14.0) == pytest.approx(1_000, rel=0.2)
    restarted = Downloading(at=14.0, request_id="a", size_bytes=0)
    assert count_events(*made, *so_far, restarted).bytes_per_second(now=14.0) > 0


def test_downloads_have_a_size_and_a_rate():
    job = Job(request_id="a", status=JobStatus.QUEUED)
    counts = count_events(
        Submitted(at=0.0, request_id="a", job=job),
        Finished(at=10.0, request_id="a", state=ResultState.SUCCEEDED),
        Downloaded(at=11.0, request_id="a", path=Path("a.mp4"), size_bytes=1_000),
    )
    assert counts.saved_bytes == 1_000
    # The seconds before do not count: only from the first video on could anything come.
    assert counts.bytes_per_second(now=11.0) > 900
