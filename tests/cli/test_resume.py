from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from kling_async._journal.entry import EntryState, Identity, fingerprint
from kling_async._journal.open_journal import open_journal, read_journal
from kling_async.emulator import Fault, JobScript, Reply
from tests.cli.conftest import FAILING


@pytest.fixture
def left(serve, cli, home):
    """What a first command left in a journal that is not beside its videos."""

    def left(*prompts: str, **settings: object):
        emulator = serve(**settings)
        cli("generate", *prompts, "--max-concurrency", "1", "--journal", "run.db", "--out", "v", "--quiet")
        return emulator

    return left


def prompts_of(emulator) -> list[str]:
    return [job.payload["prompt"] for job in emulator.stats.accepted]


def test_what_is_made_is_not_bought_again_and_its_lost_file_is_fetched(left, cli, home):
    emulator = left("a cat", "a dog")
    lost = next((home / "v").glob("*cat*"))
    lost.unlink()
    done = cli("resume", "run.db", "--out", "v")
    assert done.status == 0
    assert done.out.startswith("2 of 2 videos saved in v/ (1 of them before; ")
    assert done.err == "Resuming run.db: 2 made before, 0 of 2 to submit.\n"
    assert lost.exists()
    assert prompts_of(emulator) == ["a cat", "a dog"]


def mp4s(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in folder.glob("*.mp4"))


def test_the_folder_is_that_of_the_journals_videos_unless_another_is_named(left, cli, home):
    left("a cat", "a dog")
    assert cli("resume", "run.db").err == "Nothing to do: run.db holds 2 made before.\n"
    next((home / "v").glob("*cat*")).unlink()
    assert cli("resume", "run.db").out.startswith("2 of 2 videos saved in v/ (1 of them before; ")
    assert (mp4s(home), mp4s(home / "v")) == ([], ["00000", "00001"])
    assert cli("resume", "run.db", "--out", "w").out.startswith("2 of 2 videos saved in w/ (")
    assert (mp4s(home), mp4s(home / "w")) == ([], ["00000", "00001"])


def test_the_folder_is_that_of_the_journal_while_it_has_no_video(serve, cli, home):
    serve()
    cli(
        *("generate", "a cat", "--max-cost", "0", "--price", "1"),
        *("--journal", "run.db", "--out", "v", "--quiet"),
    )
    assert cli("resume", "run.db").out.startswith("1 of 1 videos saved in ./ (")
    assert mp4s(home) == ["00000"]


def test_videos_that_moved_with_their_journal_are_found_beside_it(serve, cli, home):
    serve()
    cli("generate", "a cat", "--quiet")
    shutil.copytree(home / "videos", home / "copy")
    (home / "videos").rename(home / "moved")
    for folder in ("copy", "moved"):
        assert cli("resume", folder).err == f"Nothing to do: {folder}/run.db holds 1 made before.\n"
    next((home / "moved").glob("*.mp4")).unlink()
    assert cli("resume", "moved").out.startswith("1 of 1 videos saved in moved/ (")


def test_videos_in_several_folders_stay_where_they_are(left, cli, home):
    emulator = left("a cat", "a dog")
    (home / "w").mkdir()
    for entry in read_journal(home / "run.db"):
        if entry.index == 1:
            path = home / "w" / Path(entry.path).name
            Path(entry.path).rename(path)
            with open_journal(home / "run.db") as journal:
                journal.record_file(entry.number, path=str(path), size_bytes=entry.size_bytes, sha256=None)
    assert cli("resume", "run.db").err == "Nothing to do: run.db holds 2 made before.\n"
    cli("generate", "a cow", "--journal", "run.db", "--out", "w", "--quiet")
    next((home / "w").glob("*cow*")).unlink()
    done = cli("resume", "run.db", "--json", "--report", "r.html")
    assert sorted(Path(record["path"]).parent.name for record in done.records) == ["v", "w", "w"]
    assert "3 of 3 videos made" in (home / "r.html").read_text()
    assert (mp4s(home), mp4s(home / "v")) == ([], ["00000"])
    assert sorted(record["index"] for record in done.records) == [0, 1, 2]
    folders = [Path(entry.path).parent.name for entry in read_journal(home / "run.db")]
    assert folders == ["v", "w", "w"]
    assert len(emulator.stats.accepted) == 3


