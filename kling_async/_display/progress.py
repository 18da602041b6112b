"""Whether a batch's progress is drawn, and where."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

from kling_async._display.cell import is_notebook, live_cell
from kling_async._display.progress_counts import ProgressCounts
from kling_async.errors import ConfigurationError
from kling_async.events import Listener
from kling_async.types import Progress


def make_display(
    progress: Progress, *, total: int | None, saves: bool, is_kept: bool = False
) -> tuple[Listener | None, AbstractContextManager[None]]:
    """A listener that counts, and a block that draws its counts; None and an empty block if nothing is drawn.

    Args:
        progress: See `draw_counts`.
        total: How many items there are; None if that is not known.
        saves: Whether videos are saved.
        is_kept: Whether a journal is written.

    Raises:
        ConfigurationError: See `draw_counts`.
    """
    counts = ProgressCounts(total=total, saves=saves)
    drawing = draw_counts(counts, progress, is_kept=is_kept)
    return (None, nullcontext()) if drawing is None else (counts, drawing)


def draw_counts(
    counts: ProgressCounts, progress: Progress, *, is_kept: bool = False
) -> AbstractContextManager[None] | None:
    """A block that draws counts below a notebook's cell, elsewhere on stderr; None if nothing is drawn.

    Args:
        counts: The drawing reads them again and again.
        progress: The caller's choice; a stream that is no terminal gets no drawing even if this is True.
        is_kept: Whether a journal is written.

    Raises:
        ConfigurationError: `progress` is no such value, or is True outside a notebook and rich is not installed.
    """
    if progress not in {True, False, "auto"}:
        raise ConfigurationError(f"progress must be True, False or 'auto', not {progress!r}.")
    if progress is not False and is_notebook():
        return live_cell(counts, is_kept=is_kept)
    has_rich = find_spec("rich") is not None
    if progress is True and not has_rich:
        raise ConfigurationError('progress=True needs rich: pip install "kling_async[cli]", or leave it out.')
    if progress is False or not has_rich:
        return None
    from rich.console import Console

    from kling_async._display.terminal import Bar, is_drawable, live_bar

    console = Console(stderr=True, highlight=False)
    return live_bar(Bar(counts), console=console) if is_drawable(console) else None
