from __future__ import annotations

from decimal import Decimal

import pytest
from html_page import Page

from kling_async._display.progress_counts import ProgressCounts
from kling_async._display.progress_view import BatchPhase, ProgressView, left_text, pace_text
from kling_async.jobs import JobStatus

HOSTILE = '</div><script>alert(1)</script><img src=x onerror="alert(1)">'


def count_events(*, total: int | None = 10, saves: bool = False, **values) -> ProgressCounts:
    counts = ProgressCounts(total=total, saves=saves)
    for name, value in values.items():
        setattr(counts, name, value)
    return counts


def text_of(counts: ProgressCounts, **fields) -> str:
    return Page(ProgressView(counts=counts, **{"seconds": 42.0, **fields}).html()).text


def test_each_count_that_is_not_zero_is_shown():
    counts = count_events(queued=1, running=2, succeeded=3, failed=1, not_submitted=1)
    text = text_of(counts, seconds_left=200.0, pace=5 / 60)
    for words in (
        "5 of 10 ended",
        "5 a minute",
        "2 waiting",
        "1 queued",
        "2 running",
        "3 made",
        "1 failed",
        "1 not submitted",
        "about 3 min left",
    ):
        assert words in text
    counts.failed = counts.not_submitted = 0
    assert "failed" not in text_of(counts)
    assert "not submitted" not in text_of(counts)


def test_the_line_of_text_says_the_same():
    counts = count_events(queued=1, succeeded=3)
    counts.note = "the service asks to slow down"
    counts.spent_usd = Decimal("1.05")
    view = ProgressView(counts=counts, seconds=42.0, pace=4 / 60)
    assert view.text() == (
        "3 of 10 ended · 6 waiting · 1 queued · 3 made · $1.05 spent · 4 a minute · 42 s · time left not known yet · "
        "the service asks to slow down"
    )


def test_saved_videos_and_videos_being_saved_have_their_own_counts():
    counts = count_events(saves=True, succeeded=5, saved=3)
    assert "2 being saved" in text_of(counts)
    assert "3 saved" in text_of(counts)
    assert "2 not saved" in text_of(counts, phase=BatchPhase.DONE)
    assert "2 not saved" in text_of(counts, phase=BatchPhase.STOPPED)
    assert "3 saved" in text_of(counts, phase=BatchPhase.STOPPED)


def test_an_end_without_trouble_needs_no_counts():
    text = text_of(count_events(saves=True, succeeded=10, saved=10), seconds=412.0, phase=BatchPhase.DONE)
    assert text == "10 of 10 videos made6 min 52 s"


def test_the_bar_has_the_shares_of_the_total():
    page = Page(ProgressView(counts=count_events(succeeded=5, failed=1, queued=2), seconds=1.0).html())
    assert page.values_of("role") == ["progressbar"]
    assert (page.values_of("aria-valuenow"), page.values_of("aria-valuemax")) == (["6"], ["10"])
    widths = [style for style in page.values_of("style") if "width:50.000%" in style]
    assert len(widths) == 1


def test_the_heights_of_the_bar_tell_done_from_open_without_colour():
    counts = count_events(succeeded=5, failed=1, not_submitted=1, running=2, queued=1)
    page = Page(ProgressView(counts=counts, seconds=1.0).html())
    pieces = [style for style in page.values_of("style") if "vertical-align:bottom" in style]
    assert [piece.partition("height:")[2].partition(";")[0] for piece in pieces] == [
        "8px",
        "6px",
        "3px",
        "4px",
        "2px",
    ]


@pytest.mark.parametrize("total", [None, 0])
def test_without_a_total_there_is_no_bar(total):
    page = Page(ProgressView(counts=count_events(total=total, succeeded=5), seconds=1.0).html())
    assert page.values_of("role") == []
    assert "5" in page.text


def test_a_batch_of_unknown_length_has_no_time_left():
    assert "left" not in text_of(count_events(total=None, succeeded=5), seconds_left=10.0)