def test_the_printed_command_names_a_folder_only_if_the_command_did(left, cli, home):
    left("a cat", "a dog", faults=(Fault("submit", FAILING, nth=2, times=2),))
    next((home / "v").glob("*cat*")).unlink()
    assert printed_commands(cli) == ["kling-async resume run.db --retry-failed"]
    assert printed_commands(cli, "--out", "w") == ["kling-async resume run.db --out w --retry-failed"]


def printed_commands(cli, *options: str) -> list[str]:
    """The commands that a resume prints."""
    lines = cli("resume", "run.db", *options).err.splitlines()
    return [line.strip() for line in lines if line.startswith("  kling-async")]


def test_a_retry_that_the_cap_stops_names_the_cap_and_no_command_that_would_end_in_the_same(left, cli):
    emulator = left("a cat", "a dog", "--price", "0.35", faults=(Fault("submit", FAILING, times=2),))
    cap = ["--price", "0.35", "--max-cost", "1.05", "--max-concurrency", "1"]
    done = cli("resume", "run.db", "--retry-failed", *cap)
    assert len(emulator.stats.accepted) == 3
    [reason] = [line for line in done.err.splitlines() if "not submitted again" in line]
    assert "; it was not submitted again: One more video would bring the spend to $1.40" in reason
    assert done.err.endswith("To submit more, raise --max-cost.\n")
    assert "--retry-failed" not in done.err


def test_failed_ones_are_bought_again_only_on_request(left, cli):
    emulator = left("a cat", "a dog", faults=(Fault("submit", FAILING, nth=1),))
    done = cli("resume", "run.db", "--out", "v")
    assert done.status == 1
    assert done.err == (
        "Nothing to do: run.db holds 1 made before, 1 failed before; --retry-failed submits again what failed.\n"
    )
    assert len(emulator.stats.accepted) == 2
    assert cli("resume", "run.db", "--out", "v", "--retry-failed").status == 0
    assert prompts_of(emulator) == ["a cat", "a dog", "a cat"]


def test_nothing_to_do_is_one_sentence_and_needs_no_key(left, cli, monkeypatch):
    left("a cat")
    monkeypatch.delenv("GMI_API_KEY")
    done = cli("resume", "run.db", "--out", "v")
    assert (done.status, done.out) == (0, "")
    assert done.err == "Nothing to do: run.db holds 1 made before.\n"
    assert cli("resume", "run.db", "--out", "v", "--quiet").err == ""


def test_an_empty_journal_is_nothing_to_do(cli, home):
    open_journal(home / "run.db").close()
    assert cli("resume", "run.db").err == "Nothing to do: run.db holds no videos.\n"


def test_what_was_never_sent_is_submitted_under_the_cap_with_its_options(left, cli, home):
    (home / "cat.png").write_bytes(b"\x89PNG")
    emulator = left("it moves", "it sleeps", "--image", "cat.png", "--max-cost", "0.5", "--price", "0.35")
    assert prompts_of(emulator) == ["it moves"]
    done = cli("resume", "run.db", "--out", "v", "--price", "0.4", "--max-cost", "1")
    assert done.status == 0
    assert done.out.startswith("2 of 2 videos saved in v/ (1 of them before; ")
    assert done.out.endswith("; $0.40 spent, $0.35 before)\n")
    assert prompts_of(emulator) == ["it moves", "it sleeps"]
    assert emulator.stats.accepted[1].payload["image"].startswith(emulator.url)


def test_a_spent_cap_offers_no_command_that_would_end_in_the_same(serve, cli):
    serve()
    done = cli("generate", "a cat", "a dog", "--max-cost", "0.5", "--price", "0.35", "--max-concurrency", "1")
    assert done.status == 1
    error_line, reason, advice = done.err.splitlines()
    assert error_line == "kling-async generate: 1 of 2 videos were not saved:"
    assert reason.endswith("above the cap of $0.50; nothing more was sent.")
    assert advice == "To submit more, raise --max-cost."


