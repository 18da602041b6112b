from __future__ import annotations

import json
import os
import shlex
import signal
import time
from pathlib import Path

import attrs
import pytest

from kling_async import VideoOptions
from kling_async.cli.generate import Video
from kling_async.emulator import Fault, JobScript, Stall
from tests.cli.conftest import FAILING, wait_until

LONG = "x" * 2501


def test_prompts_become_files_in_input_order(cli, serve, home):
    serve()
    done = cli("generate", "a black cat", "一只白鹤", "--out", "v", "--duration", "5", "--sound")
    assert done.status == 0
    assert done.err == ""
    assert done.out.startswith("2 of 2 videos saved in v/ (")
    first, second = sorted(path.name for path in (home / "v").glob("*.mp4"))
    assert first.startswith("00000-a-black-cat-")
    assert second.startswith("00001-")


def test_options_are_sent_for_every_prompt(cli, serve):
    emulator = serve()
    cli(
        "generate",
        "a cat",
        "--no-sound",
        "--duration",
        "10",
        "--mode",
        "pro",
        "--cfg-scale",
        "0.5",
        "--quiet",
    )
    (job,) = emulator.stats.accepted
    assert job.payload == {
        "prompt": "a cat",
        "sound": "off",
        "duration": "10",
        "mode": "pro",
        "cfg_scale": 0.5,
    }


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "tokens, sound",
    [
        (["a cat", "--sound", "off"], "off"),
        (["a cat", "--sound", "No"], "off"),
        (["a cat", "--sound=FALSE"], "off"),
        (["a cat", "--no-sound"], "off"),
        (["a cat", "--sound"], "on"),
        (["--sound", "a cat"], "on"),
        (["--sound", "yes", "a cat"], "on"),
        (["--sound", "--", "a cat"], "on"),
        (["--sound", "true", "--", "a cat"], "on"),
    ],
)
def test_sound_takes_a_word_or_none(cli, serve, tokens, sound):
    emulator = serve()
    assert cli("generate", "--quiet", *tokens).status == 0
    assert [job.payload for job in emulator.stats.accepted] == [{"prompt": "a cat", "sound": sound}]


@pytest.mark.parametrize("word", ["of", "cat", "loud"])
def test_a_single_word_after_sound_is_its_value(cli, serve, word):
    emulator = serve()
    done = cli("generate", "--sound", word)
    assert done.status == 2
    assert f'Invalid value "{word}" for --sound. Choose from: "on", "off"' in done.error_line
    assert not emulator.stats.requests


@pytest.mark.parametrize("tokens", [["--labels"], ["--encoding", "cp1252"]], ids=" ".join)
def test_an_option_of_a_file_needs_one(cli, serve, tokens):
    emulator = serve()
    done = cli("generate", "concept", *tokens)
    assert done.status == 2
    assert done.error_line.endswith(f"{tokens[0]} needs a file: add --from FILE.")
    assert not emulator.stats.requests


def test_two_words_about_the_sound_are_one_too_many(cli, serve):
    done = cli("generate", "a cat", "--sound", "on", "--no-sound")
    assert done.status == 2
    assert "--sound on and --no-sound are one too many" in done.error_line


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "tokens",
    [
        ["a cat --sound off"],
        ["a cat", "--duration", "5", "10"],
        ["videos", "--from", "p.txt"],
        ["p.txt"],
        ["lost.csv"],
        ["a", "black", "cat"],
        ["a cat", "–sound", "off"],  # noqa: RUF001 - the dash of a word processor
        ["help"],
    ],
    ids=" ".join,
)
def test_a_slip_buys_nothing_until_it_is_meant(cli, serve, tokens):
    emulator = serve()
    Path("p.txt").write_text("a cat\n")
    for options in ([], ["--emulate"], ["--dry-run"]):
        done = cli("generate", *tokens, *options)
        assert done.status == 2
        assert done.error_line.endswith("or add --yes if it is meant.")
    assert not emulator.stats.requests
    assert cli("generate", *tokens, "--yes", "--quiet").status == 0
    assert emulator.stats.accepted


def test_one_word_can_be_tried_and_made(cli, serve):
    emulator = serve()
    assert "would be submitted" in cli("generate", "cat", "--dry-run").err
    assert cli("generate", "cat", "--emulate").status == 0
    assert cli("generate", "cat").status == 0
    assert len(emulator.stats.accepted) == 1


