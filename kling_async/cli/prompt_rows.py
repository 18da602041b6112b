"""The rows in the text of a file of prompts; a bad row holds its problem, so that all problems are printed together."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from kling_async.errors import ConfigurationError
from kling_async.items import read_columns
from kling_async.lines import nearest_name, quote_value
from kling_async.requests import FIELDS

_SEPARATORS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(?P<separator>[^"\r\n])"?(\r\n|\n|\r)', re.IGNORECASE)
"""A first line that tells a spreadsheet which character separates the cells. Source: Excel reads and writes it."""
_QUOTES_ADVICE = "put quotes around a cell that holds the separator"


@attrs.frozen
class Row:
    """One item of a file."""

    line: int
    """Where it begins, from 1."""
    item: str | Mapping[Any, Any] | None
    """A prompt, or fields of a request; None where the line is neither."""
    problem: str | None = None
    """Why the line is neither."""


@attrs.frozen
class PromptFile:
    """The content of a file of prompts."""

    rows: Sequence[Row]
    """The items, without blank lines."""
    notes: Sequence[str] = ()
    """What was left out or kept apart, a sentence each."""


def read_text(text: str, name: str, *, keep_labels: bool) -> PromptFile:  # noqa: ARG001 - a reader
    """A prompt a line. A line that begins with `#` and a space is a comment; `#1 of 3` can be a prompt."""
    lines = _lines(text)
    rows = [Row(number, line) for number, line in lines if line.split(maxsplit=1)[0].strip("#")]
    comments = len(lines) - len(rows)
    noun = "1 comment is" if comments == 1 else f"{comments:,} comments are"
    return PromptFile(rows, [f"{name}: {noun} left out (# and a space)."] if comments else [])


def read_json(text: str, name: str, *, keep_labels: bool) -> PromptFile:  # noqa: ARG001 - a reader
    """An object or a text a line."""
    return PromptFile([_json_row(number, line, keep_labels=keep_labels) for number, line in _lines(text)])


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines with their numbers, without those that are blank."""
    lines = enumerate(io.StringIO(text, newline=None), start=1)
    return [(number, stripped) for number, line in lines if (stripped := line.strip())]


def _json_row(number: int, line: str, *, keep_labels: bool) -> Row:
    try:
        value = json.loads(line, object_pairs_hook=_object_of)
    except json.JSONDecodeError as error:
        where = f"{error.msg} at character {error.pos + 1}"
        return Row(number, None, f"not JSON ({where}): {quote_value(line)}")
    except (ValueError, RecursionError) as error:
        return Row(number, None, f"JSON that cannot be read ({error}): {quote_value(line)}")
    if isinstance(value, str):
        return Row(number, value)
    if not isinstance(value, dict):
        return Row(number, None, f"neither an object nor a string: {quote_value(line)}")
    further = () if keep_labels else read_columns(tuple(value)).further
    return Row(number, value, _describe_further(further, "key") or None)


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these members; as in a table, none may be named twice.

    Raises:
        ValueError: One is.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in members if names.count(name) > 1)
        raise ValueError(f"{quote_value(twice)} is named twice")
    return members


def read_csv(text: str, name: str, *, keep_labels: bool) -> PromptFile:
    """A header, and an item a row.

    Raises:
        ConfigurationError: The first line does not name the columns.
    """
    separator_line = _SEPARATOR_LINE.match(text)
    body = text[separator_line.end() :] if separator_line else text
    separator = separator_line["separator"] if separator_line else _find_separator(body)
    lines = _csv_lines(body, separator, skipped=1 if separator_line else 0)
    first = next(lines, None)
    if first is None or first.problem is not None:
        return PromptFile([Row(first.number, None, first.problem)] if first else [])
    header = _read_header(first.cells, f"{name}, line {first.number}", keep_labels=keep_labels)
    rows = [_csv_row(line, header) for line in lines]
    return PromptFile(rows, [f"{name}: {note}" for note in _header_notes(header)])