def test_a_later_command_drops_the_unsent_items_of_an_earlier_one(serve, cli):
    emulator = serve()
    cli("generate", "a mistake", "a cat", "--max-cost", "0", "--price", "1", "--quiet")
    done = cli("generate", "a cat")
    assert done.err == "Dropped: 1 of earlier commands, which were never sent.\n"
    assert cli("resume", "videos").err.startswith("Nothing to do: ")
    assert prompts_of(emulator) == ["a cat"]


def test_the_same_command_again_says_what_was_made_and_how_to_make_it_again(serve, cli):
    emulator = serve()
    tokens = ["generate", "a cat", "a dog"]
    cli(*tokens, "--quiet")
    done = cli(*tokens)
    assert done.out.startswith("2 of 2 videos saved in videos/ (2 of them before; ")
    assert done.err.splitlines() == [
        "Resuming videos/run.db: 2 made before, 0 of 2 to submit.",
        "To make them again: --no-journal, or another --journal.",
    ]
    assert cli(*tokens, "--no-journal").err == ""
    assert len(emulator.stats.accepted) == 4


def test_a_submit_without_a_reply_is_reconciled_and_not_sent_again(serve, cli, home):
    emulator = serve()
    with open_journal(home / "run.db") as journal:
        identity = Identity(key="mine", fingerprint="f", occurrence=0)
        journal.record_intent(
            identity,
            model="kling-v2-6",
            payload={"prompt": "a cat"},
            at=1.0,
            has_service_time=True,
            cost_usd=None,
        )
    done = cli("resume", "run.db", "--json")
    assert done.status == 1
    (record,) = done.records
    assert (record["key"], record["state"], record["prompt"]) == ("mine", "ambiguous", "a cat")
    assert not emulator.stats.accepted
    assert done.err.splitlines()[-2:] == [
        "To send again the 1 that the service may have accepted, and perhaps pay for them twice:",
        "  kling-async resume run.db --on-ambiguous resend",
    ]
    assert cli("resume", "run.db", "--on-ambiguous", "resend").status == 0
    assert prompts_of(emulator) == ["a cat"]
    (entry,) = read_journal(home / "run.db")
    assert (entry.identity, entry.state) == (identity, EntryState.SUCCEEDED)


def test_a_submit_that_never_arrived_is_absent_and_sent_again_if_that_is_allowed(serve, cli, home):
    emulator = serve()
    with open_journal(home / "run.db") as journal:
        for prompt in ("a cat", "a dog"):
            identity = Identity(
                key=None, fingerprint=fingerprint("kling-v2-6", {"prompt": prompt}), occurrence=0
            )
            journal.record_intent(
                identity,
                model="kling-v2-6",
                payload={"prompt": prompt},
                at=1.0,
                has_service_time=True,
                cost_usd=None,
            )
        journal.record_not_accepted(2, error="not yet")
    done = cli("resume", "run.db")
    assert prompts_of(emulator) == ["a dog"]  # the later job
    assert "absent" in done.err
    assert done.err.splitlines()[-2:] == [
        "To send again the 1 that the service does not have:",
        "  kling-async resume run.db --on-ambiguous resend_absent",
    ]
    assert cli("resume", "run.db", "--on-ambiguous", "resend_absent").status == 0
    assert prompts_of(emulator) == ["a dog", "a cat"]


def test_every_result_is_printed_beside_a_report(left, cli, home):
    left("a cat", faults=(Fault("submit", FAILING, nth=1),))
    done = cli("resume", "run.db", "--retry-failed", "--json", "--report", "r.html")
    assert [(record["index"], record["state"]) for record in done.records] == [(0, "succeeded")]
    assert "1 of 1 videos made" in (home / "r.html").read_text()


