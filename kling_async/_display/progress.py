"""Whether a batch's progress is drawn, and where."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

from kling_async._display.cell import is_notebook, live_cell
from kling_async._display.eta import EtaEstimator
from kling_async._display.progress_counts import ProgressCounts
from kling_async.errors import ConfigurationError
from kling_async.events import Listener, Notifier
from kling_async.types import Progress


def make_display(
    wish: Progress, *, total: int | None, saves: bool, is_kept: bool = False
) -> tuple[Listener | None, AbstractContextManager[None]]:
    """A listener that counts, and a block that draws its counts; None and a block that draws nothing.

    In a notebook they are drawn below the cell, elsewhere on stderr.

    Args:
        wish: What the caller asked for; a stream that is no terminal gets no drawing even so.
        total: How many items there are; None where nobody knows.
        saves: Whether videos are saved.
        is_kept: Whether a journal is written.

    Raises:
        ConfigurationError: The wish is no such word, or drawing is asked for outside a notebook and rich is not
            installed.
    """
    if wish not in {True, False, "auto"}:
        raise ConfigurationError(f"progress must be True, False or 'auto', not {wish!r}.")
    if wish is not False and is_notebook():
        counts, eta = ProgressCounts(total=total, saves=saves), EtaEstimator()
        return Notifier(counts, eta), live_cell(counts, eta, is_kept=is_kept)
    is_possible = find_spec("rich") is not None
    if wish is True and not is_possible:
        raise ConfigurationError('progress=True needs rich: pip install "kling_async[cli]", or leave it out.')
    if wish is False or not is_possible:
        return None, nullcontext()
    from rich.console import Console

    from kling_async._display.terminal import Bar, is_drawable, live_bar

    console = Console(stderr=True, highlight=False)
    if not is_drawable(console):
        return None, nullcontext()
    counts, eta = ProgressCounts(total=total, saves=saves), EtaEstimator()
    return Notifier(counts, eta), live_bar(Bar(counts, eta), console=console)
