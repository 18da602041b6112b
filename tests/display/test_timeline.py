from __future__ import annotations

import re
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_reader import read

from kling_async._display.timeline import Row, Segment, TimeLine, most_at_once, time_line
from kling_async._display.timeline_svg import area_picture, axis_picture, mini_picture, rows_picture, ticks
from kling_async.errors import APIConnectionError, DownloadError, RateLimitError
from kling_async.events import Downloaded, Finished, PollFailed, StatusChanged, Submitted, Throttled
from kling_async.history import HistoryRecorder, TimeSpan
from kling_async.jobs import Job, JobStatus
from kling_async.results import Result, ResultState

JOB = Job(request_id="a", status=JobStatus.QUEUED)


def result_of(index: int, state: ResultState = ResultState.SUCCEEDED, **fields) -> Result:
    return Result(index=index, request=None, state=state, **fields)


def life(index, *, submitted, running=None, finished=None, saved=None):
    """The events of one job."""
    yield Submitted(at=submitted, index=index, request_id="a", job=JOB)
    if running is not None:
        status, previous = JobStatus.PROCESSING, JobStatus.QUEUED
        yield StatusChanged(at=running, index=index, request_id="a", status=status, previous=previous)
    if finished is not None:
        yield Finished(at=finished, index=index, request_id="a", state=ResultState.SUCCEEDED)
    if saved is not None:
        yield Downloaded(at=saved, index=index, request_id="a", path="a.mp4", size_bytes=1)


def line_of(*lives, states=(), extra=()) -> TimeLine:
    recorder = HistoryRecorder()
    events = [event for number, times in enumerate(lives) for event in life(number, **times)]
    for event in sorted([*events, *extra], key=lambda event: event.at):
        recorder(event)
    results = [
        result_of(index, states[index] if index < len(states) else ResultState.SUCCEEDED)
        for index in range(len(lives))
    ]
    line = time_line(results, recorder.build())
    assert line is not None
    return line


