from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kling_async.cli.batch_command import BatchCommand
from kling_async.cli.run_config import OutputOptions, RunConfig
from kling_async.cli.service import Service
from kling_async.errors import JournalError
from kling_async.jobs import Job, JobStatus
from kling_async.requests import VideoRequest
from kling_async.results import Result, ResultState

SAVED = Result(
    index=0,
    request=VideoRequest("a cat"),
    state=ResultState.SUCCEEDED,
    job=Job(request_id="r1", status=JobStatus.SUCCESS),
    path=Path("v/a.mp4"),
)


@asynccontextmanager
async def batch(*results: Result | Exception):
    async def stream():
        for result in results:
            if isinstance(result, Exception):
                raise result
            yield result

    yield stream()


@pytest.mark.parametrize("lost, status", [([], 0), ([JournalError("The disk is full.")], 1)])
async def test_a_journal_that_cannot_be_written_is_an_error_beside_the_results(capfd, home, lost, status):
    command = BatchCommand(config=RunConfig(folder=Path("v"), service=Service()), total=1)
    assert await command.run(batch(SAVED, *lost)) == status
    told = capfd.readouterr()
    assert told.out.startswith("1 of 1 videos saved in v/ (")
    assert told.err == "".join(f"kling-async: {error}\n" for error in lost)


async def test_a_report_that_cannot_be_written_is_an_error_after_the_results(capfd, home):
    report = home / "v" / "r.html"
    command = BatchCommand(
        config=RunConfig(folder=Path("v"), service=Service(), output=OutputOptions(report=report)), total=1
    )
    report.mkdir()
    assert await command.run(batch(SAVED)) == 1
    told = capfd.readouterr()
    assert told.out.startswith("1 of 1 videos saved in v/ (")
    assert told.err.startswith("kling-async: The report cannot be written to ")


@pytest.fixture
def attended(home):
    """A handler of Ctrl-C, as `asyncio.run` has one while its loop runs."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("attended")
async def test_a_quiet_command_that_is_interrupted_writes_its_report_silently(capfd, home):
    config = RunConfig(folder=Path("v"), service=Service(), output=OutputOptions(report=Path("r.html")))
    command = BatchCommand(config=config, total=2, is_quiet=True)
    with pytest.raises(BrokenPipeError):
        await command.run(batch(SAVED, BrokenPipeError()))
    assert "1 of 2 videos made" in (home / "r.html").read_text(encoding="utf-8")
    assert "Report" not in capfd.readouterr().err


async def test_a_note_is_printed_unless_it_is_empty_or_the_command_is_quiet(capfd, home):
    config = RunConfig(folder=Path("v"), service=Service())
    BatchCommand(config=config, total=1).print_note("one")
    BatchCommand(config=config, total=1).print_note("")
    BatchCommand(config=config, total=1, is_quiet=True).print_note("two")
    assert capfd.readouterr().err == "one\n"


@pytest.mark.parametrize("is_quiet", [False, True])
def test_a_report_with_signed_urls_of_local_videos_says_that_nothing_is_signed(cli, serve, is_quiet):
    serve()
    done = cli(
        "generate", "a cat", "--report", "r.html", "--sign-report", "60", *(["--quiet"] if is_quiet else [])
    )
    assert done.status == 0
    assert ("--sign-report has no effect: the videos are on this machine." in done.err) is not is_quiet
