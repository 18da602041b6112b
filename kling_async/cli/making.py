"""One batch made by a command: drawn while it runs, told result by result, summed up at its end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from operator import attrgetter
from pathlib import Path

import attrs
from rich.console import Console

from kling_async._display.forecast import Forecast
from kling_async._display.history import History
from kling_async._display.tally import Tally
from kling_async._display.terminal import Bar, drawn
from kling_async._engine.source import Item
from kling_async._journal.entry import Entry
from kling_async._journal.journal import Journal
from kling_async.cli.errand import Errand
from kling_async.cli.records import result_record
from kling_async.cli.screen import complain, is_free_for_drawing, say, stderr, stdout, tell
from kling_async.cli.summary import FAILED, say_interrupted, summarise
from kling_async.client import KlingClient
from kling_async.errors import JournalError, KlingError
from kling_async.events import Event, Notifier
from kling_async.models import BatchResult, Result
from kling_async.report import check_target

_STOPPING = "stopping: waiting for the answers to what was just sent; Ctrl-C again leaves at once"


@attrs.define(eq=False, kw_only=True)
class Making:
    """A batch and those who want to hear of it; pass it as `on_event`.

    Raises:
        ConfigurationError: The report cannot be written.
    """

    errand: Errand
    total: int
    report: Path | None = None
    is_json: bool = False
    is_quiet: bool = False
    problem_at: Callable[[int], KlingError | None] = lambda _: None
    """Why the item at an index cannot be read as a request, in words for whoever wrote it."""
    _console: Console = attrs.field(init=False, factory=stderr)
    """What is drawn on; nothing else may write there meanwhile."""
    _tally: Tally = attrs.field(init=False)
    _forecast: Forecast = attrs.field(init=False, factory=Forecast)
    _history: History = attrs.field(init=False, factory=History)
    _tell: Notifier = attrs.field(init=False)
    _lost: JournalError | None = attrs.field(init=False, default=None)
    """Why the journal could not be written any more."""

    def __attrs_post_init__(self) -> None:
        if self.report is not None:
            check_target(self.report)
        self._tally = Tally(total=self.total, saves=True)
        self._tell = Notifier(self._tally, self._forecast, None if self.report is None else self._history)

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        self._tell(event)

    def remark(self, sentence: str) -> None:
        """Say something beforehand, where that is wanted."""
        if sentence and not self.is_quiet:
            say(sentence, self._console)

    def batch(
        self,
        client: KlingClient,
        items: Sequence[Item | Entry],
        journal: Journal | None,
        *,
        is_skipping: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[Result]]:
        """The batch of the errand.

        Args:
            client: Tells its events to this.
            items: All of them.
            journal: The errand's, open; None where it has none.
            is_skipping: Leave out what is no valid request.
        """
        errand = self.errand
        return client.batch(
            items,
            max_concurrency=errand.at_once,
            output=errand.folder,
            journal=journal,
            max_cost_usd=errand.terms.cap,
            prices=errand.prices,
            on_ambiguous=errand.terms.on_ambiguous,
            retry_failed=errand.terms.retry_failed,
            skip_invalid=is_skipping,
            progress=False,
        )

    async def run(self, batch: AbstractAsyncContextManager[AsyncIterator[Result]]) -> int:
        """The exit status of the batch, once everything about it is said.

        Args:
            batch: Gives the results as they come.
        """
        started = time.monotonic()
        is_wanted = not self.is_quiet and is_free_for_drawing(is_json=self.is_json)
        try:
            with drawn(Bar(self._tally, self._forecast), console=self._console, is_wanted=is_wanted):
                async with batch as stream:
                    results = await self._collected(stream)
        except (asyncio.CancelledError, OSError):
            say_interrupted(self._tally, self.errand, is_hasty=_is_loop_over())
            raise
        return self._sum_up(results, seconds=time.monotonic() - started)

    async def _collected(self, stream: AsyncIterator[Result]) -> list[Result]:
        """All results, each told as it comes."""
        results: list[Result] = []
        try:
            async for result in stream:
                problem = self.problem_at(result.index)
                results.append(attrs.evolve(result, error=problem) if problem else result)
                if self.is_json:
                    tell(result_record(results[-1]))
        except asyncio.CancelledError:
            self._tally.note = _STOPPING
            raise
        except JournalError as error:  # comes after the last result
            self._lost = error
        return sorted(results, key=attrgetter("index"))

    def _sum_up(self, results: list[Result], *, seconds: float) -> int:
        console = None if self.is_quiet else stderr() if self.is_json else stdout()
        if self._lost is not None:
            complain(self._lost.message)
        status = summarise(results, self._tally, self.errand, seconds=seconds, console=console)
        if self.report is not None:
            page = BatchResult(tuple(results), history=self._history).write_report(self.report)
            if console is not None:
                say(f"Report: {page}", console)
        return status if self._lost is None else FAILED


def _is_loop_over() -> bool:
    """Whether a second Ctrl-C cut short what the first one still waited for: only that ends the event loop at once.

    Source: `asyncio.Runner` handles SIGINT for as long as its loop runs, and cancels what is left after that.
    """
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
