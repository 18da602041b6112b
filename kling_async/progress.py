"""A progress display for a loop of one's own, such as several batches or single calls under one bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from kling_async._calls import public_call
from kling_async._display.progress import draw_counts
from kling_async._display.progress_counts import ProgressCounts
from kling_async.types import Progress

__all__ = ["ProgressCounts", "show_progress"]


@public_call
def show_progress(
    *, total: int | None = None, saves: bool = False, progress: Progress = "auto"
) -> AbstractContextManager[ProgressCounts]:
    """Counts to pass as `on_event`, drawn below a notebook's cell or on stderr for as long as the block lasts.

    `generate_many` and `stream_many` draw their own progress: give them `progress=False` inside the block.

    Args:
        total: How many items there are; None if that is not known.
        saves: Whether the videos are saved.
        progress: As for `generate_many`; the counts count also if nothing is drawn.

    Raises:
        ConfigurationError: `progress` is no such value, or is True outside a notebook and rich is not installed.
    """
    counts = ProgressCounts(total=total, saves=saves)
    return _show(counts, draw_counts(counts, progress) or nullcontext())


@contextmanager
def _show(counts: ProgressCounts, drawing: AbstractContextManager[None]) -> Iterator[ProgressCounts]:
    with drawing:
        yield counts
