"""Every message of the command line names the command that was made, and only options and commands that exist there."""

from __future__ import annotations

import ast
import io
import re
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

import kling_async
from kling_async.cli import app
from kling_async.cli.app import run
from kling_async.emulator import Drop, Fault, JobScript, Reply

pytestmark = pytest.mark.unmeasured

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
PRINTED_COMMAND = re.compile(r"kling-async ([a-z]+)([^`\n;]*)")
PYTHON = re.compile(r"\b(?!HTTP)\w+\(|\bclient\.|\bawait\b|(?<![-\w.?&'])[a-z][a-z_]*=")
"""A call, an attribute or a keyword of Python, which a reader in a shell cannot use."""
BROKEN = JobScript(ending="failed", error="policy", queue_time=0.0, run_time=0.0)
PRICE = ("--price", "0.35", "--max-cost", "1")


def fault(call, *answers, **settings):
    return {"faults": tuple(Fault(call, answer, **settings) for answer in answers)}


def refusal(status, text="no"):
    return Reply(status, {"error": text})


ERRORS = {
    "no such command": ({}, ["generat", "x"], "--help` lists all "),
    "generate: no prompt": ({}, ["generate"], "Nothing to make"),
    "generate: an unknown option": (
        {},
        ["generate", "a cat", "--durations", "5"],
        "Did you mean --duration?",
    ),
    "generate: no number": ({}, ["generate", "a cat", "--duration", "long"], "duration must be"),
    "generate: a wrong number": ({}, ["generate", "a cat", "--max-concurrency", "0"], "--max-concurrency"),
    "generate: a wrong choice": ({}, ["generate", "a cat", "--on-ambiguous", "no"], "--on-ambiguous"),
    "generate: a rule of the model": (
        {},
        ["generate", "a cat", "--duration", "7"],
        "duration must be 5 or 10",
    ),
    "generate: a file as a prompt": ({}, ["generate", "prompts.txt"], "--from prompts.txt"),
    "generate: one-word prompts": ({}, ["generate", "a", "cat", "sings"], "into quotes"),
    "generate: no such file": ({}, ["generate", "--from", "lost.txt"], "--from"),
    "generate: a folder": ({}, ["generate", "--from", "."], "--from"),
    "generate: an empty file": ({}, ["generate", "--from", "empty.txt"], "is empty"),
    "generate: a wrong kind of file": ({}, ["generate", "--from", "film.mp4"], ".csv"),
    "generate: bytes": ({}, ["generate", "--from", "bytes.txt"], "UTF-8"),
    "generate: a wrong column": ({}, ["generate", "--from", "rows.csv"], "promt"),
    "generate: a bad line": ({}, ["generate", "--from", "rows.jsonl"], "--skip-invalid"),
    "generate: no such picture": ({}, ["generate", "a cat", "--image", "lost.png"], "lost.png"),
    "generate: emulate and an address": (
        {},
        ["generate", "a cat", "--emulate", "--base-url", "https://a.b"],
        "brings its own",
    ),
    "generate: two journals": (
        {},
        ["generate", "a cat", "--journal", "a.db", "--no-journal"],
        "--no-journal",
    ),
    "generate: a folder as a journal": ({}, ["generate", "a cat", "--journal", "."], "is a folder"),
    "generate: a foreign journal": ({}, ["generate", "a cat", "--journal", "prompts.txt"], "not a journal"),
    "generate: a report at a folder": ({}, ["generate", "a cat", "--report", "."], "The report cannot"),
    "generate: a folder that cannot be": (
        {},
        ["generate", "a cat", "--out", "prompts.txt/a"],
        "Choose another",
    ),
    "generate: a folder of a store": ({}, ["generate", "a cat", "--out", "https://clips"], "--out="),
    "generate: a direct upload to a folder": (
        {},
        ["generate", "a cat", "--direct-upload"],
        "--direct-upload needs the URL",
    ),
    "generate: a cap without a price": (
        {},
        ["generate", "a cat", "--max-cost", "1"],
        "--max-cost needs to know",
    ),
    "generate: no money": ({}, ["generate", "a cat", "--price", "much"], " takes US dollars"),
    "generate: a price of two models": (
        {},
        ["generate", "--from", "models.csv", "--price", "0.35"],
        " names no model, and there are ",
    ),
    "generate: sound and no sound": (
        {},
        ["generate", "a cat", "--sound", "on", "--no-sound"],
        " and --no-sound are",
    ),
    "generate: no encoding": (
        {},
        ["generate", "--from", "prompts.txt", "--encoding", "x"],
        "the name of an encoding",
    ),
    "generate: a column of one's own": (
        {},
        ["generate", "--from", "moods.csv"],
        "The first line names the columns",
    ),
    "generate: no prompts": ({}, ["generate", "--from", "models_alone.csv"], "mend the header"),
    "generate: no cap": ({}, ["generate", "a cat", "--max-cost", "1 €"], "--max-cost takes"),
    "generate: two prices": ({}, ["generate", "a cat", "--price", "1", "--price", "2"], "two prices"),
    "generate: the cap": ({}, ["generate", "a cat", "a dog", "a boat", *PRICE], "raise --max-cost"),
    "generate: a wrong key": (fault("submit", refusal(401)), ["generate", "a cat"], "check GMI_API_KEY"),
    "generate: no credits": (fault("submit", refusal(402)), ["generate", "a cat"], "no credits"),
    "generate: no such model": ({}, ["generate", "a cat", "--model", "kling-v2.6"], "did you mean"),
    "generate: a failed job": ({"script": lambda *_: BROKEN}, ["generate", "a cat"], "--retry-failed"),
    "generate: a failed download": (
        fault("media", refusal(404), times=None),
        ["generate", "a cat"],
        "not saved",
    ),
    "generate: a lost submit": (
        {"faults": (Fault("submit", Drop(accepted=False)), Fault("list", refusal(403), times=None))},
        ["generate", "a cat"],
        "--on-ambiguous",
    ),
    "worker: a file as the journal": (
        {},
        ["worker", "--journal", "lost.db", "--quiet"],
        "workers share a PostgreSQL database",
    ),
    "resume: no journal": ({}, ["resume"], "JOURNAL"),
    "resume: a lost journal": ({}, ["resume", "lost.db"], "There is no journal 'lost.db'"),
    "resume: a foreign journal": ({}, ["resume", "prompts.txt"], "not a journal"),
    "resume: a wrong option": ({}, ["resume", "run.db", "--model", "x"], "Unknown option"),
    "status: an unknown id": ({}, ["status", "nope"], "job nope: the service has no such job"),
    "download: a blank id": ({}, ["download", " "], "kling-async list"),
    "status: a lost journal": ({}, ["status", "lost.db"], "There is no journal"),
    "status: a foreign journal": ({}, ["status", "prompts.txt"], "not a journal"),
    "download: an unknown id": ({}, ["download", "nope"], "job nope: the service has no such job"),
    "download: an impossible id": ({}, ["download", ".."], "kling-async list"),
    "download: no id": ({}, ["download"], "ID"),
    "download: a wrong option": ({}, ["download", "nope", "--output", "x"], "Did you mean --out?"),
    "download: a folder that cannot be": (
        {},
        ["download", "nope", "--out", "prompts.txt/a"],
        "Choose another",
    ),
    "list: a wrong number": ({}, ["list", "--limit", "0"], "--limit"),
    "list: a wrong key": (fault("list", refusal(401)), ["list"], "check GMI_API_KEY"),
    "models: a wrong key": (fault("models", refusal(401)), ["models"], "the list of models"),
    "models: a wrong address": ({}, ["models", "--base-url", "console"], "The base URL 'console'"),
    "emulator: no number": ({}, ["emulator", "--port", "x"], "--port"),
    "emulator: no rate": ({}, ["emulator", "--failure-rate", "2"], "; see `kling-async emulator --help`"),
    "emulator: no address": ({}, ["emulator", "--host", "256.0.0.1"], "another --host or --port"),
    "demo: a folder of a store": ({}, ["demo", "--out", "s3://clips"], "--out="),
    "demo: a wrong option": ({}, ["demo", "--output", "x"], "Did you mean --out?"),
    "completion: a wrong shell": ({}, ["completion", "tcsh"], "SHELL"),
}
"""The settings of the emulator, the command line, and what its message says."""