def test_labels_are_in_the_results_and_are_not_sent(cli, serve):
    emulator = serve()
    Path("p.csv").write_text("prompt,concept\na cat,animal\n")
    done = cli("generate", "--from", "p.csv")
    assert done.status == 2
    assert "--labels keeps further columns as labels" in done.error_line
    done = cli("generate", "--from", "p.csv", "--labels", "--json")
    assert done.err.startswith("p.csv: kept as labels: concept.\n")
    assert done.records[0]["label_concept"] == "animal"
    assert [job.payload for job in emulator.stats.accepted] == [{"prompt": "a cat"}]


def test_a_comment_of_a_text_is_left_out_with_a_word(cli, serve):
    emulator = serve()
    Path("p.txt").write_text("# animals\na cat\n")
    done = cli("generate", "--from", "p.txt")
    assert (done.status, done.err) == (0, "p.txt: 1 comment is left out (# and a space).\n")
    assert [job.payload["prompt"] for job in emulator.stats.accepted] == ["a cat"]
    assert cli("generate", "--from", "p.txt", "--quiet").err == ""


def test_numbers_are_read_as_a_file_has_them(cli, serve):
    emulator = serve()
    assert cli("generate", "a cat", "--duration", "5.0", "--cfg-scale", "0,5", "--quiet").status == 0
    assert emulator.stats.accepted[0].payload == {"prompt": "a cat", "duration": "5", "cfg_scale": 0.5}


def test_a_picture_is_uploaded(cli, serve, home):
    (home / "cat.png").write_bytes(b"\x89PNG")
    emulator = serve()
    done = cli("generate", "it wakes up", "--image", "cat.png", "--quiet")
    assert done.status == 0
    assert emulator.stats.accepted[0].payload["image"].startswith(emulator.url)


def test_every_option_of_a_video_can_be_given(cli):
    options = {field.name for field in attrs.fields(Video)}
    assert options - {"no_sound"} == VideoOptions.__annotations__.keys() - {"extra"}

    named = ["--model", "kling-v9", "--image", "https://a.b/1.png", "--image-tail", "https://a.b/2.png"]
    done = cli("generate", "it wakes up", *named, "--dry-run")
    assert '"image_tail": "https://a.b/2.png"' in done.out


def test_json_is_one_object_a_result_and_nothing_else_on_stdout(cli, serve, home):
    serve(faults=(Fault("submit", FAILING, nth=2),))
    (home / "p.txt").write_text("a cat\na dog\na bird\n")
    done = cli("generate", "--from", "p.txt", "--json", "--max-concurrency", "1")
    assert done.status == 1
    assert {record["index"]: record["state"] for record in done.records} == {
        0: "succeeded",
        1: "failed",
        2: "succeeded",
    }
    made = next(record for record in done.records if record["index"] == 0)
    assert made["prompt"] == "a cat"
    assert (home / made["path"]).read_bytes()[4:8] == b"ftyp"
    assert done.err.splitlines()[0].startswith("2 of 3 videos saved in videos/")
    assert done.err.splitlines()[1] == "kling-async generate: 1 of 3 videos were not saved:"
    assert "#1 “a dog”: failed: " in done.err
    assert "policy" in done.err


