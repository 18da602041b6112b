"""Files of prompts, read as rows with line numbers; a bad row holds its problem, so that all problems are printed together."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import attrs

from kling_async.catalog import quote_value
from kling_async.errors import ConfigurationError
from kling_async.requests import FIELDS

STDIN = "-"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@attrs.frozen
class Row:
    """One item of a file."""

    line: int
    """Where it begins, from 1."""
    item: str | Mapping[str, Any] | None
    """A prompt, or fields of a request; None where the line is neither."""
    problem: str | None = None
    """Why the line is neither."""


@attrs.frozen
class PromptFile:
    """The content of a file of prompts."""

    rows: Sequence[Row]
    """The items, without blank lines."""
    notes: Sequence[str] = ()
    """What was left out, a sentence each."""


def read_file(source: str) -> PromptFile:
    """The items of a file, and what was left out.

    Args:
        source: The file's name, which says what it is by its ending, or `-` for a text on stdin.

    Raises:
        ConfigurationError: It cannot be read, is not UTF-8, or is of another kind; or its header is no header.
    """
    suffix = ".txt" if source == STDIN else Path(source).suffix.lower()
    if suffix not in _READERS and Path(source).is_dir():
        raise ConfigurationError(f"{source} is a folder; name a file in it for --from.")
    if suffix not in _READERS:
        raise ConfigurationError(
            f"{source}: prompts are read from .txt (one a line), .csv and .jsonl files; rename it or convert it."
        )
    file = _READERS[suffix](_text(source), source)
    if not file.rows:
        name = "stdin" if source == STDIN else source
        raise ConfigurationError(
            f"{name} is empty: there is no prompt in it; write one, or name another file."
        )
    return file


def _text(source: str) -> str:
    try:
        content = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"{source} cannot be read: {reason}; check the name given to --from."
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        kind = "it looks like UTF-16" if content.startswith(_UTF_16) else f"byte 0x{content[error.start]:02x}"
        raise ConfigurationError(
            f"{source}, line {line}: not UTF-8 ({kind}); save the file as UTF-8."
        ) from error


def _read_text(text: str, source: str) -> PromptFile:
    """A prompt a line. A line that begins with `#` and a space is a comment; `#1 of 3` can be a prompt."""
    lines = _lines(text)
    rows = [Row(number, line) for number, line in lines if line.split(maxsplit=1)[0].strip("#")]
    comments = len(lines) - len(rows)
    noun = "1 comment is" if comments == 1 else f"{comments:,} comments are"
    name = "stdin" if source == STDIN else source
    return PromptFile(rows, [f"{name}: {noun} left out (# and a space)."] if comments else [])


def _read_json(text: str, _source: str) -> PromptFile:
    return PromptFile([_json_row(number, line) for number, line in _lines(text)])


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines with their numbers, without those that are blank."""
    lines = enumerate(io.StringIO(text, newline=None), start=1)
    return [(number, stripped) for number, line in lines if (stripped := line.strip())]


def _json_row(number: int, line: str) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at character {error.pos + 1}"
        return Row(number, None, f"not JSON ({where}): {quote_value(line)}")
    except (ValueError, RecursionError) as error:
        return Row(number, None, f"JSON that cannot be read ({error}): {quote_value(line)}")
    if isinstance(value, str):
        return Row(number, value)
    if not isinstance(value, dict):
        return Row(number, None, f"neither an object nor a string: {quote_value(line)}")
    unknown_names = [_unknown_name(name, "key") for name in value if name not in FIELDS]
    return Row(number, value, "; ".join(unknown_names) or None)


def _read_csv(text: str, source: str) -> PromptFile:
    return PromptFile(list(_csv_rows(text, source)))


def _csv_rows(text: str, source: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # After this error the start of the next row is unknown.
            yield Row(line, None, f"not CSV ({error}); check the quotes from here on")
            return
        if cells is None:
            return
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if header is None:
            header = _header(cells, f"{source}, line {line}")
        else:
            yield _csv_row(line, header, cells)


def _header(names: list[str], place: str) -> list[str]:
    if len(names) == 1 and (separators := {";", "\t"} & set(names[0])):
        found = "tabs" if "\t" in separators else "semicolons"
        raise ConfigurationError(f"{place}: the columns are separated by {found}; save the file with commas.")
    unknown_names = [_unknown_name(name, "column") for name in names if name not in FIELDS]
    if unknown_names:
        raise ConfigurationError(f"{place}: {'; '.join(unknown_names)}. The first line names the columns.")
    if "prompt" not in names or len(set(names)) < len(names):
        fault = "a column 'prompt' is missing" if "prompt" not in names else "a column is named twice"
        raise ConfigurationError(f"{place}: {fault} (got {quote_value(', '.join(names))}); mend the header.")
    return names


def _csv_row(line: int, header: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) > len(header):
        extra = quote_value(cells[len(header)])
        return Row(
            line,
            None,
            f"{len(cells)} cells under {len(header)} columns, {extra} is too many; "
            "a cell that holds a comma needs quotes around it",
        )
    fields: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=False) if cell}
    if "extra" in fields:
        try:
            fields["extra"] = json.loads(fields["extra"])
        except (ValueError, RecursionError) as error:
            return Row(line, None, f"extra is not JSON ({error}): {quote_value(fields['extra'])}")
    return Row(line, fields)


def _unknown_name(name: str, noun: str) -> str:
    near = get_close_matches(name.strip().lower(), FIELDS, n=1)
    advice = f"did you mean {near[0]!r}" if near else f"the {noun}s are {', '.join(FIELDS)}"
    return f"there is no {noun} {quote_value(name)} ({advice})"


_READERS: Mapping[str, Callable[[str, str], PromptFile]] = {
    ".txt": _read_text,
    ".csv": _read_csv,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
}
