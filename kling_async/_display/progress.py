"""The progress display of a batch: in a notebook, on a terminal, or none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from types import TracebackType

import attrs

from kling_async._callbacks import SafeLogger
from kling_async._display.cell import is_notebook, live_cell
from kling_async._display.progress_counts import ProgressCounts
from kling_async._policy.validators import check_choice
from kling_async.errors import ConfigurationError
from kling_async.events import Listener
from kling_async.lines import error_text
from kling_async.types import Progress

_log = SafeLogger("kling_async")


def make_display(
    progress: Progress, *, total: int | None, saves: bool, has_journal: bool = False
) -> tuple[Listener | None, AbstractContextManager[None]]:
    """A listener that counts, and a context manager that shows the counts while its block runs.

    Without a display, the listener is None and the context manager does nothing.

    Args:
        progress: See `draw_counts`.
        total: How many items there are; None if that is not known.
        saves: Whether the batch saves its videos.
        has_journal: Whether the batch has a journal.

    Raises:
        ConfigurationError: See `draw_counts`.
    """
    counts = ProgressCounts(total=total, saves=saves)
    drawing = draw_counts(counts, progress, has_journal=has_journal)
    return (None, nullcontext()) if drawing is None else (counts, drawing)


def draw_counts(
    counts: ProgressCounts, progress: Progress, *, has_journal: bool = False
) -> AbstractContextManager[None] | None:
    """A context manager that shows the counts below a notebook's cell, elsewhere on stderr; None without a display.

    Args:
        counts: The display reads them at each update.
        progress: The caller's option. A stream that is no terminal gets no display, even with True.
        has_journal: Whether the batch has a journal.

    Raises:
        ConfigurationError: `progress` is no such value, or is True outside a notebook and rich is not installed.
    """
    check_choice("progress", progress, (True, False, "auto"))
    if progress is not False and is_notebook():
        return live_cell(counts, has_journal=has_journal)
    if progress == "auto" and not (sys.stderr and sys.stderr.isatty()):
        return None  # before the import of rich, which takes longer than that of the client
    has_rich = find_spec("rich") is not None
    if progress is True and not has_rich:
        raise ConfigurationError(
            'progress=True needs rich: pip install ".[cli]" in a checkout, or leave it out.'
        )
    if progress is False or not has_rich:
        return None
    from rich.console import Console

    from kling_async._display.terminal import Bar, is_drawable, live_bar

    console = Console(stderr=True, highlight=False)
    return _SafeDrawing(live_bar(Bar(counts), console=console)) if is_drawable(console) else None


@attrs.define(eq=False)
class _SafeDrawing(AbstractContextManager[None]):
    """A drawing whose own errors are logged: a terminal that has gone away must not lose the results of a batch."""

    drawing: AbstractContextManager[None]
    _has_failed: bool = attrs.field(init=False, default=False)

    def __enter__(self) -> None:
        with self._log_errors():
            self.drawing.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._has_failed:
            with self._log_errors():
                self.drawing.__exit__(kind, error, trace)

    @contextmanager
    def _log_errors(self) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as failure:  # noqa: BLE001 - any stream; rich ends the process for a broken pipe
            self._has_failed = True
            _log.warning("the progress cannot be drawn, and the work goes on: %s", error_text(failure))