def test_quiet_says_nothing_of_a_success(cli, serve):
    serve()
    done = cli("generate", "a cat", "--quiet")
    assert (done.status, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("p.txt", None, "p.txt cannot be read: No such file or directory"),
        ("p.txt", "", "p.txt is empty"),
        ("p.txt", b"a\n\xff\n", "p.txt, line 2: not UTF-8 (byte 0xff)"),
        (
            "p.txt",
            f"a cat\n{LONG}\n",
            "p.txt, line 2: kling-v2-6: prompt must be at most 2,500 characters, not 2,501",
        ),
        ("p.jsonl", '"a"\n{"prompt": \n', "p.jsonl, line 2: not JSON"),
        (
            "p.jsonl",
            '{"prompt": "a", "cfg_scale": 2}\n',
            "p.jsonl, line 1: kling-v2-6: cfg_scale must be from 0 to 1",
        ),
        ("p.jsonl", '{"duration": 5}\n', "p.jsonl, line 1: A request needs a prompt"),
        (
            "p.jsonl",
            '{"prompt": " "}\n',
            "p.jsonl, line 1: A request needs a prompt; {'prompt': ' '} has none",
        ),
        ("p.csv", "prompt,model\na,b,c\n", "p.csv, line 2: 3 cells under 2 columns"),
        (
            "p.csv",
            "prompt,sound\na,loud\n",
            "p.csv, line 2: kling-v2-6: sound must be True or False, not 'loud'",
        ),
        ("p.csv", "promt\na\n", "p.csv, line 1: unknown column 'promt' (did you mean 'prompt')"),
        ("p.pdf", "a", "p.pdf: prompts are read from .txt"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence_and_nothing_is_sent(cli, serve, name, content, sentence):
    emulator = serve()
    if content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    done = cli("generate", "--from", name, "--out", "v")
    assert done.status == 2
    assert sentence in done.error_line
    assert done.out == ""
    assert not emulator.stats.requests
    assert not Path("v").exists()


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--duration", "7"], "duration must be 5 or 10, not 7"),
        (["--duration", "ten"], "duration must be 5 or 10, not 'ten'"),
        (["--cfg-scale", "1.5"], "cfg_scale must be from 0 to 1, not 1.5"),
        (["--cfg-scale", "low"], "cfg_scale must be a number from 0 to 1, not 'low'"),
        (["--model", "Kling-V2-6"], "model must be 'kling-v2-6' in this case of its letters"),
        (["--aspect-ratio", "16:9"], "takes no aspect_ratio (got '16:9')"),
        (["--image", "lost.png"], "there is no file 'lost.png'"),
    ],
)
def test_an_option_that_breaks_the_models_rules_is_one_sentence_and_nothing_is_sent(
    cli, serve, options, sentence
):
    emulator = serve()
    done = cli("generate", "a cat", *options)
    assert done.status == 2
    assert sentence in done.error_line
    assert not emulator.stats.requests


def test_bad_items_may_be_skipped_and_count_as_not_made(cli, serve, home):
    emulator = serve()
    (home / "p.jsonl").write_text(f'"a cat"\nnonsense\n"{LONG}"\n"a dog"\n')
    done = cli("generate", "--from", "p.jsonl", "--skip-invalid", "--json", "--quiet")
    assert done.status == 1
    assert [job.payload["prompt"] for job in emulator.stats.accepted] == ["a cat", "a dog"]
    states = {record["index"]: (record["state"], record["error_type"]) for record in done.records}
    assert states == {
        0: ("succeeded", None),
        1: ("not_submitted", "InvalidRequestError"),
        2: ("not_submitted", "InvalidRequestError"),
        3: ("succeeded", None),
    }
    assert "#1: not submitted: p.jsonl, line 2: not JSON" in done.err
    assert "#2: not submitted: p.jsonl, line 3: kling-v2-6: prompt must be at most" in done.err


@pytest.mark.unmeasured
@pytest.mark.parametrize("options, told", [([], "out"), (["--json"], "err"), (["--quiet"], None)])
def test_a_report_is_written_when_the_batch_is_over(cli, serve, home, options, told):
    serve()
    done = cli("generate", "a cat", "--out", "v", "--report", "v/report.html", *options)
    assert done.status == 0
    page = (home / "v" / "report.html").read_text(encoding="utf-8")
    assert "1 of 1 videos made" in page
    assert 'id="time-line"' in page
    for stream in ("out", "err"):
        assert ("Report: v/report.html" in getattr(done, stream)) is (stream == told)


def test_what_was_not_made_is_in_the_report_too(cli, serve, home):
    serve(faults=(Fault("submit", FAILING, nth=1),))
    done = cli("generate", "a cat", "--report", "report.html")
    assert done.status == 1
    assert "policy" in (home / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["taken/r.html", "folder", "folder/", "/proc/r.html"])
def test_a_report_that_cannot_be_written_is_one_sentence_and_nothing_is_sent(cli, serve, home, path):
    (home / "taken").write_text("a file")
    (home / "folder").mkdir()
    emulator = serve()
    done = cli("generate", "a cat", "--report", path)
    assert done.status == 2
    assert f"The report cannot be written to {str(Path(path))!r}: " in done.error_line
    assert not emulator.stats.requests
    assert list((home / "folder").iterdir()) == []


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "option, place",
    [
        *(
            (option, place)
            for option in ("--out", "--journal", "--report", "--from")
            for place in ("https://bucket.example/v", ":memory:", "~no-such-user/v", "")
        ),
        *(
            (option, place)
            for option in ("--journal", "--report", "--from")
            for place in ("s3://b/v", "file:///v")
        ),
    ],
)
def test_a_path_that_is_not_on_this_machine_is_one_sentence_and_nothing_is_sent(
    cli, serve, home, option, place
):
    emulator = serve()
    done = cli("generate", "a cat", f"{option}={place}")
    assert done.status == 2
    assert f"generate: {option}='{place}' " in done.error_line
    assert not emulator.stats.requests
    assert list(home.iterdir()) == []


