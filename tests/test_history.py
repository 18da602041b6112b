from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
from virtual_service import Service, VirtualLoop

from kling_async import BatchInterruptedError, KlingClient
from kling_async.errors import APIConnectionError, RateLimitError
from kling_async.events import (
    Downloaded,
    Event,
    Finished,
    NotSubmitted,
    PollFailed,
    Resumed,
    Retrying,
    StatusChanged,
    SubmitReconciled,
    Submitted,
    Throttled,
)
from kling_async.history import BatchHistory, HistoryRecorder, ItemTimes, TimeSpan
from kling_async.jobs import Job, JobStatus
from kling_async.results import ResultState

LOST = APIConnectionError("no connection.")


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


def submitted_event(at: float, index: int | None = 0, status: JobStatus = JobStatus.QUEUED, kind=Submitted):
    return kind(at=at, index=index, request_id="a", job=Job(request_id="a", status=status))


def status_event(at: float, status: JobStatus, index: int | None = 0):
    return StatusChanged(at=at, index=index, request_id="a", status=status, previous=JobStatus.QUEUED)


def resumed_event(at: float, status: JobStatus | None):
    job = Job(request_id="a", status=status) if status else None
    return Resumed(at=at, index=0, request_id="a", job=job)


def finished_event(at: float, index: int | None = 0):
    return Finished(at=at, index=index, request_id="a", state=ResultState.SUCCEEDED)


def saved_event(at: float, index: int | None = 0):
    return Downloaded(at=at, index=index, request_id="a", path=Path("a.mp4"), size_bytes=7)


def throttled_event(at: float, delay: float):
    return Throttled(at=at, delay=delay, error=RateLimitError("slow down"))


def failed_poll(at: float, delay: float, index: int | None = 0):
    return PollFailed(at=at, index=index, request_id="a", delay=delay, error=LOST)


def history_of(*events) -> BatchHistory:
    recorder = HistoryRecorder()
    for event in (Event(at=0.0), *events):
        recorder(event)
    history = recorder.build()
    assert history is not None
    return history


@pytest.mark.parametrize(
    "events, times",
    [
        ([], ItemTimes()),
        ([submitted_event(1)], ItemTimes(submitted=1, submits=1)),
        ([submitted_event(1, kind=SubmitReconciled)], ItemTimes(submitted=1, submits=1)),
        ([submitted_event(1), status_event(2, JobStatus.DISPATCHED)], ItemTimes(submitted=1, submits=1)),
        (
            [submitted_event(1), status_event(2, JobStatus.PROCESSING)],
            ItemTimes(submitted=1, running=2, submits=1),
        ),
        ([submitted_event(1, status=JobStatus.PROCESSING)], ItemTimes(submitted=1, running=1, submits=1)),
        (
            [submitted_event(1), status_event(2, JobStatus.PROCESSING), finished_event(5), saved_event(6)],
            ItemTimes(submitted=1, running=2, finished=5, saved=6, submits=1),
        ),
        (
            [submitted_event(1), failed_poll(2, 1), failed_poll(3, 1)],
            ItemTimes(submitted=1, submits=1, failed_polls=2),
        ),
        ([finished_event(5)], ItemTimes(finished=5)),
        ([resumed_event(1, JobStatus.QUEUED)], ItemTimes(submitted=1, submits=0)),
        ([resumed_event(1, JobStatus.PROCESSING)], ItemTimes(submitted=1, running=1, submits=0)),
        ([resumed_event(1, JobStatus.SUCCESS), finished_event(1)], ItemTimes(finished=1)),
        ([resumed_event(1, None)], ItemTimes()),
    ],
)
def test_the_times_of_an_item_are_those_of_its_events(events, times):
    assert history_of(*events).times_of(0) == times


def test_an_item_that_was_submitted_again_waits_again_and_keeps_its_first_submit():
    history = history_of(submitted_event(1), status_event(2, JobStatus.PROCESSING), submitted_event(9))
    assert history.times_of(0) == ItemTimes(submitted=1, submits=2)


@pytest.mark.parametrize("index", [-1, 1, 5_000])
def test_an_item_that_no_event_named_has_no_times(index):
    assert history_of(submitted_event(1)).times_of(index) == ItemTimes()


def test_events_of_different_items_may_come_in_any_order():
    history = history_of(submitted_event(1, index=4), submitted_event(2, index=0), finished_event(3, index=4))
    assert history.times_of(4) == ItemTimes(submitted=1, finished=3, submits=1)
    assert history.times_of(0) == ItemTimes(submitted=2, submits=1)
    assert history.times_of(2) == ItemTimes()


