from __future__ import annotations

import io
import logging
import os
import select
import sys
import time
from decimal import Decimal

import pytest
from rich.console import Console

from kling_async._display.progress_counts import ProgressCounts
from kling_async._display.terminal import Bar, is_drawable, left_text, live_bar, traffic_text
from kling_async.events import Finished, Submitted
from kling_async.jobs import Job, JobStatus
from kling_async.results import ResultState


@pytest.fixture
def terminal(monkeypatch):
    """A console on a real pseudo-terminal, and a function that reads what was drawn on it."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as file, os.fdopen(master, "rb", buffering=0) as screen:

        def read() -> str:
            seen = b""
            while select.select([screen], [], [], 0)[0]:
                seen += screen.read(65_536)
            return seen.decode()

        yield Console(file=file, width=60, _environ={"TERM": "xterm"}), read


def draw(counts: ProgressCounts, width: int = 62) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(Bar(counts))
    return file.getvalue().splitlines()


def busy() -> ProgressCounts:
    counts = ProgressCounts(total=10, saves=True)
    counts.queued, counts.running, counts.succeeded, counts.saved, counts.failed = 3, 2, 4, 1, 1
    return counts


def test_a_bar_shows_how_far_a_batch_is_and_each_count_that_is_not_zero():
    counts = busy()
    head, line = draw(counts)
    assert head.rstrip().endswith("5 of 10  0:00")
    assert line.rstrip() == "3 queued · 2 running · 4 done · 1 saved · 1 failed"
    counts.queued = counts.failed = 0
    assert draw(counts)[1].rstrip() == "2 running · 4 done · 1 saved"
    counts.not_submitted = 3
    assert draw(counts)[1].rstrip() == "2 running · 4 done · 1 saved · 3 not submitted"
    counts.saved = counts.not_submitted = 0
    assert draw(counts)[1].rstrip() == "2 running · 4 done · 0 saved"
    counts.saves = False
    assert draw(counts)[1].rstrip() == "2 running · 4 done"


def test_the_bytes_and_the_cost_stand_at_the_right():
    counts = busy()
    counts.saved_bytes, counts.spent_usd = 1_300_000, Decimal("3.5")
    line = draw(counts, 82)[1].rstrip()
    assert line.startswith("3 queued")
    assert line.endswith("   1.3 MB · $3.50")
    assert len(line) == 80


def test_a_narrow_terminal_gets_a_line_more():
    counts = busy()
    counts.spent_usd = Decimal("3.5")
    assert [line.rstrip() for line in draw(counts, 55)[1:]] == [
        "3 queued · 2 running · 4 done · 1 saved · 1 failed",
        "$3.50",
    ]


def test_the_rate_is_shown_while_bytes_come():
    counts = busy()
    counts.saved_bytes = 1_000_000
    counts._download_rate.begin(100.0)
    counts._download_rate.add(1_000_000, now=101.0)
    assert traffic_text(counts, now=101.0).plain == "1.0 MB at 1.1 MB/s"
    assert traffic_text(counts, now=200.0).plain == "1.0 MB"


def test_the_time_left_is_shown_after_the_first_end():
    counts, now = ProgressCounts(total=4), time.time()
    for index in range(4):
        job = Job(request_id=f"{index}", status=JobStatus.QUEUED)
        counts(Submitted(at=now - 100, request_id=job.request_id, job=job))
    assert draw(counts)[0].rstrip().endswith("0 of 4  0:00")
    counts(Finished(at=now, request_id="0", state=ResultState.SUCCEEDED))
    assert draw(counts)[0].rstrip().endswith(" left)")
    counts.succeeded = 4
    assert draw(counts)[0].rstrip().endswith("4 of 4  0:00")


@pytest.mark.parametrize(
    "seconds, text",
    [
        (None, ""),
        (0.0, "(10 s left)"),
        (31.0, "(40 s left)"),
        (61.0, "(1 min left)"),
        (1_000.0, "(17 min left)"),
        (9_000.0, "(2.5 h left)"),
    ],
)
def test_the_time_left_on_a_terminal_is_rounded(seconds, text):
    assert left_text(seconds) == text


def test_a_batch_of_unknown_length_has_a_bar_too():
    head, line = draw(ProgressCounts())
    assert head.rstrip().endswith("0 ended  0:00")
    assert line.rstrip() == "starting"


def test_a_note_of_trouble_is_a_line_of_its_own_cut_to_the_width():
    counts = ProgressCounts(total=1)
    counts.note = "[bold]wait " * 20
    *_, note = draw(counts)
    assert note.startswith("[bold]wait")
    assert note.endswith("…")
    assert len(note) == 60


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_bar_is_no_wider_than_can_be_read_and_leaves_room_for_an_echo(width):
    counts = busy()
    counts.note = "wait " * 100
    assert all(len(line.rstrip()) <= min(width - 2, 120) for line in draw(counts, width))


def test_a_terminal_is_drawn_on_and_left_clean(terminal):
    console, read = terminal
    counts = ProgressCounts(total=2)
    with live_bar(Bar(counts), console=console):
        pass
    picture = read()
    assert "0 of 2" in picture
    assert picture.endswith("\x1b[2K")


def test_a_file_is_no_terminal_even_where_colours_are_forced(tmp_path):
    with (tmp_path / "log").open("w+") as file:
        console = Console(file=file, force_terminal=True)
        assert not is_drawable(console)
        with live_bar(Bar(ProgressCounts()), console=console):
            pass
        assert (tmp_path / "log").read_text() == ""


def test_log_lines_appear_above_the_display_and_handlers_get_their_stream_back(terminal, monkeypatch):
    console, read = terminal
    monkeypatch.setattr(sys, "stderr", console.file)
    console = Console(stderr=True, width=60, _environ={"TERM": "xterm"})
    held, other = logging.StreamHandler(), logging.StreamHandler(io.StringIO())
    logger = logging.getLogger("of the test")
    monkeypatch.setattr(logger, "handlers", [held, other])
    with live_bar(Bar(ProgressCounts(total=2)), console=console):
        assert held.stream is sys.stderr is not console.file
        logger.warning("a line of the log")
        assert "a line of the log" in read()
    assert held.stream is console.file
    assert other.stream.getvalue() == "a line of the log\n"


def test_a_second_display_at_the_same_time_is_not_drawn(terminal, monkeypatch):
    console, read = terminal
    monkeypatch.setattr(sys, "stderr", console.file)
    first, second = (Console(stderr=True, width=60, _environ={"TERM": "xterm"}) for _ in range(2))
    with live_bar(Bar(ProgressCounts(total=1)), console=first):
        assert not is_drawable(second)
        with live_bar(Bar(ProgressCounts(total=777)), console=second):
            pass
    assert "777" not in read()
    assert is_drawable(second)
