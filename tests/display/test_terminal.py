from __future__ import annotations

import io
import os
import select

import pytest
from rich.console import Console

from kling_async._display.tally import Tally
from kling_async._display.terminal import Bar, drawn, duration, is_drawable


@pytest.fixture
def terminal(monkeypatch):
    """A console on a real pseudo-terminal, and a function that reads what was drawn on it."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as file, os.fdopen(master, "rb", buffering=0) as screen:

        def read() -> str:
            drawn = b""
            while select.select([screen], [], [], 0)[0]:
                drawn += screen.read(65_536)
            return drawn.decode()

        yield Console(file=file, width=60, _environ={"TERM": "xterm"}), read


def shown(tally: Tally, width: int = 60) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(Bar(tally))
    return file.getvalue().splitlines()


def test_a_bar_shows_how_far_a_batch_is_and_each_count_that_is_not_zero():
    tally = Tally(total=10, saves=True)
    tally.queued, tally.running, tally.succeeded, tally.saved, tally.failed = 3, 2, 4, 1, 1
    head, line = shown(tally)
    assert head.endswith("5 of 10 0:00")
    assert line.rstrip() == "3 queued · 2 running · 4 done · 1 saved · 1 failed"
    tally.queued = tally.failed = 0
    assert shown(tally)[1].rstrip() == "2 running · 4 done · 1 saved"


def test_a_batch_of_unknown_length_has_a_bar_too():
    head, line = shown(Tally())
    assert head.endswith("0 ended 0:00")
    assert line.rstrip() == "starting"


def test_what_is_in_the_way_is_a_line_of_its_own_cut_to_the_width():
    tally = Tally(total=1)
    tally.note = "[bold]wait " * 20
    *_, note = shown(tally)
    assert note.startswith("[bold]wait")
    assert note.endswith("…")
    assert len(note) == 60


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_bar_fits_its_terminal_and_is_no_wider_than_can_be_read(width):
    assert all(len(line.rstrip()) <= min(width, 120) for line in shown(Tally(total=1), width))


@pytest.mark.parametrize("seconds, text", [(0.9, "0:00"), (62, "1:02"), (3_723, "1:02:03")])
def test_a_duration_reads_like_a_clock(seconds, text):
    assert duration(seconds) == text


def test_a_terminal_is_drawn_on_and_left_clean(terminal):
    console, read = terminal
    tally = Tally(total=2)
    with drawn(Bar(tally), console=console):
        pass
    picture = read()
    assert "0 of 2" in picture
    assert picture.endswith("\x1b[2K")


def test_nothing_is_drawn_where_it_is_not_wanted(terminal):
    console, read = terminal
    with drawn(Bar(Tally()), console=console, is_wanted=False):
        console.print("only this")
    assert read() == "only this\r\n"


def test_a_file_is_no_terminal_even_where_colours_are_forced(tmp_path):
    with (tmp_path / "log").open("w+") as file:
        console = Console(file=file, force_terminal=True)
        assert not is_drawable(console)
        with drawn(Bar(Tally()), console=console):
            pass
        assert (tmp_path / "log").read_text() == ""