def test_an_event_without_an_index_sets_no_time_of_an_item():
    without_index = (
        submitted_event(1, None),
        status_event(2, JobStatus.PROCESSING, None),
        finished_event(3, None),
        saved_event(4, None),
    )
    history = history_of(*without_index, failed_poll(5, 1, None), NotSubmitted(at=6, error=LOST))
    assert history.times_of(0) == ItemTimes()
    assert (history.started, history.ended) == (0, 6)


def test_retries_throttles_failed_polls_and_bytes_are_counted_over_all_items():
    retry = Retrying(at=5, call="status", attempt=1, delay=1, error=LOST)
    history = history_of(
        submitted_event(2),
        retry,
        throttled_event(6, 1),
        failed_poll(7, 1),
        saved_event(8),
        saved_event(9, index=1),
    )
    assert (history.started, history.ended) == (0, 9)
    assert (history.retries, history.throttles, history.failed_polls, history.saved_bytes) == (1, 1, 1, 14)


def test_there_is_no_history_before_the_first_event():
    recorder = HistoryRecorder()
    assert recorder.build() is None
    recorder(Event(at=2.0))
    recorder(Event(at=3.0))
    assert recorder.build() == BatchHistory(started=2.0, ended=3.0)


def test_a_history_does_not_change_when_more_events_come():
    recorder = HistoryRecorder()
    recorder(submitted_event(1))
    history = recorder.build()
    recorder(finished_event(2))
    recorder(throttled_event(3, 1))
    assert history is not None
    assert history.times_of(0) == ItemTimes(submitted=1, submits=1)
    assert (history.ended, history.pauses) == (1, ())


@pytest.mark.parametrize(
    "spans, merged",
    [
        ([(10, 5)], [TimeSpan(10, 15)]),
        ([(10, 5), (12, 1)], [TimeSpan(10, 15)]),
        ([(10, 5), (12, 9)], [TimeSpan(10, 21)]),
        ([(10, 5), (16, 2)], [TimeSpan(10, 15), TimeSpan(16, 18)]),
        ([(1_000, 5), (1_006, 2)], [TimeSpan(1_000, 1_008)]),
    ],
)
@pytest.mark.parametrize("kind, spans_of", [(throttled_event, "pauses"), (failed_poll, "outages")])
def test_time_spans_that_overlap_or_nearly_touch_become_one(kind, spans_of, spans, merged):
    history = history_of(submitted_event(0), *(kind(at, delay) for at, delay in spans))
    assert getattr(history, spans_of) == tuple(merged)


@pytest.mark.unmeasured
def test_a_hundred_thousand_items_take_little_memory():
    recorder = HistoryRecorder()
    for index in range(100_000):
        recorder(submitted_event(float(index), index=index))
    history = recorder.build()
    assert history is not None
    assert history.times_of(99_999).submitted == 99_999.0
    for value in (history, recorder):
        names = (name for name in type(value).__slots__ if name != "__weakref__")
        assert sum(sys.getsizeof(getattr(value, name)) for name in names) < 60 * 100_000


def test_a_history_survives_pickle():
    history = pickle.loads(pickle.dumps(history_of(submitted_event(1), throttled_event(2, 3))))  # noqa: S301
    assert history.times_of(0) == ItemTimes(submitted=1, submits=1)
    assert history.pauses == (TimeSpan(2, 5),)


async def test_a_batch_has_its_history(tmp_path):
    heard = []
    client = KlingClient("key", transport=Service(run_time=5.0))
    batch = await client.generate_many(["a", "b"], output=tmp_path, on_event=heard.append)
    assert batch.history is not None
    for index in (0, 1):
        times = batch.history.times_of(index)
        assert None not in (times.submitted, times.running, times.finished, times.saved)
    assert batch.history.saved_bytes == sum(path.stat().st_size for path in batch.paths)
    assert (batch.history.started, batch.history.ended) == (heard[0].at, heard[-1].at)


async def test_results_before_an_error_of_the_input_have_their_history():
    def fail_midway():
        yield "a"
        raise OSError("the disk went away")

    with pytest.raises(BatchInterruptedError, match="went away") as caught:
        await KlingClient("key", transport=Service()).generate_many(fail_midway())
    assert caught.value.batch.history.times_of(0).submits == 1