@pytest.mark.parametrize(
    "tokens, sentence",
    [
        (["resume", "lost.db"], "There is no journal 'lost.db': check its name."),
        (["resume", "."], "There is no journal '.': check its name."),
        (["resume", "notes.txt"], "notes.txt' is not a journal of kling_async. It was left as it is"),
        (["resume", "notes.txt", "--dry-run"], "notes.txt' is not a journal of kling_async."),
        (["status", "lost.db"], "There is no journal 'lost.db': check its name."),
        (["status", "notes.txt"], "notes.txt' is not a journal of kling_async."),
        (["generate", "a cat", "--journal", "notes.txt"], "notes.txt' is not a journal of kling_async."),
        (["generate", "a cat", "--journal", "gone/run.db"], "there is no folder"),
        (["generate", "a cat", "--journal", "folder"], "The journal 'folder' is a folder"),
        (
            ["generate", "a cat", "--journal", "run.db", "--no-journal"],
            "--journal and --no-journal are one too many",
        ),
        (["generate", "a cat", "--out", "notes.txt"], "Videos cannot be saved in 'notes.txt': "),
        (["generate", "a cat", "--max-cost", "1"], "add --price kling-v2-6=USD."),
        (["generate", "a cat", "--max-cost", "-1", "--price", "1"], "--max-cost takes US dollars"),
        (["generate", "a cat", "--on-ambiguous", "resed"], 'Did you mean "resend"?'),
        (["resum", "run.db"], 'Did you mean "resume"?'),
        (["resume", "run.db", "--retry-faild"], "Did you mean --retry-failed?"),
        (["completion", "bas"], 'Did you mean "bash"?'),
    ],
)
def test_a_command_that_cannot_start_is_one_sentence_and_sends_nothing(cli, serve, home, tokens, sentence):
    emulator = serve()
    (home / "notes.txt").write_text("a cat\n" * 1000)
    (home / "folder").mkdir()
    done = cli(*tokens)
    assert done.status == 2
    assert sentence in done.error_line
    assert done.out == ""
    assert not emulator.stats.requests
    assert (home / "notes.txt").read_text() == "a cat\n" * 1000


def test_a_journal_in_use_is_one_sentence_and_nothing_is_sent(cli, serve, home):
    emulator = serve(script=lambda *_: JobScript(ending="stuck_processing"))
    with open_journal(home / "run.db") as journal:
        identity = Identity(key=None, fingerprint="f", occurrence=0)
        journal.record_intent(identity, model="kling-v2-6", payload={"prompt": "x"}, at=1.0, cost_usd=None)
        journal.record_job(1, request_id="r1", record={"status": "queued"})
        asyncio.run(journal.flush())
        for tokens in (["resume", "run.db"], ["generate", "a cat", "--journal", "run.db"]):
            done = cli(*tokens)
            assert done.status == 2
            assert "is in use by another process" in done.error_line
    assert not emulator.stats.accepted


def test_an_item_has_one_number_in_every_view(serve, cli, home):
    """In file names, in JSON, in the journal and in the report, for a run and for the run that resumes it."""
    serve(faults=(Fault("submit", Reply(400, {"error": "not now"}), nth=3),))
    (home / "prompts.csv").write_text("prompt,duration\na cat,5\na dog,7\na cow,5\na fox,5\n")
    first = cli(
        *("generate", "--from", "prompts.csv", "--skip-invalid", "--max-concurrency", "1", "--json"),
        *("--report", "first.html"),
    )
    assert first.records, first
    again = cli("resume", "videos", "--json", "--report", "again.html")
    status = cli("status", "videos", "--json").records
    numbers = {"a cat": 0, "a cow": 2, "a fox": 3}
    assert {record["prompt"]: record["index"] for record in status} == numbers
    for done, left_out in ((first, {None: 1}), (again, {})):
        assert {record["prompt"]: record["index"] for record in done.records} == numbers | left_out
    files = sorted(path.name for path in (home / "videos").glob("*.mp4"))
    assert [name[:5] for name in files] == ["00000", "00002", "00003"]
    assert [Path(record["path"]).name for record in again.records] == files
    assert re.findall(r'id="job-(\d)"', (home / "again.html").read_text()) == ["0", "2", "3"]
