"""What is said when a batch is over, or was interrupted."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence

import attrs
from rich.console import Console

from kling_async._display.page import clock_text
from kling_async._display.tally import Tally
from kling_async.cli.screen import complain, cut, say, stderr
from kling_async.cli.service import Service
from kling_async.models import Result

FAILED = 1
_PROMPT_CHARACTERS = 40
_MOST_NAMED = 10


@attrs.frozen(kw_only=True)
class Errand:
    """Where a batch's videos come from and go to."""

    folder: str
    service: Service
    is_emulated: bool = False

    def pick_up(self, request_ids: Iterable[str]) -> str:
        """The command that waits for jobs and saves their videos here."""
        words = ["kling-async", "download", *request_ids, "--out", self.folder, *self.service.arguments()]
        return shlex.join(words)


def summarise(
    results: Sequence[Result], tally: Tally, errand: Errand, *, seconds: float, console: Console | None
) -> int:
    """Say how many videos are where, why the others are not, and how to get those that may still come.

    Args:
        results: All of them.
        tally: Knows what is still open.
        errand: Knows where to and where from.
        seconds: How long it took.
        console: Where the number is said; None says nothing of a success. Complaints go to stderr anyway.

    Returns:
        The exit status: 0 if every video is here.
    """
    saved = sum(map(is_saved, results))
    if console is not None:
        folder = os.path.join(errand.folder, "")  # noqa: PTH118 - keeps what the user wrote, with a slash
        line = f"{saved:,} of {len(results):,} videos saved in {folder} ({clock_text(seconds)})"
        say(line, console)
    if saved < len(results):
        complain(f"{len(results) - saved:,} of {len(results):,} videos were not saved:", *reasons(results))
    if tally.open_ids and not errand.is_emulated:
        _tell_open(tally, errand, "Some may still come")
    return 0 if saved == len(results) else FAILED


def say_interrupted(tally: Tally, errand: Errand, *, is_hasty: bool = False) -> None:
    """Say what was stopped, what goes on at the service, and how to pick it up.

    Args:
        tally: Knows what is still open.
        errand: Knows how to pick it up.
        is_hasty: The answers to what was just sent were not waited for.
    """
    unsent = f"{(tally.total or 0) - tally.submitted - tally.refused:,} not sent"
    if is_hasty:
        unsent += " or without an answer (`kling-async list` shows what the service took)"
    complain(
        f"interrupted: {tally.saved:,} saved, {tally.failed:,} failed, {len(tally.open_ids):,} still open, {unsent}."
    )
    if errand.is_emulated:
        say("The emulator ended, and its jobs with it.", stderr())
    elif tally.open_ids:
        _tell_open(tally, errand, "The open ones go on at the service and are charged")


def _tell_open(tally: Tally, errand: Errand, why: str) -> None:
    console = stderr()
    say(f"{why}. To save them:", console)
    say(f"  {errand.pick_up(tally.open_ids)}", console)


def reasons(results: Iterable[Result]) -> list[str]:
    """A line for each result without a file; those with the same reason share one."""
    alike: dict[str, list[Result]] = {}
    for result in results:
        if not is_saved(result):
            state = "made, not saved" if result.ok else result.state.replace("_", " ")
            alike.setdefault(f"{state}: {result.error or 'no reason given'}", []).append(result)
    return [f"{_named(group)}: {reason}" for reason, group in alike.items()]


def is_saved(result: Result) -> bool:
    """Whether the video was made and is here."""
    return result.ok and result.path is not None


def _named(group: Sequence[Result]) -> str:
    first = group[0]
    if len(group) == 1:
        prompt = f" “{cut(first.request.prompt, _PROMPT_CHARACTERS)}”" if first.request else ""
        return f"#{first.index}{prompt}"
    shown = ", ".join(f"#{result.index}" for result in group[:_MOST_NAMED])
    return f"{shown} and {len(group) - _MOST_NAMED:,} more" if len(group) > _MOST_NAMED else shown
