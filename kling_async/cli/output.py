"""Printing: results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console
from rich.text import Text

from kling_async import lines
from kling_async.lines import reason_of
from kling_async.types import Progress

_STYLES: Mapping[str, str] = {
    "success": "green",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "red",
    "processing": "cyan",
    "submitted": "cyan",
    "intended": "yellow",
    "ambiguous": "yellow",
    "timed_out": "yellow",
}
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_PASSWORD_OF_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/{1,3}[^\s:/@'\"]*:)(?!password@)[^\s'\"]*@")
_PASSWORD_OF_STRING = re.compile(r"(\bpassword\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s'\"&]+)")
_program: ContextVar[str] = ContextVar("program", default="kling-async")
"""The program with the command that runs, which each error names."""


def one_line(text: str) -> str:
    """The text on one line, without the characters that would steer the terminal."""
    return lines.one_line(" ".join(text.split()))


def truncate(text: str, length: int) -> str:
    """The text on one line, in at most so many characters."""
    line = one_line(text)
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def state_text(word: str) -> Text:
    """A job's status or an entry's state in its colour."""
    return Text(word.replace("_", " "), _STYLES.get(word, "dim"))


def age_text(moment: float) -> str:
    """How long ago a moment was, such as `5 min`.

    Args:
        moment: Unix seconds.
    """
    seconds = max(0, int(time.time() - moment))
    size, unit = next(((size, unit) for size, unit in _AGES if seconds >= size), _AGES[-1])
    return f"{seconds // size} {unit}"


@contextmanager
def _name_stdout() -> Iterator[None]:
    """A block whose errors say that stdout cannot be written; the errors of Python and of the system do not name it."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(
            f"Standard output cannot be written ({reason_of(error)}): send it to another place."
        ) from error


class _Stdout(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        with _name_stdout():
            super().print(*objects, **options)


def stdout() -> Console:
    """The console for results: tables, addresses, paths."""
    return _Stdout(highlight=False)


def stderr() -> Console:
    """The console for progress, notes and errors."""
    return Console(stderr=True, highlight=False)


def print_text(line: str | Text, console: Console) -> None:
    """Print one line, never folded, so that it can be copied; brackets in it are no markup."""
    text = line if isinstance(line, Text) else Text(line)
    text.plain = lines.one_line(text.plain)
    console.print(text, soft_wrap=True)


@contextmanager
def name_command(command: str | None) -> Iterator[str]:
    """A block whose errors name a command; its value is how the command is called, such as `kling-async list`.

    Args:
        command: The name of the command; None if there is no such command.
    """
    program = f"kling-async {command}" if command else "kling-async"
    token = _program.set(program)
    try:
        yield program
    finally:
        _program.reset(token)


def print_error(sentence: str, *details: str) -> None:
    """Print one sentence on stderr after the command's name, and each detail on its own line."""
    console = stderr()
    said = one_line(hide_passwords(sentence))
    print_text(Text.assemble((f"{_program.get()}: ", "bold red"), said), console)
    for detail in details:
        print_text(f"  {one_line(hide_passwords(detail))}", console)


def hide_passwords(text: str) -> str:
    """The text without the passwords of URLs and of connection strings, which a person may have typed at a wrong place."""
    return _PASSWORD_OF_STRING.sub(r"\1***", _PASSWORD_OF_URL.sub(r"\1***@", text))


def is_terminal(console: Console) -> bool:
    """Whether a person reads the console; colours that the environment forces into a file do not make one."""
    return console.is_terminal and console.file.isatty() and not console.is_dumb_terminal


def choose_progress(*, is_json: bool, is_quiet: bool = False) -> Progress:
    """The progress to show on stderr: none beside lines of JSON that may go to the same terminal."""
    is_shared = is_json and not stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    return False if is_quiet or is_shared else "auto"


def print_line(line: str) -> None:
    """Print one line on stdout as it is, for the next program."""
    with _name_stdout():
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def print_json(record: Mapping[str, Any]) -> None:
    """Print one JSON object as a line on stdout; ASCII only, so that no encoding can break it."""
    print_line(json.dumps(record))