def many(number: int, *, at_once: int, seconds: float = 10.0) -> list[dict[str, float]]:
    """Jobs of equal length, so many at once, one after the other."""
    return [
        {"submitted": index // at_once * seconds, "finished": (index // at_once + 1) * seconds}
        for index in range(number)
    ]


@pytest.mark.parametrize(
    "times, state, segments",
    [
        (
            {"submitted": 1, "running": 3, "finished": 7, "saved": 8},
            ResultState.SUCCEEDED,
            [("queued", 1, 3), ("running", 3, 7), ("saving", 7, 8)],
        ),
        ({"submitted": 1, "finished": 7}, ResultState.SUCCEEDED, [("unseen", 1, 7)]),
        (
            {"submitted": 1, "running": 3, "finished": 7},
            ResultState.FAILED,
            [("queued", 1, 3), ("failed", 3, 7)],
        ),
        ({"submitted": 1, "finished": 7}, ResultState.TIMED_OUT, [("timed_out", 1, 7)]),
        ({"submitted": 1, "running": 5}, ResultState.SUCCEEDED, [("queued", 1, 5), ("running", 5, 5)]),
    ],
)
def test_a_job_has_a_segment_for_each_state_and_ends_in_its_own(times, state, segments):
    (row,) = line_of(times, states=[state]).rows
    assert row.segments == tuple(Segment(kind, TimeSpan(began, ended)) for kind, began, ended in segments)
    assert (row.began, row.ended) == (segments[0][1], segments[-1][2])


def test_the_download_does_not_count_as_time_of_the_job():
    (row,) = line_of({"submitted": 1, "running": 3, "finished": 7, "saved": 100}).rows
    assert row.seconds == 6


def test_a_video_that_was_not_saved_leaves_a_mark_at_the_end_of_its_job_above_all_bars():
    recorder = HistoryRecorder()
    lives = [life(0, submitted=0, running=10, finished=50), life(1, submitted=49.9, finished=50)]
    for event in sorted([*chain(*lives, life(2, submitted=0, finished=100))], key=lambda event: event.at):
        recorder(event)
    lost = DownloadError("disk full")
    line = time_line([result_of(0, error=lost), result_of(1, error=lost), result_of(2)], recorder.build())
    assert line is not None
    assert line.rows[0].segments[-1] == Segment("unsaved", TimeSpan(50, 50))
    assert line.rows[0].seconds == 50
    *_, marks = read(rows_picture(line)).all("path")
    assert marks.attributes["class"] == "unsaved"
    ends = re.findall(r"M(\d+) [\d.]+H(\d+)", marks.attributes["d"])
    assert [(int(begin), int(end)) for begin, end in ends] == [(4950, 5000), (4990, 5004)]


def test_a_batch_of_which_nothing_was_submitted_has_no_time_line():
    recorder = HistoryRecorder()
    recorder(Finished(at=1, index=0, state=ResultState.NOT_SUBMITTED))
    assert time_line([result_of(0, ResultState.NOT_SUBMITTED)], recorder.build()) is None


def test_a_few_jobs_have_a_lane_each_in_the_order_of_their_submits():
    line = line_of(
        {"submitted": 5, "finished": 6}, {"submitted": 1, "finished": 2}, {"submitted": 9, "finished": 9}
    )
    assert [(row.result.index, row.lane) for row in line.rows] == [(1, 0), (0, 1), (2, 2)]
    assert line.has_row_each
    assert line.lanes == 3
    labels = [text.text for text in read(rows_picture(line)).all("text")]
    assert labels == ["#1", "#0", "#2"]


def test_the_number_of_a_job_stands_on_the_side_that_has_room():
    line = line_of({"submitted": 0, "finished": 50}, {"submitted": 80, "finished": 100})
    early, late = read(rows_picture(line)).all("text")
    assert (early.attributes["x"], early.attributes["text-anchor"]) == ("50%", "start")
    assert (late.attributes["x"], late.attributes["text-anchor"]) == ("80%", "end")


def test_the_number_of_a_job_that_ran_all_the_time_stands_on_its_bar():
    line = line_of({"submitted": 10, "finished": 96}, {"submitted": 0, "finished": 100})
    whole, longest = read(rows_picture(line)).all("text")
    assert {text.attributes["text-anchor"] for text in (whole, longest)} == {"start"}
    assert [text.attributes["x"] for text in (whole, longest)] == ["0%", "10%"]


def test_many_jobs_share_lanes():
    line = line_of(*many(200, at_once=20))
    assert line.lanes == 20
    assert not line.has_row_each
    assert read(rows_picture(line)).all("text") == []


@pytest.mark.unmeasured
@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 100)).map(sorted).map(lambda pair: TimeSpan(*pair)),
        min_size=41,
        max_size=60,
    )
)
def test_no_two_jobs_of_a_lane_overlap_and_no_lane_is_superfluous(spans):
    line = line_of(*({"submitted": span.began, "finished": span.ended} for span in spans))
    lanes = {}
    for row in line.rows:
        lanes.setdefault(row.lane, []).append(row)
    for rows in lanes.values():
        assert all(one.ended <= other.began for one, other in pairwise(rows))
    assert sorted(lanes) == list(range(line.lanes))
    assert most_at_once(line) <= line.lanes


@pytest.mark.parametrize("at_once, pitch", [(1, 16), (41, 8), (111, 4), (241, 2), (481, 1)])
def test_more_lanes_are_thinner(at_once, pitch):
    line = line_of(*many(max(at_once, 41), at_once=at_once))
    assert line.lanes == at_once
    assert line.pitch == pitch
    height = float(read(rows_picture(line)).one("svg", class_="rows").attributes["height"])
    assert at_once * pitch <= height <= at_once * pitch + 20


def test_a_bar_is_never_too_short_to_be_seen():
    line = line_of({"submitted": 0, "finished": 0}, {"submitted": 0, "finished": 1e9})
    widths = [int(end) - int(begin) for begin, end in re.findall(r"M(\d+) [\d.]+H(\d+)", rows_picture(line))]
    assert min(widths) >= 10


def test_jobs_much_slower_than_usual_are_slow_rows():
    times = [{"submitted": 0, "finished": 10}] * 8 + [
        {"submitted": 0, "finished": end} for end in (31, 90, 29)
    ]
    line = line_of(*times)
    assert line.usual_seconds == 10
    assert [row.result.index for row in line.slow_rows()] == [9, 8]