@attrs.frozen
class _Line:
    """One row of a CSV, before its columns are known."""

    number: int
    cells: Sequence[str]
    problem: str | None = None


def _csv_lines(text: str, separator: str, *, skipped: int = 0) -> Iterator[_Line]:
    """The rows that are not blank, the header among them."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        number = reader.line_num + 1 + skipped
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # After this error the start of the next row is unknown.
            yield _Line(number, (), f"not CSV ({error}); check the quotes from here on")
            return
        if cells is None:
            return
        cells = [cell.strip() for cell in cells]
        if any(cells):
            yield _Line(number, cells)


def _find_separator(text: str) -> str:
    """The separator that makes the most fields of a request of the first line; a comma if none makes one."""

    def count_fields(separator: str) -> int:
        header = next(_csv_lines(text, separator), None)
        return len(read_columns(tuple(header.cells)).fields) if header else 0

    return max(_SEPARATORS, key=count_fields)


@attrs.frozen
class _Header:
    """The columns of a CSV by their places."""

    names: Sequence[str | None]
    """None for a column without a name."""
    labels: Sequence[str]
    """The names of the columns that are no fields of a request."""

    @property
    def first(self) -> int:
        """The first column with a name; before that stand the numbers of rows."""
        return next(at for at, name in enumerate(self.names) if name is not None)


def _read_header(names: Sequence[str], place: str, *, keep_labels: bool) -> _Header:
    columns = read_columns(tuple(names))
    labels = [str(name) for name in columns.further]
    if labels and not keep_labels:
        missing = "" if "prompt" in columns.fields.values() else "; a column 'prompt' is missing"
        raise ConfigurationError(
            f"{place}: {_describe_further(labels, 'column')}{missing}. The first line names the columns."
        )
    meant = [columns.fields.get(name, name) for name in names if name in columns.fields or name in labels]
    if "prompt" not in meant or len(set(meant)) < len(meant):
        fault = "a column 'prompt' is missing" if "prompt" not in meant else "a column is named twice"
        raise ConfigurationError(f"{place}: {fault} (got {quote_value(', '.join(names))}); mend the header.")
    return _Header([name if name in columns.fields or name in labels else None for name in names], labels)


def _header_notes(header: _Header) -> Iterator[str]:
    unnamed = sum(name is None for name in header.names)
    if unnamed:
        noun = "1 column without a name is" if unnamed == 1 else f"{unnamed} columns without a name are"
        yield f"{noun} left out."
    if header.labels:
        yield f"kept as labels: {', '.join(header.labels)}."


def _csv_row(line: _Line, header: _Header) -> Row:
    if line.problem is not None:
        return Row(line.number, None, line.problem)
    too_many = [cell for cell in line.cells[len(header.names) :] if cell]
    if too_many:
        text = f"{len(line.cells)} cells under {len(header.names)} columns, {quote_value(too_many[0])} is too many"
        return Row(line.number, None, f"{text}; {_QUOTES_ADVICE}")
    placed = list(zip(header.names, line.cells, strict=False))
    stray = [cell for name, cell in placed[header.first :] if name is None and cell]
    if stray:
        text = f"{quote_value(stray[0])} stands in a column without a name"
        return Row(line.number, None, f"{text}; name the column, or {_QUOTES_ADVICE}")
    return Row(line.number, {name: cell for name, cell in placed if name is not None and cell})


def _describe_further(names: Sequence[object], noun: str) -> str:
    """Why columns or keys are no fields of a request; empty if there are none."""
    if not names:
        return ""
    near = {name: nearest_name(name, FIELDS) for name in names}
    parts = [f"{quote_value(name)} (did you mean {found!r})" for name, found in near.items() if found]
    if far := [quote_value(name) for name, found in near.items() if not found]:
        parts.append(f"{', '.join(far)} (the {noun}s are {', '.join(FIELDS)})")
    return f"unknown {noun} {', '.join(parts)}; --labels keeps further {noun}s as labels"
