from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

import pytest
from page_reader import read

from kling_async._display.overview import (
    failures_html,
    figures_html,
    filters_html,
    links_to,
    time_line_html,
    when_html,
)
from kling_async._display.timeline import TimeLine, time_line
from kling_async._policy.job_end import error_of
from kling_async._secrets import Secret
from kling_async.batch_result import BatchResult
from kling_async.errors import (
    APIConnectionError,
    DownloadError,
    NotFoundError,
    RateLimitError,
    WaitTimeoutError,
)
from kling_async.events import Downloaded, Finished, PollFailed, Resumed, StatusChanged, Submitted, Throttled
from kling_async.history import BatchHistory, HistoryRecorder
from kling_async.jobs import Job, JobStatus, Outcome
from kling_async.requests import VideoRequest
from kling_async.results import Result, ResultState

BEGAN = 1_800_000_000.0  # 15 January 2027, 08:00:00 UTC
JOB = Job(request_id="a", status=JobStatus.SUCCESS)


@pytest.fixture(autouse=True)
def in_utc(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC0")
        time.tzset()
        yield
    time.tzset()


def result_of(index=0, state=ResultState.SUCCEEDED, *, job=JOB, prompt="x", **fields) -> Result:
    return Result(index=index, request=VideoRequest(prompt), state=state, job=job, **fields)


def failed_result(index: int, reason: str | None, status=JobStatus.FAILED) -> Result:
    job = Job(request_id=f"job-{index}", status=status, outcome=Outcome(error=reason))
    state = ResultState.FAILED if status is JobStatus.FAILED else ResultState.CANCELLED
    return result_of(index, state, job=job, error=error_of(job, secret=Secret("key")))


def history_of(jobs: int, *, seconds: float = 60.0, size: int = 0, extra=()) -> BatchHistory:
    """Jobs that all ran at once for so many seconds, of which a sixth was spent in the queue."""
    recorder, ended = HistoryRecorder(), BEGAN + seconds
    events = list(extra)
    for index in range(jobs):
        job = Job(request_id=f"{index}", status=JobStatus.QUEUED)
        running, queued = JobStatus.PROCESSING, JobStatus.QUEUED
        events += [
            Submitted(at=BEGAN, index=index, job=job),
            StatusChanged(at=BEGAN + seconds / 6, index=index, status=running, previous=queued),
            Finished(at=ended, index=index, state=ResultState.SUCCEEDED),
        ]
        if size:
            events.append(Downloaded(at=ended, index=index, path=Path("a"), size_bytes=size))
    for event in sorted(events, key=lambda event: event.at):
        recorder(event)
    history = recorder.build()
    assert history is not None
    return history


def figures(batch: BatchResult) -> dict[str, str]:
    page = read(figures_html(batch, batch.history))
    return {term.text: value.text for term, value in zip(page.all("dt"), page.all("dd"), strict=True)}


def test_a_batch_without_a_history_has_its_videos_and_its_spend():
    batch = BatchResult((result_of(0, cost_usd=Decimal("0.35")), failed_result(1, "policy")))
    assert figures(batch) == {"Videos": "1 of 2", "Spend": "at least $0.35"}


def test_a_batch_with_a_history_has_its_time_and_pace():
    batch = BatchResult(tuple(map(result_of, range(120))), history=history_of(120, size=1_000_000))
    assert figures(batch) == {
        "Videos": "120 of 120",
        "Spend": "not known",
        "Time": "1 min 00 s",
        "Pace": "2 a second",
        "Usual run": "50 s",
        "Saved": "120 MB",
    }


def test_the_figures_of_a_resumed_batch_say_which_are_of_the_last_run():
    batch = BatchResult(tuple(map(result_of, range(600))), history=history_of(120, size=1_000_000))
    assert figures(batch) == {
        "Videos": "600 of 600",
        "Spend": "not known",
        "Time of the last run": "1 min 00 s",
        "Pace of the last run": "2 a second",
        "Usual run": "50 s",
        "Saved by the last run": "120 MB",
    }
    assert read(when_html(batch, batch.history)).text.startswith("Last run: 15 January 2027, 08:00:00 to ")


def resumed_history(*, seconds=9.2, status=JobStatus.PROCESSING):
    """A run that only waits for the end of a job of an earlier run."""
    recorder = HistoryRecorder()
    job = Job(request_id="a", status=status)
    recorder(Resumed(at=BEGAN, index=0, request_id="a", job=job, path=None))
    recorder(Finished(at=BEGAN + seconds, index=0, state=ResultState.SUCCEEDED))
    return recorder.build()


def test_the_end_of_a_job_of_an_earlier_run_is_neither_a_pace_nor_a_usual_run():
    batch = BatchResult((result_of(),), history=resumed_history())
    assert set(figures(batch)) == {"Videos", "Spend", "Time of the last run"}


def test_a_job_of_an_earlier_run_is_marked_on_the_time_line_and_never_the_usual_time():
    history = resumed_history()
    line = time_line([result_of()], history)
    assert line.rows[0].is_resumed
    assert [segment.kind for segment in line.rows[0].segments] == ["running"]
    notes = read(time_line_html(line, history)).one("ul", class_="notes").all("li")
    assert [note.text for note in notes] == [
        "1 job over 9.2 s, at most 1 at once.",
        "An earlier run submitted 1 job of these: the bar begins where this run resumed the job.",
    ]
    assert TimeLine(whole=line.whole, rows=line.rows * 9).usual_seconds is None


def test_a_batch_that_made_nothing_has_no_pace():
    batch = BatchResult((failed_result(0, "policy"),), history=history_of(1))
    assert set(figures(batch)) == {"Videos", "Spend", "Time"}


@pytest.mark.parametrize(
    "jobs, seconds, pace",
    [(1, 30, "2 a minute"), (1, 1_800, "2 an hour"), (1, 43_200, "2 a day"), (240, 60, "4 a second")],
)
def test_the_unit_of_the_pace_makes_it_at_least_one(jobs, seconds, pace):
    batch = BatchResult(tuple(map(result_of, range(jobs))), history=history_of(jobs, seconds=seconds))
    assert figures(batch)["Pace"] == pace


@pytest.mark.parametrize(
    "costs, spend",
    [
        ([None, None], "not known"),
        (["0.35", "0.35"], "$0.70"),
        (["0.35", None], "at least $0.35"),
    ],
)
def test_an_unknown_cost_makes_the_sum_a_lower_bound(costs, spend):
    results = [result_of(index, cost_usd=Decimal(cost) if cost else None) for index, cost in enumerate(costs)]
    assert figures(BatchResult(tuple(results)))["Spend"] == spend


def test_an_item_that_was_not_submitted_has_no_unknown_cost():
    never = Result(index=1, request=None, state=ResultState.NOT_SUBMITTED)
    assert figures(BatchResult((result_of(cost_usd=Decimal(1)), never)))["Spend"] == "$1.00"


@pytest.mark.parametrize(
    "seconds, when",
    [
        (60, "15 January 2027, 08:00:00 to 08:01:00 (UTC+0000)"),
        (86_400, "15 January 2027, 08:00:00 to 16 January 2027, 08:00:00 (UTC+0000)"),
    ],
)
def test_the_headline_says_when_the_batch_ran_and_with_which_models(seconds, when):
    other = Result(index=1, request=VideoRequest("x", model="<b>"), state=ResultState.FAILED)
    batch = BatchResult((result_of(), other), history=history_of(1, seconds=seconds))
    assert read(when_html(batch, batch.history)).text == f"{when} · <b>, kling-v2-6"


def test_without_a_history_the_headline_names_only_the_models():
    assert read(when_html([result_of()], None)).text == "kling-v2-6"
    assert when_html([], None) == ""


def unsaved_error(cause: Exception | None) -> DownloadError:
    error = DownloadError("The video of job a was not saved to 'v/x.mp4'.", request_id="a")
    error.__cause__ = cause
    return error


def test_equal_reasons_share_a_row_and_the_most_frequent_comes_first():
    results = (
        failed_result(0, "worker lost"),
        failed_result(1, "policy"),
        failed_result(2, "policy"),
        result_of(3),
        result_of(4, error=DownloadError("The video of job a was not saved.", request_id="a")),
    )
    rows = read(failures_html(BatchResult(results))).one("tbody").all("tr")
    assert [[cell.text for cell in row.all("td")] for row in rows] == [
        ["2", "failed", "policy", "#1, #2"],
        ["1", "failed", "worker lost", "#0"],
        ["1", "made, not saved", "The video of job … was not saved.", "#4"],
    ]
    assert rows[0].all("a")[1].attributes["href"] == "#job-2"


def test_without_failures_there_is_no_table():
    assert failures_html(BatchResult((result_of(),))) == ""


@pytest.mark.parametrize(
    "result, reason",
    [
        (failed_result(3, "policy."), "policy."),
        (failed_result(3, None), "Job … failed at the service: no reason given. It may have been charged."),
        (
            result_of(state=ResultState.TIMED_OUT, error=WaitTimeoutError("Job a is late", request_id="a")),
            "Job … is late",
        ),
        (result_of(state=ResultState.FAILED, error=APIConnectionError("lost")), "lost"),
        (result_of(state=ResultState.FAILED), None),
        (result_of(error=unsaved_error(NotFoundError("gone (HTTP 404)"))), "gone (HTTP 404)"),
        (result_of(error=unsaved_error(OSError(28, "No space left", "v/x.mp4"))), "No space left"),
        (result_of(error=unsaved_error(OSError())), "OSError"),
        (result_of(error=unsaved_error(None)), "The video of job … was not saved to 'v/x.mp4'."),
    ],
)
def test_a_reason_does_not_name_the_job(result, reason):
    assert result.failure_reason == reason


def test_the_first_dozen_of_many_results_have_links():
    links = read(links_to([result_of(index) for index in range(1_014)]))
    assert len(links.all("a")) == 12
    assert links.text.endswith("#11 and 1,002 more")


def test_each_state_that_occurs_can_be_chosen():
    unsaved = result_of(3, error=DownloadError("disk full"))
    page = read(filters_html([failed_result(2, "x"), unsaved, result_of(0), result_of(1)]))
    words = ["all 4", "succeeded 2", "made, not saved 1", "failed 1"]
    assert [label.text for label in page.all("label")] == words
    values = [(field.attributes["value"], "checked" in field.attributes) for field in page.all("input")]
    assert values == [("", True), ("succeeded", False), ("unsaved", False), ("failed", False)]


def section_of(jobs: int, *, results=None, **times):
    history = history_of(jobs, **times)
    line = time_line(results or [result_of(index) for index in range(jobs)], history)
    return read(time_line_html(line, history))


def test_the_time_line_is_described_in_words():
    page = section_of(3)
    assert [note.text for note in page.one("ul", class_="notes").all("li")] == [
        "3 jobs over 1 min 00 s, at most 3 at once."
    ]
    legend = page.one("ul", class_="legend")
    assert [item.text for item in legend.all("li")] == ["queued", "running"]


def test_pauses_and_outages_are_described_in_words():
    lost, slow = APIConnectionError("x"), RateLimitError("x")
    trouble = [
        Throttled(at=BEGAN + 1, delay=5, error=slow),
        PollFailed(at=BEGAN + 30, index=0, delay=2, error=lost),
        PollFailed(at=BEGAN + 50, index=0, delay=2, error=lost),
    ]
    page = section_of(1, extra=trouble)
    notes = [note.text for note in page.one("ul", class_="notes").all("li")]
    assert notes[1:] == [
        "Submits paused once: nothing was submitted for 5.0 s in all.",
        "Status calls failed 2 times, over 4.0 s in all; the jobs went on.",
    ]
    legend = page.one("ul", class_="legend").text
    assert "nothing submitted" in legend
    assert "status calls failing" in legend


@pytest.mark.parametrize("slow, words", [(1, "1 job took"), (2, "2 jobs took")])
def test_slow_jobs_are_named_and_linked(slow, words):
    late = [
        Finished(at=BEGAN + 600 + index, index=index, state=ResultState.SUCCEEDED) for index in range(slow)
    ]
    page = section_of(10, extra=late)
    note = page.one("ul", class_="notes").all("li")[1]
    assert note.text.startswith(f"{words} more than three times the usual 1 min 00 s")
    assert [link.attributes["href"] for link in note.all("a")] == [
        f"#job-{slow - 1 - n}" for n in range(slow)
    ]


def test_lanes_that_jobs_share_are_explained():
    notes = section_of(50).one("ul", class_="notes").text
    assert "A line holds one job after the other" in notes


def test_a_state_that_ended_a_job_is_in_the_legend():
    page = section_of(1, results=[failed_result(0, "x")])
    assert "failed" in page.one("ul", class_="legend").text
