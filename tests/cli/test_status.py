from __future__ import annotations

import io
import os
import signal

import attrs
import pytest
from rich.console import Console

from kling_async._journal.open_journal import open_journal, read_journal
from kling_async.cli.status import entry_line
from kling_async.emulator import Fault, JobScript
from tests.cli.conftest import FAILING, wait_until


def test_status_shows_the_prompt_and_the_video_or_the_reason(cli, ids):
    done = cli("status", *ids, ids[0])
    assert (done.status, done.err) == (0, "")
    made, prompt, video, lost, other_prompt, reason = done.out.splitlines()
    assert made.split()[:2] == [ids[0], "success"]
    assert prompt == "  prompt a black cat"
    assert video.split()[0] == "video"
    assert video.endswith(f"{ids[0]}.mp4")
    assert lost.split()[:2] == [ids[1], "failed"]
    assert other_prompt == "  prompt a white dog"
    assert reason == "  reason policy"


def test_status_as_json_has_an_object_for_each_id_also_for_one_that_is_not_known(cli, ids):
    done = cli("status", "nonsense", ids[0], "--json")
    assert done.status == 1
    unknown, known = done.records
    assert (unknown["request_id"], unknown["error_type"]) == ("nonsense", "NotFoundError")
    assert (known["request_id"], known["status"], known["prompt"]) == (ids[0], "success", "a black cat")
    assert "nonsense" in done.error_line


@pytest.mark.parametrize("command", ["status", "download"])
def test_an_id_in_the_wrong_case_gets_the_right_one(cli, ids, command):
    line = cli(command, ids[0].upper()).error_line
    assert line.startswith(f"kling-async {command}: job {ids[0].upper()}: the service has no such job")
    assert f"; did you mean {ids[0]!r}? `kling-async list` shows the ids" in line


def test_an_unknown_id_is_one_sentence(cli, serve):
    serve()
    done = cli("status", "../models")
    assert done.status == 1
    assert "the service has no such job for this key" in done.error_line
    assert done.error_line.endswith(", and no folder or journal of this name is here.")


@pytest.fixture
def ids(serve, cli):
    """The ids of a finished and a failed job, in videos/run.db."""
    emulator = serve(
        script=lambda number, _: FAILED if number == 2 else None, faults=(Fault("submit", FAILING, nth=2),)
    )
    cli("generate", "a black cat", "a white dog", "--max-concurrency", "1", "--price", "0.35", "--quiet")
    return [job.request_id for job in emulator.stats.accepted]


FAILED = JobScript(ending="failed", error="policy", queue_time=0.0, run_time=0.0)


@pytest.mark.parametrize("name", ["videos", "videos/run.db"])
def test_a_journal_is_a_line_for_each_video_and_its_counts_on_stderr(cli, ids, home, name, monkeypatch):
    monkeypatch.delenv("GMI_API_KEY")
    done = cli("status", name)
    assert done.status == 0
    made, failed = (line.split("\t") for line in done.out.splitlines())
    assert made[:3] == ["0", "succeeded", ids[0]]
    assert made[4] == "a black cat"
    assert made[5].startswith(str(home / "videos"))
    assert failed[:3] == ["1", "failed", ids[1]]
    assert "policy" in failed[6]
    assert done.err == "videos/run.db: 1 succeeded, 1 failed; $0.70 spent\n"


def test_a_journal_as_json_is_an_object_for_each_video(cli, ids):
    made, failed = cli("status", "videos", "--json").records
    assert (made["index"], made["state"], made["request_id"]) == (0, "succeeded", ids[0])
    assert made["video_url"].endswith(".mp4")
    assert (made["prompt"], made["cost_usd"], made["attempts"], made["error"]) == (
        "a black cat",
        0.35,
        1,
        None,
    )
    assert made["sent_at"].endswith("+00:00")
    assert (failed["path"], failed["video_url"]) == (None, None)


def test_journals_and_ids_may_be_given_together(cli, ids):
    done = cli("status", ids[0], "videos", "--json")
    assert [("status" in record, "state" in record) for record in done.records] == [
        (False, True),
        (False, True),
        (True, False),
    ]


def test_an_empty_journal_is_one_sentence(cli, home):
    open_journal(home / "run.db").close()
    assert cli("status", "run.db").err == "run.db: no videos\n"


@pytest.mark.unmeasured
def test_a_journal_is_read_while_a_batch_writes_it(serve, start_process, cli):
    emulator = serve(script=lambda *_: JobScript(ending="stuck_processing"))
    process = start_process("generate", "a cat", "a dog", "--max-concurrency", "1")
    wait_until(lambda: emulator.stats.accepted)
    wait_until(lambda: "\tsubmitted\t" in cli("status", "videos").out)
    sent, waiting = cli("status", "videos", "--json").records
    assert (sent["state"], sent["request_id"]) == ("submitted", emulator.stats.accepted[0].request_id)
    assert (waiting["state"], waiting["sent_at"], waiting["error"]) == ("not_submitted", None, None)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


@pytest.mark.parametrize("width", [80, 200])
def test_a_line_of_a_journal_fits_the_terminal(ids, width):
    file = io.StringIO()
    console = Console(file=file, width=width)
    for entry in read_journal("videos/run.db"):
        console.print(entry_line(entry, console), no_wrap=True, overflow="ellipsis", crop=True)
    made, failed = file.getvalue().splitlines()
    assert made.startswith("    0  succeeded")
    assert "00000-a-black-cat-" in made
    assert (ids[0] in made) is (width > 100)
    assert "policy" in failed or failed.endswith("…")
    assert max(len(made), len(failed)) <= width


@pytest.mark.parametrize("name", ["bbe7aecc-711d-4ad1-9428-07c9c17b76a7", "r" * 70])
@pytest.mark.parametrize("width", [40, 119, 120, 153, 154])
def test_a_line_of_a_journal_shows_a_whole_id_or_none(ids, name, width):
    file = io.StringIO()
    console = Console(file=file, width=width)
    entry = attrs.evolve(next(iter(read_journal("videos/run.db"))), request_id=name)
    console.print(entry_line(entry, console), no_wrap=True, overflow="ellipsis", crop=True)
    made = file.getvalue()
    assert (name in made) is (width - 84 >= len(name))
    assert name in made or name[:9] not in made


@pytest.mark.parametrize("has_colour", [True, False])
def test_a_journal_on_a_terminal_is_in_colour_unless_none_is_wanted(cli, ids, monkeypatch, has_colour):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "" if has_colour else "1")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal, os.fdopen(master, "rb", buffering=0) as screen:
        monkeypatch.setattr("sys.stdout", terminal)
        assert cli("status", "videos").status == 0
        live_bar = screen.read(65_536).decode()
    assert "a black cat" in live_bar
    assert ("\x1b[32m" in live_bar) is has_colour
