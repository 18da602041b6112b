"""The progress of a batch below a notebook's cell, updated while the batch runs."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import attrs

from kling_async._callbacks import SafeLogger
from kling_async._display.progress_counts import ProgressCounts
from kling_async._display.progress_view import BatchPhase, ProgressView

PERIOD = 0.25
"""Seconds between two updates; an update that changes nothing is not sent."""
_log = SafeLogger("kling_async")


class Handle(Protocol):
    """An output of a cell that can be replaced."""

    def update(self, bundle: dict[str, str], /, *, raw: bool) -> None: ...


Place = Callable[[dict[str, str]], Handle]
"""Adds an output to the running cell and returns its handle."""


def running_shell() -> Any:
    """The IPython shell that runs this code; None outside IPython, which is not imported to find out."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def is_notebook() -> bool:
    """Whether this code runs in the kernel of a notebook."""
    return getattr(running_shell(), "kernel", None) is not None


def display_bundle(bundle: dict[str, str]) -> Handle:
    """Add an output, in several formats, to the running cell."""
    from IPython.display import display

    handle: Handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    return handle


@contextmanager
def live_cell(
    counts: ProgressCounts, *, has_journal: bool = False, display: Place = display_bundle
) -> Iterator[None]:
    """Show the counts while the block runs, and at its end the result; only inside a running event loop.

    Args:
        counts: Each update reads them.
        has_journal: Whether the batch has a journal, from which the same call continues.
        display: Adds the output.
    """
    cell = _Cell(counts, has_journal, display)
    cell.refresh()
    try:
        yield
    except BaseException:
        cell.end(BatchPhase.STOPPED)
        raise
    cell.end(BatchPhase.STOPPED if counts.queued or counts.running else BatchPhase.DONE)


@attrs.define(eq=False)
class _Cell:
    """An output of a cell that follows the counts of a batch."""

    counts: ProgressCounts
    has_journal: bool
    display: Place
    _loop: asyncio.AbstractEventLoop = attrs.field(init=False, factory=asyncio.get_running_loop)
    _began: float = attrs.field(init=False)
    _handle: Handle | None = attrs.field(init=False, default=None)
    _shown: dict[str, str] = attrs.field(init=False, factory=dict)
    _timer: asyncio.TimerHandle | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._began = self._loop.time()

    def refresh(self) -> None:
        """Show the present counts, and call this again after `PERIOD`."""
        if self._show(BatchPhase.RUNNING):
            self._timer = self._loop.call_later(PERIOD, self.refresh)

    def end(self, phase: BatchPhase) -> None:
        """Show the end, and stop updating."""
        if self._timer is not None:
            self._timer.cancel()
            self._show(phase)

    def _show(self, phase: BatchPhase) -> bool:
        """Show the view; False if that fails, which must not hurt the batch."""
        bundle = self._bundle(phase)
        if bundle == self._shown:
            return True
        try:
            if self._handle is None:
                self._handle = self.display(bundle)
            else:
                self._handle.update(bundle, raw=True)
        except Exception:  # noqa: BLE001 - a front end that went away, or a display hook of the user's own
            _log.exception("the view of a batch cannot be shown; the batch goes on")
            self._timer = None
            return False
        self._shown = bundle
        return True

    def _bundle(self, phase: BatchPhase) -> dict[str, str]:
        """The present view, for front ends that show HTML and for others."""
        now = time.time()
        view = ProgressView(
            counts=self.counts,
            seconds=self._loop.time() - self._began,
            pace=self.counts.jobs_per_second(now=now),
            seconds_left=self.counts.seconds_left(now=now),
            has_journal=self.has_journal,
            phase=phase,
        )
        return {"text/html": str(view.html()), "text/plain": view.text()}
