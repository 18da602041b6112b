"""A batch's tally in the output of a notebook's cell, kept up to date while the batch runs."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import attrs

from kling_async._display.progress_counts import ProgressCounts
from kling_async._display.progress_view import BatchPhase, ProgressView

PERIOD = 0.25
"""Seconds between two looks at the tally; one that shows nothing new is not sent."""
_log = logging.getLogger("kling_async")


class Handle(Protocol):
    """A place in the output that can be written anew."""

    def update(self, bundle: dict[str, str], /, *, raw: bool) -> None: ...


Place = Callable[[dict[str, str]], Handle]
"""Puts something into the output and gives its place."""


def running_shell() -> Any:
    """The IPython shell that runs this code; None outside IPython, which is not imported to find out."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def is_notebook() -> bool:
    """Whether this code runs in the kernel of a notebook."""
    return getattr(running_shell(), "kernel", None) is not None


def display_bundle(bundle: dict[str, str]) -> Handle:
    """Put something into the output of the running cell."""
    from IPython.display import display

    handle: Handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    return handle


@contextmanager
def live_cell(
    counts: ProgressCounts, *, is_kept: bool = False, display: Place = display_bundle
) -> Iterator[None]:
    """Show a tally for as long as the block lasts, and how it ended; only inside a running event loop.

    Args:
        counts: It is read anew at each look.
        is_kept: Whether a journal knows all of it.
        display: Where to.
    """
    cell = _Cell(counts, is_kept, display)
    cell.look()
    try:
        yield
    except BaseException:
        cell.end(BatchPhase.STOPPED)
        raise
    cell.end(BatchPhase.STOPPED if counts.queued or counts.running else BatchPhase.DONE)


@attrs.define(eq=False)
class _Cell:
    """Looks at a tally now and then and shows what is new."""

    counts: ProgressCounts
    is_kept: bool
    display: Place
    _loop: asyncio.AbstractEventLoop = attrs.field(init=False, factory=asyncio.get_running_loop)
    _began: float = attrs.field(init=False)
    _handle: Handle | None = attrs.field(init=False, default=None)
    _shown: dict[str, str] = attrs.field(init=False, factory=dict)
    _timer: asyncio.TimerHandle | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._began = self._loop.time()

    def look(self) -> None:
        """Show how things stand, and look again soon."""
        if self._show(BatchPhase.RUNNING):
            self._timer = self._loop.call_later(PERIOD, self.look)

    def end(self, phase: BatchPhase) -> None:
        """Show how it ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._show(phase)

    def _show(self, phase: BatchPhase) -> bool:
        """Whether showing works: a view that cannot be drawn must not hurt the batch."""
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
        """The view as it is now, for front ends that show HTML and for others."""
        now = time.time()
        view = ProgressView(
            counts=self.counts,
            seconds=self._loop.time() - self._began,
            pace=self.counts.jobs_per_second(now=now),
            seconds_left=self.counts.seconds_left(now=now),
            is_kept=self.is_kept,
            phase=phase,
        )
        return {"text/html": str(view.html()), "text/plain": view.text()}
