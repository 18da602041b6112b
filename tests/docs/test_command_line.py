"""The page about the command line names every command and option, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kling_async.cli.app import run

pytestmark = pytest.mark.unmeasured

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "command-line.md").read_text()
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
OPTION = re.compile(r"(?<![\w-])--(?!help|version)[a-z][a-z-]*")
COMMAND = re.compile(r"(?:^|`|&& )kling-async ([a-z]\w*)", re.MULTILINE)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]


def read_help(capsys, *tokens: str) -> str:
    assert run([*tokens, "--help"]) == 0
    return capsys.readouterr().out


def test_every_command_has_a_section(capsys):
    commands = re.findall(r"^│ ([a-z]+) ", read_help(capsys), re.MULTILINE)

    assert set(commands) == set(SECTIONS)


@pytest.mark.parametrize("command", SECTIONS)
def test_every_option_has_a_row(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    offered = re.findall(r"^│ \*? *(--.*?)  ", read_help(capsys, command), re.MULTILINE)
    rows = re.findall(r"^\| (`--.*?) \|", SECTIONS[command], re.MULTILINE)

    assert set(OPTION.findall(" ".join(rows))) == set(OPTION.findall(" ".join(offered)))


def test_every_command_that_a_page_shows_exists():
    shown = {command for page in PAGES for command in COMMAND.findall(page.read_text())}

    assert shown
    assert shown <= set(SECTIONS)
