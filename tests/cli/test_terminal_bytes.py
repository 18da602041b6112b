"""The bytes that reach a terminal while the service puts steering characters into each of its texts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager, suppress
from threading import Thread

import pytest

from kling_async.cli.app import run
from kling_async.emulator import JobScript
from kling_async.lines import one_line

EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\r\nfake line\u2028\u202egnp.exe\u2066\u061c\x00\x7f"
ID = f"--base-url={EVIL}"
"""An id that begins like an option."""
OF_RICH = re.compile(r"\x1b\[[0-9;]*[mKABGJ]|\x1b\[\?25[lh]|\x1b\[1?G|\r?\n|\r(?=\x1b|[^\n])")
"""The sequences with which the command line itself draws: colours, its progress bar, ends of lines."""


def script(number, _payload):
    ending = "failed" if number % 2 else "success"
    return JobScript(request_id=f"{ID}{number}", ending=ending, error=EVIL, run_time=0.0, queue_time=0.0)


@contextmanager
def terminal(monkeypatch):
    """A terminal for stdout and stderr in one; its value becomes the bytes that were written to it."""
    written, (master, slave) = bytearray(), os.openpty()

    def read():
        with suppress(OSError):  # Linux: the last writer has closed
            while piece := os.read(master, 65_536):
                written.extend(piece)

    reader = Thread(target=read)
    reader.start()
    try:
        with os.fdopen(slave, "w") as file, monkeypatch.context() as patch:
            patch.setenv("TERM", "xterm")
            patch.setenv("COLUMNS", "200")
            patch.setattr(sys, "stdout", file)
            patch.setattr(sys, "stderr", file)
            yield written
    finally:
        reader.join()
        os.close(master)


def find_steering(text):
    """The characters that steer a terminal, without those of our own drawing."""
    left = OF_RICH.sub("", text)
    return sorted({character for character in left if one_line(character) != character})


@pytest.fixture
def evil_batch(cli, serve):
    serve(script=script, instant_rate=0.0)
    made = cli("generate", "a black cat", "a white cat", "--out", "videos", "--journal", "run.db")
    assert made.status == 1
    return made


COMMANDS = {
    "generate": ("generate", "a red cat", "a blue cat", "--out", "more"),
    "generate without progress": ("generate", "a red cat", "--out", "more", "--quiet"),
    "list": ("list",),
    "list of another model": ("list", "--model", f"-m{EVIL.replace(chr(0), '')}"),
    "status of a job": ("status", "--", f"{ID}2".replace("\x00", "")),
    "status of a journal": ("status", "run.db"),
    "resume": ("resume", "run.db", "--out", "videos"),
    "resume what failed": ("resume", "run.db", "--out", "videos", "--retry-failed"),
    "dry run": ("generate", "a black cat", "--journal", "run.db", "--out", "videos", "--dry-run"),
    "download": ("download", "--out", "d", "--", f"{ID}1".replace("\x00", ""), "no such job"),
    "models": ("models",),
}


@pytest.mark.unmeasured
def test_no_byte_of_the_service_steers_the_terminal(evil_batch, monkeypatch):
    for name, tokens in COMMANDS.items():
        with terminal(monkeypatch) as written:
            run(tokens)
        assert written, name
        assert find_steering(written.decode()) == [], name


def test_no_byte_of_the_service_steers_the_next_program(evil_batch, cli):
    for name, tokens in COMMANDS.items():
        done = cli(*tokens)
        assert done.out or done.err, name
        assert find_steering(done.out.replace("\t", "")) == [], name
        assert find_steering(done.err) == [], name


def test_each_printed_command_takes_the_ids_as_ids(interrupt, serve):
    emulator = serve(
        script=lambda number, _: JobScript(request_id=f"{ID}{number}", ending="stuck_queued"),
        instant_rate=0.0,
    )
    left = interrupt(
        lambda: len(emulator.stats.accepted) == 2,
        "generate",
        "a cat",
        "a dog",
        "--out",
        "videos",
        "--no-journal",
    )
    (command,) = re.findall(r"kling-async download .*", left.err)
    read = subprocess.run(  # noqa: S603
        ["/bin/bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True
    ).stdout.decode()
    words = read.split("\0")[:-1]
    begin = words.index("--")
    assert not [word for word in words[:begin] if "title" in word]
    assert len(words[begin + 1 :]) == 2
    assert all(word.startswith(ID.partition("\x00")[0]) for word in words[begin + 1 :])
