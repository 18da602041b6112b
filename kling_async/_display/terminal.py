"""The progress of a batch on a terminal, updated while the batch runs."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

import attrs
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kling_async._display.page import size_text
from kling_async._display.progress_counts import ProgressCounts
from kling_async.lines import clock_text, money_text

MAX_COLUMNS = 120
"""The widest display; a wider one is hard to read."""
_PER_SECOND = 8
_MINUTE = 60.0
_HOUR = 3600.0
_SOON = 10.0
_MIN_RATE = 1000.0
"""Bytes per second; a lower rate is not shown."""
_BETWEEN = Text(" · ", "dim")
_GAP = 3
_ECHO = 2
"""Columns left free at the end of a line: a terminal writes `^C` there, and would break the line of a full one."""


@attrs.define(eq=False)
class Bar:
    """Two lines about a running batch, a third on a narrow terminal, and one more when there is trouble."""

    counts: ProgressCounts
    _started: float = attrs.field(init=False, factory=time.monotonic)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(min(options.max_width - _ECHO, MAX_COLUMNS), 1)
        yield from console.render(Group(*self._lines(width)), options.update(width=width))

    def _lines(self, width: int) -> Iterator[RenderableType]:
        counts = self.counts
        yield self._head(width)
        first, second = counts_text(counts), traffic_text(counts, now=time.time())
        if first.cell_len + _GAP + second.cell_len <= width:
            second.align("right", width - first.cell_len)
            yield Text.assemble(first, second)
        else:
            yield first
            yield second
        if counts.note is not None:
            yield Text(counts.note, "yellow", no_wrap=True, overflow="ellipsis")

    def _head(self, width: int) -> Table:
        """The bar, the number of ended items, the time so far, and the time left."""
        counts, total = self.counts, self.counts.total
        head = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        head.width = width
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        head.add_column(justify="right", no_wrap=True)
        head.add_row(
            ProgressBar(total=total, completed=counts.ended, pulse=total is None),
            f"{counts.ended:,} of {total:,}" if total is not None else f"{counts.ended:,} ended",
            Text(" ".join(filter(None, (clock_text(time.monotonic() - self._started), self._left()))), "dim"),
        )
        return head

    def _left(self) -> str:
        counts = self.counts
        if counts.total is None or counts.ended >= counts.total:
            return ""
        return left_text(counts.seconds_left(now=time.time()))


def counts_text(counts: ProgressCounts) -> Text:
    """The line of counts without zeros; 0 saved is shown if videos are made and not saved."""
    parts = (
        (counts.queued, "queued", "dim"),
        (counts.running, "running", "cyan"),
        (counts.succeeded, "done", "green"),
        (counts.saved, "saved", "green"),
        (counts.failed, "failed", "red"),
        (counts.not_submitted, "not submitted", "dim"),
    )
    kept = "saved" if counts.unsaved else None
    shown = [Text(f"{count:,} {word}", style) for count, word, style in parts if count or word == kept]
    return _BETWEEN.join(shown) if shown else Text("starting", "dim")


def traffic_text(counts: ProgressCounts, *, now: float) -> Text:
    """The downloaded bytes, their rate, and the cost; empty before the first of them."""
    shown = []
    if counts.saved_bytes:
        per_second = counts.bytes_per_second(now=now)
        rate = f" at {size_text(per_second)}/s" if per_second >= _MIN_RATE else ""
        shown.append(Text(f"{size_text(counts.saved_bytes)}{rate}", "dim"))
    if counts.spent_usd is not None:
        shown.append(Text(money_text(counts.spent_usd), "dim"))
    return _BETWEEN.join(shown)


def left_text(seconds: float | None) -> str:
    """Such as `(4 min left)`: no finer than the estimate is; empty before there is an estimate."""
    if seconds is None:
        return ""
    if seconds < _MINUTE:
        return f"({max(math.ceil(seconds / _SOON), 1) * _SOON:.0f} s left)"
    if seconds < _HOUR:
        return f"({seconds / _MINUTE:.0f} min left)"
    return f"({seconds / _HOUR:,.1f} h left)"


@contextmanager
def live_bar(*parts: RenderableType, console: Console) -> Iterator[None]:
    """Draw the parts below each other and redraw them while the block runs; draw nothing if there is no terminal.

    Lines that are printed or logged during the block appear above the parts.

    Args:
        *parts: What to draw; each redraw renders them again.
        console: The terminal.
    """
    if not is_drawable(console):
        yield
        return
    former = sys.stderr
    # Output to a file or a pipe must go there; output to the terminal would break the lines of the display.
    live = Live(
        Group(*parts),
        console=console,
        refresh_per_second=_PER_SECOND,
        transient=True,
        redirect_stdout=not console.stderr or sys.stdout.isatty(),
        redirect_stderr=console.stderr,
    )
    with live, _redirect_logs(sys.stderr, instead_of=former):
        yield


@contextmanager
def _redirect_logs(stream: TextIO, *, instead_of: TextIO) -> Iterator[None]:
    """Let log handlers that write to one stream write to another; a handler keeps the stream that it was made with."""
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    handlers = {handler for logger in loggers for handler in getattr(logger, "handlers", ())}
    with ExitStack() as undo:
        for handler in handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is instead_of:
                handler.setStream(stream)
                undo.callback(handler.setStream, instead_of)
        yield


def is_drawable(console: Console) -> bool:
    """Whether lines on this console can be redrawn. An environment that forces colours into a file makes no terminal.

    A second display at the same time is not possible: the two would overwrite each other.
    """
    has_display = isinstance(sys.stderr, FileProxy) or isinstance(sys.stdout, FileProxy)
    return console.is_terminal and console.file.isatty() and not console.is_dumb_terminal and not has_display