def test_a_handful_of_jobs_has_no_usual_time():
    line = line_of({"submitted": 0, "finished": 1}, {"submitted": 0, "finished": 100})
    assert line.usual_seconds is None
    assert line.slow_rows() == []


def test_the_areas_count_the_jobs_of_each_moment():
    line = line_of(*many(40, at_once=10))
    assert most_at_once(line) == 10
    picture = read(area_picture(line))
    assert picture.one("text").text == "10 at once"
    (path,) = picture.all("path")
    assert path.attributes["class"] == "running"
    # Ten at every moment: the area is full from its left to its right.
    heights = set(re.findall(r"V([\d.]+)H", path.attributes["d"]))
    assert len(heights) == 2


def test_the_areas_show_queued_and_running_jobs_and_no_job_whose_video_is_being_saved():
    life_with_save = {"submitted": 0, "running": 30, "finished": 60, "saved": 90}
    line = line_of(life_with_save, {"submitted": 60, "running": 70, "finished": 90})
    picture = read(area_picture(line))
    assert [path.attributes["class"] for path in picture.all("path")] == ["running", "queued"]
    assert most_at_once(line) == 1
    assert picture.one("text").text == "1 at once"


def test_pauses_and_outages_cross_every_picture():
    lost, slow = APIConnectionError("x"), RateLimitError("x")
    trouble = [
        Throttled(at=20, delay=30, error=slow),
        PollFailed(at=60, index=0, request_id="a", delay=10, error=lost),
    ]
    line = line_of({"submitted": 0, "finished": 100}, extra=trouble)
    for picture in (read(area_picture(line)), read(rows_picture(line))):
        pause = picture.one("rect", class_="pause").attributes
        outage = picture.one("rect", class_="outage").attributes
        assert (pause["x"], pause["width"]) == ("20%", "30%")
        assert (outage["x"], outage["width"]) == ("60%", "10%")


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0.5, ["0:00"]),
        (5, ["0:00", "0:01", "0:02", "0:03", "0:04", "0:05"]),
        (100, ["0:00", "0:30", "1:00", "1:30"]),
        (2_000, ["0:00", "10:00", "20:00", "30:00"]),
        (8 * 86_400, ["0:00", "48:00:00", "96:00:00", "144:00:00", "192:00:00"]),
    ],
)
def test_the_axis_has_a_few_round_times(seconds, words):
    line = line_of({"submitted": 0, "finished": seconds})
    assert [word for _, word in ticks(line)] == words
    assert [text.text for text in read(axis_picture(line)).all("text")] == words


def test_no_word_leaves_the_axis():
    first, *middle, last = read(axis_picture(line_of({"submitted": 0, "finished": 60}))).all("text")
    assert first.attributes["text-anchor"] == "start"
    assert {text.attributes["text-anchor"] for text in middle} == {"middle"}
    assert last.attributes["text-anchor"] == "end"


def test_a_job_has_a_small_picture_of_its_own():
    (row,) = line_of({"submitted": 10, "running": 20, "finished": 50, "saved": 50}).rows
    queued, running, saving = read(mini_picture(row)).all("rect")
    assert (queued.attributes["x"], queued.attributes["width"]) == ("0", "250")
    assert (running.attributes["x"], running.attributes["width"]) == ("250", "750")
    assert int(saving.attributes["width"]) > 0


def test_a_batch_of_zero_length_can_be_drawn():
    line = line_of({"submitted": 5, "finished": 5})
    assert most_at_once(line) == 1
    for picture in (area_picture(line), rows_picture(line), mini_picture(line.rows[0])):
        assert "nan" not in picture
        assert "inf" not in picture


def test_times_beyond_the_picture_are_drawn_at_its_edge():
    row = Row(result_of(0), (Segment("queued", TimeSpan(-5.0, 50.0)),))
    line = TimeLine(whole=TimeSpan(0.0, 10.0), rows=(row,))
    assert (line.units(-5.0), line.units(50.0)) == (0, 10_000)
