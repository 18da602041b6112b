"""The prompts of a command, all checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from kling_async.cli.prompt_files import STDIN, read_file
from kling_async.cli.prompt_rows import Row
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.items import find_picture_problem, find_prompt_slip, find_request_slip, request_from
from kling_async.requests import RequestLike, VideoRequest
from kling_async.slips import Slip, find_shell_slip

_MAX_SHOWN = 10


@attrs.frozen
class Problem:
    """Why an item is invalid, and where it stands."""

    source: str
    unit: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.source}, {self.unit} {self.number}: {self.text}"


@attrs.frozen
class PromptList:
    """All requests of a command, and the problems of those that are invalid, in input order."""

    requests: tuple[VideoRequest | Problem, ...]
    notes: tuple[str, ...] = ()
    """What the file has and the list has not, a sentence each."""

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The invalid items, in input order."""
        return tuple(item for item in self.requests if isinstance(item, Problem))

    @property
    def valid(self) -> list[VideoRequest]:
        """The valid requests, in input order."""
        return [item for item in self.requests if isinstance(item, VideoRequest)]

    def items(self) -> list[RequestLike]:
        """The items for a batch: an invalid item keeps its place, so that each index is that of the input."""
        return [{} if isinstance(item, Problem) else item for item in self.requests]

    def problem_at(self, index: int) -> InvalidRequestError | None:
        """Why the item at an index was not sent; None for one that could be sent."""
        item = self.requests[index]
        return InvalidRequestError(str(item)) if isinstance(item, Problem) else None


def read_prompts(
    prompts: Sequence[str],
    source: str | None,
    options: Mapping[str, Any],
    *,
    is_meant: bool = False,
    keep_labels: bool = False,
    encoding: str | None = None,
) -> PromptList:
    """The prompts of the command line and of a file.

    Args:
        prompts: From the command line.
        source: A file's name, `-` for stdin, or None.
        options: Fill what the items leave open.
        is_meant: Whether prompts that look like a mistake are meant.
        keep_labels: Keep what the file has beside fields of requests as labels.
        encoding: The encoding of the file, if it is neither UTF-8 nor UTF-16.

    Raises:
        ConfigurationError: There is nothing to make, the file cannot be read, or a prompt of the command line looks like
            a mistake.
    """
    if not is_meant:
        _refuse_slips(prompts, has_file=source is not None)
    checker = _RowChecker("the command line", "prompt", options, is_meant=True)
    notes: list[str] = []
    given = [checker.check(Row(at, prompt)) for at, prompt in enumerate(prompts, 1)]
    if source is not None:
        name = "stdin" if source == STDIN else source
        checker = _RowChecker(name, "line", options, is_meant=is_meant, keep_labels=keep_labels)
        file = read_file(source, keep_labels=keep_labels, encoding=encoding)
        given += map(checker.check, file.rows)
        notes += file.notes
    if not given:
        raise ConfigurationError(
            "Nothing to make: give a prompt in quotes, or --from FILE with one prompt a line or a row."
        )
    return PromptList(tuple(given), tuple(notes))


def _refuse_slips(prompts: Sequence[str], *, has_file: bool) -> None:
    """Raise an error for the first prompt of the command line that looks like a mistake."""
    slips = filter(None, map(find_prompt_slip, prompts))
    slip = next(slips, None) or find_shell_slip(prompts, has_file=has_file)
    if slip is not None:
        raise ConfigurationError(f"{_describe(slip)}.")


def _describe(slip: Slip) -> str:
    return f"{slip.reason}: {slip.command}, or add --yes {slip.exception}"


@attrs.frozen
class _RowChecker:
    """Checks the items of one source."""

    source: str
    unit: str
    """What the source numbers, such as `line`."""
    options: Mapping[str, Any]
    is_meant: bool
    keep_labels: bool = False

    def check(self, row: Row) -> VideoRequest | Problem:
        """The request of a row, or its problem."""
        if row.problem is not None:
            return self._problem(row, row.problem)
        try:
            assert row.item is not None
            request = request_from(row.item, self.options, keep_labels=self.keep_labels)
        except InvalidRequestError as error:
            return self._problem(row, error.message)
        if not self.is_meant and (slip := find_request_slip(request)) is not None:
            return self._problem(row, _describe(slip))
        problem = find_picture_problem(request)
        return request if problem is None else self._problem(row, problem)

    def _problem(self, row: Row, text: str) -> Problem:
        return Problem(self.source, self.unit, row.line, text.rstrip("."))


def explain_problems(prompt_list: PromptList) -> list[str]:
    """The problems in words: one sentence, or a headline and a line for each kind of problem."""
    problems = prompt_list.problems
    kinds: dict[tuple[str, str, str], list[int]] = {}
    for problem in problems:
        kinds.setdefault((problem.source, problem.unit, problem.text), []).append(problem.number)
    lines = [
        f"{source}, {_number_list(unit, numbers)}: {text}" for (source, unit, text), numbers in kinds.items()
    ]
    if len(lines) == 1:
        return [f"{lines[0]}. Nothing was sent; mend it, or skip it with --skip-invalid."]
    more = [f"and {len(lines) - _MAX_SHOWN:,} more"] if len(lines) > _MAX_SHOWN else []
    headline = (
        f"{len(problems):,} of {len(prompt_list):,} prompts cannot be used. Nothing was sent; mend them, or skip them "
        "with --skip-invalid:"
    )
    return [headline, *lines[:_MAX_SHOWN], *more]


def _number_list(unit: str, numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"{unit} {numbers[0]}"
    shown = ", ".join(str(number) for number in numbers[:_MAX_SHOWN])
    more = f" and {len(numbers) - _MAX_SHOWN:,} more" if len(numbers) > _MAX_SHOWN else ""
    return f"{unit}s {shown}{more}"