@cache
def options_of(command):
    """The options that the help of a command lists."""
    with redirect_stdout(io.StringIO()) as text:
        assert run([command, "--help"]) == 0
    return set(OPTION.findall(text.getvalue()))


@pytest.fixture
def files(home):
    """Files that the command lines name."""
    (home / "prompts.txt").write_text("a cat\n")
    (home / "empty.txt").write_text("\n")
    (home / "film.mp4").write_bytes(b"film")
    (home / "bytes.txt").write_bytes(b"\xff\xff")
    (home / "rows.csv").write_text("promt\na cat\n")
    (home / "models.csv").write_text("prompt,model\na cat,kling-v2-6\na dog,kling-v3-text-to-video\n")
    (home / "moods.csv").write_text("prompt,mood\na cat,sad\n")
    (home / "models_alone.csv").write_text("model\nkling-v2-6\n")
    (home / "rows.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')


def check(text, command, *given):
    """Hold every sentence to the options of the command that it belongs to, and to the words of a shell.

    Args:
        text: What the command printed.
        command: The command that was made; empty for none.
        given: The arguments that were given; a message may repeat a wrong one.
    """
    text = text.removeprefix(f"kling-async {command}: ")
    for other, arguments in PRINTED_COMMAND.findall(text):
        assert set(OPTION.findall(arguments)) <= {*options_of(other), "--help"}, other
    own = PRINTED_COMMAND.sub("", text).replace("`kling-async --help`", "")
    assert set(OPTION.findall(own)) <= (options_of(command) if command else set()) | set(given)
    assert PYTHON.findall(own) == []


@pytest.mark.parametrize("name", ERRORS)
def test_a_message_names_its_command_and_only_options_that_are_there(name, serve, cli, files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    settings, tokens, said = ERRORS[name]
    serve(**settings)
    done = cli(*tokens)
    command = tokens[0] if ":" in name else ""
    assert done.status != 0
    assert done.err.startswith(f"kling-async {command}: " if command else "kling-async: ")
    assert said in done.err
    check(done.err, command, *tokens)


def test_a_missing_key_is_a_message_without_python(cli, home, monkeypatch):
    for command in ("generate", "list", "status", "download", "models"):
        done = cli(command, *(["a cat"] if command == "generate" else ["x"] if command[0] in "sd" else []))
        assert done.error_line.startswith(f"kling-async {command}: No API key: set the environment variable")
        check(done.err, command)


def test_the_reason_that_a_journal_holds_has_no_word_of_python(serve, cli):
    settings, tokens, _ = ERRORS["generate: a lost submit"]
    serve(**settings)
    cli(*tokens)
    done = cli("status", "videos")
    assert "the service may have taken this request" in done.out
    check(done.out, "status")


def test_every_command_has_a_message_in_the_table():
    assert {name.partition(":")[0] for name in ERRORS if ":" in name} == {*app._COMMANDS, "completion"}


ELSEWHERE = {
    "interrupted: ….": "tests/cli/test_generate.py",
    "interrupted before anything was done.": "tests/cli/test_summary.py",
    "left at once: its jobs continue, and other workers or `kling-async resume` save them.": "tests/cli/test_worker.py",
    "… of … prompts cannot be used and are left out.": "tests/cli/test_preview.py: no error, the rest is shown",
    "No API key: set the environment variable GMI_API_KEY; `kling-async demo` and `kling-async generate --emulate` "
    "work without one.": "above",
}
"""Messages that the table does not make, and where they are made."""


def literal_messages():
    """The texts of the errors that the commands raise and print, with `…` for a value; without those that are a value."""
    folder = Path(kling_async.__file__).parent / "cli"
    for file in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            name = getattr(getattr(node, "func", None), "id", "")
            if name in {"ConfigurationError", "print_error"} and isinstance(
                node.args[0], ast.Constant | ast.JoinedStr
            ):
                parts = getattr(node.args[0], "values", [node.args[0]])
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)


def test_the_table_makes_every_message_of_the_commands():
    texts = [text for text in literal_messages() if len(text.replace("…", "")) > 5]
    said = [words for _, _, words in ERRORS.values() if words]
    assert len(texts) > 20
    assert [
        text for text in texts if text not in ELSEWHERE and not any(words in text for words in said)
    ] == []
    assert set(ELSEWHERE) <= set(texts)
