"""The prompts of a command, all checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import attrs

from kling_async.cli.prompt_files import STDIN, Row, read_rows
from kling_async.errors import ConfigurationError, InvalidRequestError
from kling_async.items import find_missing_picture, request_from
from kling_async.requests import RequestLike, RequestRow, VideoRequest

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
        unusable = cast("RequestRow", {})
        return [unusable if isinstance(item, Problem) else item for item in self.requests]

    def problem_at(self, index: int) -> InvalidRequestError | None:
        """Why the item at an index was not sent; None for one that could be sent."""
        item = self.requests[index]
        return InvalidRequestError(str(item)) if isinstance(item, Problem) else None


def read_prompts(prompts: Sequence[str], source: str | None, options: Mapping[str, Any]) -> PromptList:
    """The prompts of the command line and of a file.

    Args:
        prompts: From the command line.
        source: A file's name, `-` for stdin, or None.
        options: Fill what the items leave open.

    Raises:
        ConfigurationError: There is nothing to make, the file cannot be read, or the words of one prompt came as
            prompts of their own.
    """
    if len(prompts) > 1 and all(prompt.isascii() and prompt.isalnum() for prompt in prompts):
        raise ConfigurationError(
            f"{len(prompts)} prompts of one word each would be {len(prompts)} videos: put the words of one prompt "
            f'into quotes ("{" ".join(prompts[:2])} …"), or list one-word prompts in a file for --from.'
        )
    given = [
        _check_row(Row(at, prompt), "the command line", "prompt", options)
        for at, prompt in enumerate(prompts, 1)
    ]
    if source is not None:
        name = "stdin" if source == STDIN else source
        given += [_check_row(row, name, "line", options) for row in read_rows(source)]
    if not given:
        raise ConfigurationError(
            "Nothing to make: give a prompt in quotes, or --from FILE with one prompt a line or a row."
        )
    return PromptList(tuple(given))


def _check_row(row: Row, source: str, unit: str, options: Mapping[str, Any]) -> VideoRequest | Problem:
    text = row.problem
    if text is None:
        try:
            assert row.item is not None
            request = request_from(row.item, options)
        except InvalidRequestError as error:
            text = error.message
        else:
            missing = find_missing_picture(request)
            if missing is None:
                return request
            text = f"there is no file {missing!r}"
    return Problem(source, unit, row.line, text.rstrip("."))


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
