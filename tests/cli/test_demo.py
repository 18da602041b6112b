from __future__ import annotations

import io
import sys

import av
import pytest
from rich.console import Console

from kling_async.cli.demo import PROMPTS, Board, run_demo
from kling_async.errors import RateLimitError
from kling_async.events import Finished, PollFailed, Submitted, Throttled
from kling_async.jobs import Job, JobStatus
from kling_async.results import ResultState


async def test_the_demo_makes_playable_videos_and_says_what_they_are(home):
    file = io.StringIO()
    assert await run_demo("d", Console(file=file, width=80), time_scale=2000) == 0
    told = file.getvalue()
    assert "6 of 6 videos saved in d/ (" in told
    assert "Stand-in pictures from a local emulator: nothing was sent away, nothing charged." in told
    files = sorted((home / "d").iterdir())
    assert len(files) == len(PROMPTS) == 6
    for file, request in zip(files, PROMPTS, strict=True):
        assert file.name[:20] in told  # a letter of Chinese takes two columns
        with av.open(file) as video:
            assert video.streams.video[0].codec_context.name == "h264"
            assert video.duration / av.time_base == pytest.approx(request.duration or 5, abs=0.2)
            assert bool(video.streams.audio) == bool(request.sound)


def test_without_the_extra_the_demo_says_what_to_install(cli, monkeypatch):
    for name in (
        "kling_async.emulator.app",
        "kling_async.emulator.media_cache",
        "kling_async.emulator.media",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "av", None)
    done = cli("demo")
    assert done.status == 2
    assert "The emulator needs av: python -m pip install '.[emulator]' in a checkout" in done.error_line


def test_a_folder_that_cannot_be_written_is_one_sentence(cli, home):
    (home / "taken").write_text("a file")
    done = cli("demo", "--out", "taken")
    assert done.status == 2
    assert "Videos cannot be saved in 'taken'" in done.error_line


def test_the_board_follows_each_job_and_fits_its_terminal():
    board = Board(PROMPTS[:3])
    running = Job(request_id="r", status=JobStatus.PROCESSING)
    for event in (
        Submitted(at=0.0, index=0, request_id="r", job=running),
        Finished(at=0.0, index=1, state=ResultState.NOT_SUBMITTED),
        PollFailed(at=0.0, index=2, delay=1.0, error=RateLimitError("slow down")),
        Throttled(at=0.0, delay=1.0, error=RateLimitError("slow down")),
    ):
        board(event)
    file = io.StringIO()
    Console(file=file, width=80).print(board)
    lines = file.getvalue().splitlines()
    assert [
        word in line
        for word, line in zip(("processing", "not_submitted", "waiting"), lines[1::2], strict=True)
    ]
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("width, is_wide", [(60, True), (59, False), (40, False)])
def test_a_narrow_terminal_gives_the_room_of_the_options_to_the_prompts(width, is_wide):
    file = io.StringIO()
    Console(file=file, width=width).print(Board(PROMPTS))
    head, first, *_ = file.getvalue().splitlines()
    assert ("length" in head, " 5 s" in first) == (is_wide, is_wide)
    assert "A paper" in first
