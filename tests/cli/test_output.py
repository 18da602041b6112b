from __future__ import annotations

import io
import json
import os

import pytest
from rich.console import Console

from kling_async.cli.output import choose_progress, one_line, print_error, print_json, print_text, truncate


@pytest.mark.parametrize(
    "text, line",
    [
        ("two\nlines\tand  gaps", "two lines and gaps"),
        ("\x1b[31mred\x07", "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}"),
        ("\u202egnp.exe", "\N{REPLACEMENT CHARACTER}gnp.exe"),
        ("\ud800", "\N{REPLACEMENT CHARACTER}"),
        ("一只猫 👩‍🚀 café", "一只猫 👩‍🚀 café"),
    ],
)
def test_nothing_in_a_text_steers_the_terminal(text, line):
    assert one_line(text) == line


@pytest.mark.parametrize(
    "text, length, line", [("abcde", 5, "abcde"), ("abcdef", 5, "abcd…"), ("abc def", 5, "abc…")]
)
def test_a_cut_text_has_at_most_the_length_asked_for(text, length, line):
    assert truncate(text, length) == line


def test_a_line_is_never_folded_and_its_brackets_are_text():
    file = io.StringIO()
    print_text("[red]" + "x" * 200, Console(file=file, width=40))
    assert file.getvalue() == "[red]" + "x" * 200 + "\n"


def test_an_error_is_one_line_on_stderr_after_the_commands_name(capfd):
    print_error("it broke\nbadly", "first", "second\x1b")
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "kling-async: it broke badly",
        "  first",
        "  second\N{REPLACEMENT CHARACTER}",
    ]


@pytest.mark.parametrize(
    "typed, shown",
    [
        ("Unused: ['postgresql://me:pw1@db/k']", "Unused: ['postgresql://me:***@db/k']"),
        ("'postgresql:/me:p@pw1@db/k' is no file", "'postgresql:/me:***@db/k' is no file"),
        ("write postgresql://user:password@host/db", "write postgresql://user:password@host/db"),
        ("no 'host=h password=pw1'", "no 'host=h password=***'"),
        ("no \"password = 'pw1 pw1' host=h\"", 'no "password = *** host=h"'),
        ("no ?password=pw1&sslmode=require", "no ?password=***&sslmode=require"),
        ("no https://h:80/a b@c", "no https://h:80/a b@c"),
    ],
)
def test_an_error_shows_no_password_that_was_typed_at_a_wrong_place(capfd, typed, shown):
    print_error(typed, typed)
    assert capfd.readouterr().err.splitlines() == [f"kling-async: {shown}", f"  {shown}"]


def test_json_is_one_ascii_line_for_any_text(capfd):
    record = {"prompt": "一只猫\n\ud800", "path": None}
    print_json(record)
    out = capfd.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out) == record


def test_progress_may_be_drawn_beside_json_only_when_that_goes_to_a_file(tmp_path, monkeypatch):
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "w") as pipe, (tmp_path / "lines.jsonl").open("w") as file:
        monkeypatch.setattr("sys.stdout", pipe)
        assert choose_progress(is_json=False) == "auto"
        assert choose_progress(is_json=False, is_quiet=True) is False
        assert choose_progress(is_json=True) is False
        monkeypatch.setattr("sys.stdout", file)
        assert choose_progress(is_json=True) == "auto"
