"""A batch's tally, drawn where a terminal is and kept up to date. Knows nothing but the tally."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kling_async._display.tally import Tally

MOST_COLUMNS = 120
"""Wider drawings are hard to read across."""
_PER_SECOND = 8
_SECONDS_IN_MINUTE = 60
_MINUTES_IN_HOUR = 60


@attrs.define(eq=False)
class Bar:
    """Two lines for a batch under way, and a third when something is in the way."""

    tally: Tally
    _started: float = attrs.field(init=False, factory=time.monotonic)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        tally = self.tally
        head = Table.grid(padding=(0, 1))
        head.width = min(options.max_width, MOST_COLUMNS)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        total = tally.total
        head.add_row(
            ProgressBar(total=total, completed=tally.ended, pulse=total is None),
            f"{tally.ended} of {total}" if total is not None else f"{tally.ended} ended",
            Text(duration(time.monotonic() - self._started), "dim"),
        )
        yield head
        yield counts(tally)
        if tally.note is not None:
            yield Text(tally.note, "yellow", no_wrap=True, overflow="ellipsis")


def counts(tally: Tally) -> Text:
    """The line of counts; zeros are left out."""
    parts = (
        (tally.queued, "queued", "dim"),
        (tally.running, "running", "cyan"),
        (tally.succeeded, "done", "green"),
        (tally.saved, "saved", "green"),
        (tally.failed, "failed", "red"),
    )
    shown = [Text(f"{count} {word}", style) for count, word, style in parts if count]
    return Text(" · ", "dim").join(shown) if shown else Text("starting", "dim")


def duration(seconds: float) -> str:
    """Such as `0:42` or `1:02:03`."""
    minutes, second = divmod(int(seconds), _SECONDS_IN_MINUTE)
    hours, minute = divmod(minutes, _MINUTES_IN_HOUR)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


@contextmanager
def drawn(*parts: RenderableType, console: Console, is_wanted: bool = True) -> Iterator[None]:
    """Draw the parts below each other, again and again, for as long as the block lasts; nothing where no terminal is.

    Args:
        *parts: They are asked for their looks anew at each drawing.
        console: Where to.
        is_wanted: False draws nothing there either.
    """
    if not is_wanted or not is_drawable(console):
        yield
        return
    # Only lines for this console's own stream are put above the drawing: results on stdout must stay there.
    with Live(
        Group(*parts),
        console=console,
        refresh_per_second=_PER_SECOND,
        transient=True,
        redirect_stdout=not console.stderr,
        redirect_stderr=console.stderr,
    ):
        yield


def is_drawable(console: Console) -> bool:
    """Whether lines can be drawn over there; an environment that forces colours into a file makes it no terminal."""
    return console.is_terminal and console.file.isatty() and not console.is_dumb_terminal