def test_a_note_of_trouble_is_text_and_is_gone_at_the_end():
    counts = count_events(queued=1, note=HOSTILE)
    page = Page(ProgressView(counts=counts, seconds=1.0).html())
    assert HOSTILE in page.text
    assert not {"script", "img"} & page.tags
    assert HOSTILE not in text_of(counts, phase=BatchPhase.DONE)


def stopped_view(number: int, *, saves: bool, made: int = 0, has_journal: bool = False) -> str:
    counts = count_events(total=100, saves=saves)
    counts._pending = {
        f"job-{index}": JobStatus.QUEUED if index < number else JobStatus.SUCCESS
        for index in range(number + made)
    }
    counts.queued = number
    return text_of(counts, phase=BatchPhase.STOPPED, has_journal=has_journal)


def test_a_stop_names_the_jobs_in_flight_and_gives_the_lines_that_resume_them():
    text = stopped_view(2, saves=True)
    assert "Stopped: 0 of 100 videos made" in text
    assert "2 jobs go on at the service." in text
    code = text[text.index("for request_id in [") :]
    compile(f"async def cell(client):\n{indent(code)}", "cell", "exec")
    assert "'job-0',\n    'job-1',\n" in code
    assert "client.download" in code


def test_one_job_has_the_singular_and_its_video_is_only_printed():
    text = stopped_view(1, saves=False)
    assert "1 job goes on at the service." in text
    assert "download" not in text
    assert "job.video_url" in text


@pytest.mark.parametrize(
    "in_flight, made, words",
    [
        (0, 1, "1 video is made and not saved."),
        (0, 2, "2 videos are made and not saved."),
        (1, 2, "1 job goes on at the service; 2 videos are made and not saved."),
    ],
)
def test_a_stop_counts_the_videos_that_are_made_and_not_saved(in_flight, made, words):
    assert words in stopped_view(in_flight, saves=True, made=made)


def test_with_a_journal_the_same_cell_picks_up_everything():
    text = stopped_view(2, saves=True, has_journal=True)
    assert "Run the cell again: the journal picks up everything." in text
    assert "request_id" not in text


def test_the_first_of_many_jobs_are_named_and_the_others_counted():
    text = stopped_view(23, saves=True)
    code = text[text.index("for request_id in [") :]
    assert code.count("'job-") == 20
    assert "# and 3 more" in code
    compile(f"async def cell(client):\n{indent(code)}", "cell", "exec")


def test_a_stop_without_pending_jobs_offers_nothing():
    text = text_of(count_events(total=3, succeeded=1), phase=BatchPhase.STOPPED)
    assert "go on" not in text
    assert "Stopped: 1 of 3 videos made" in text


def test_an_id_from_the_service_stays_text():
    counts = count_events(saves=True)
    counts._pending = {f"'{HOSTILE}": JobStatus.QUEUED}
    page = Page(ProgressView(counts=counts, seconds=1.0, phase=BatchPhase.STOPPED).html())
    assert not {"script", "img"} & page.tags
    assert HOSTILE in page.text.replace("\\", "")


@pytest.mark.parametrize(
    "per_second, text",
    [
        (0.0, ""),
        (0.05, "3 a minute"),
        (25.0, "1,500 a minute"),
        (0.0125, "45.0 an hour"),
        (1e-4, "0.4 an hour"),
    ],
)
def test_the_unit_of_a_pace_is_a_minute_or_an_hour(per_second, text):
    assert pace_text(per_second) == text


@pytest.mark.parametrize(
    "seconds, text",
    [
        (None, "time left not known yet"),
        (0.0, "a few seconds left"),
        (10.0, "about 10 s left"),
        (31.0, "about 40 s left"),
        (59.0, "about 60 s left"),
        (60.0, "about 1 min left"),
        (3_599.0, "about 60 min left"),
        (5_400.0, "about 1.5 h left"),
    ],
)
def test_the_time_left_is_rounded(seconds, text):
    assert left_text(seconds) == text


def indent(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())