def test_the_home_folder_is_expanded_in_each_path(cli, serve, home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    serve()
    (home / "p.txt").write_text("a cat\n")
    options = ("--from=~/p.txt", "--out=~/v", "--journal=~/j.db", "--report=~/r.html")
    assert cli("generate", *options).status == 0
    assert {path.name for path in home.iterdir()} >= {"p.txt", "v", "j.db", "r.html"}
    assert "1 succeeded" in cli("status", "~/j.db").err
    assert "Nothing to do" in cli("resume", "~/j.db", "--out", "~/v").err


@pytest.mark.parametrize("out", ["taken/v", "taken", "/proc/v"])
def test_a_folder_that_cannot_be_written_is_one_sentence_and_nothing_is_sent(cli, serve, home, out):
    (home / "taken").write_text("a file")
    emulator = serve()
    done = cli("generate", "a cat", "--out", out)
    assert done.status == 2
    assert f"Videos cannot be saved in {out!r}: " in done.error_line
    assert not emulator.stats.requests


@pytest.mark.parametrize(
    "settings, options, reason",
    [
        ({"refused_keys": {"any-key"}}, [], "the API key was not accepted; check GMI_API_KEY"),
        ({"credits": 0}, [], "the account has no credits left"),
    ],
)
def test_a_refusal_of_all_items_is_printed_once(cli, serve, settings, options, reason):
    emulator = serve(**settings)
    done = cli("generate", "a black cat", "a white dog", "--max-concurrency", "1", *options)
    assert done.status == 1
    assert done.out.startswith("0 of 2 videos saved")
    error_line, line, why, command = done.err.splitlines()
    assert error_line == "kling-async generate: 2 of 2 videos were not saved:"
    assert line.startswith("  #0, #1: not submitted: ")
    assert reason in line
    assert why == "To resume what can still finish:"
    assert command == "  kling-async resume videos/run.db --max-concurrency 1"
    assert emulator.stats.requests["submit"] == 1


def test_a_misspelt_model_is_printed_once_with_the_nearest_name(cli, serve):
    emulator = serve()
    done = cli("generate", "a black cat", "a white dog", "--max-concurrency", "1", "--model", "kling-v2.6")
    assert done.status == 1
    _, line, why, command = done.err.splitlines()
    assert "model kling-v2.6 does not exist" in line
    assert why == "For the names of all models (did you mean kling-v2-6?):"
    assert command == "  kling-async models"
    assert emulator.stats.requests["submit"] == 1


def test_prompts_come_from_stdin_too(serve, cli, home, monkeypatch):
    emulator = serve()
    read, write = os.pipe()
    os.write(write, "a cat\n\n一只狗\n".encode())
    os.close(write)
    with os.fdopen(read, encoding="ascii") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        done = cli("generate", "--from", "-")
    assert done.status == 0
    assert [job.payload["prompt"] for job in emulator.stats.accepted] == ["a cat", "一只狗"]
    assert done.out.startswith("2 of 2 videos saved in videos/")


def test_the_emulator_in_the_process_needs_no_key(cli, home):
    done = cli("generate", "a cat", "--emulate")
    assert (done.status, done.err) == (0, "")
    (file,) = (home / "videos").iterdir()
    assert file.read_bytes()[4:8] == b"ftyp"


def test_without_a_journal_ctrl_c_prints_the_ids_of_jobs_in_flight(serve, interrupt, home):
    emulator = serve(script=lambda *_: JobScript(ending="stuck_processing"))
    (home / "p.txt").write_text("".join(f"prompt number {number}\n" for number in range(20)))
    done = interrupt(
        lambda: len(emulator.stats.accepted) == 3,
        *("generate", "--from", "p.txt", "--max-concurrency", "3", "--out", "my v", "--no-journal"),
    )
    assert done.status == 130
    headline, why, command = done.err.splitlines()
    assert headline == "kling-async generate: interrupted: 0 saved, 0 failed, 3 in flight, 17 not sent."
    assert why.endswith("To save them:")
    words = command.split()
    assert words[:2] == ["kling-async", "download"]
    assert set(words[2:5]) == {job.request_id for job in emulator.stats.accepted}
    assert command.endswith(" --out 'my v'")
    assert len(emulator.stats.accepted) == 3


@pytest.mark.unmeasured
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_that_an_interruption_prints_makes_the_rest_and_buys_nothing_twice(
    cli, serve, start_process, number, status
):
    slow = JobScript(queue_time=0.0, run_time=1500.0)
    emulator = serve(script=lambda count, _: slow if count <= 3 else None)
    Path("p.txt").write_text("".join(f"prompt number {number}\n" for number in range(9)))
    process = start_process("generate", "--from", "p.txt", "--max-concurrency", "3", "--out", "my v")
    wait_until(lambda: len(emulator.stats.accepted) == 3)
    process.send_signal(number)
    assert process.wait(20) == status
    headline, ids, why, command = process.stderr.read().splitlines()
    assert headline == "kling-async generate: interrupted: 0 saved, 0 failed, 3 in flight, 6 not sent."
    told, _, listed = ids.partition(": ")
    assert told == "The jobs in flight continue at the service and are charged"
    assert set(listed.split(", ")) == {job.request_id for job in emulator.stats.accepted}
    assert why == "To resume:"
    assert command == "  kling-async resume 'my v/run.db' --max-concurrency 3"
    done = cli(*shlex.split(command)[1:])
    assert done.status == 0
    assert done.err == "Resuming my v/run.db: 3 in flight, 6 of 9 to submit.\n"
    assert done.out.startswith("9 of 9 videos saved in my v/ (")
    assert len(emulator.stats.accepted) == 9
    names = sorted(path.name[:5] for path in Path("my v").glob("*.mp4"))
    assert names == [f"{index:05}" for index in range(9)]


def test_ctrl_c_writes_a_report_of_the_ended_items_and_resuming_writes_it_again(
    cli, serve, start_process, home
):
    slow = JobScript(queue_time=0.0, run_time=1500.0)
    emulator = serve(script=lambda number, _: JobScript(ending="instant") if number == 1 else slow)
    (home / "p.txt").write_text("".join(f"prompt number {number}\n" for number in range(4)))
    process = start_process(
        "generate", "--from", "p.txt", "--max-concurrency", "2", "--report", "r.html", "--json"
    )
    assert json.loads(process.stdout.readline())["state"] == "succeeded"
    wait_until(lambda: len(emulator.stats.accepted) == 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    *_, command, told = process.stderr.read().splitlines()
    assert told == "Report: r.html"
    page = (home / "r.html").read_text(encoding="utf-8")
    assert "1 of 4 videos made" in page
    assert "Interrupted: 3 videos had not ended yet" in page
    assert cli(*shlex.split(command)[1:]).status == 0
    page = (home / "r.html").read_text(encoding="utf-8")
    assert "4 of 4 videos made" in page
    assert "Interrupted" not in page


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_waits_for_the_reply_to_the_last_submit(cli, serve, home, number, status):
    def interrupt(*_: object) -> JobScript:
        os.kill(os.getpid(), number)
        return JobScript(ending="stuck_queued")

    emulator = serve(script=interrupt)
    done = cli("generate", "a cat", "--json")
    assert done.status == status
    assert done.out == ""
    assert emulator.stats.accepted[0].request_id in done.err


@pytest.mark.unmeasured
def test_a_second_ctrl_c_waits_for_nothing_and_says_what_is_unknown(serve, start_process):
    emulator = serve(faults=(Fault("submit", Stall(60.0)),))
    process = start_process("generate", "a cat")
    wait_until(lambda: emulator.stats.accepted)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    said = process.stderr.read()
    assert "the event loop ended before the answer came; the service may have accepted the request" in said
    assert said.endswith(
        "kling-async generate: interrupted: 0 saved, 0 failed, 0 in flight, 1 without a reply, 0 not sent or without a reply.\n"
        "To resume:\n  kling-async resume videos/run.db\n"
    )


def test_a_closed_stdout_stops_the_batch_and_jobs_in_flight_are_printed(serve, start_process, home):
    emulator = serve(
        script=lambda number, _: JobScript(ending="instant" if number == 1 else "stuck_processing")
    )
    process = start_process("generate", "a black cat", "a white dog", "--json")
    process.stdout.close()
    process.stdout = None
    assert process.wait(30) == 1
    headline, ids, *_ = process.stderr.read().splitlines()
    assert headline == "kling-async generate: interrupted: 1 saved, 0 failed, 1 in flight, 0 not sent."
    assert emulator.stats.accepted[1].request_id in ids
    assert emulator.stats.accepted[0].request_id not in ids
