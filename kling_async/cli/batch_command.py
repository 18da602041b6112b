"""A command that runs a batch: shows progress, prints each result, and prints a summary at the end."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from operator import attrgetter

import attrs
from rich.console import Console

from kling_async.cli.exit_status import FAILED
from kling_async.cli.journals import refuse_unusable_journal
from kling_async.cli.output import (
    choose_progress,
    one_line,
    print_error,
    print_json,
    print_text,
    stderr,
    stdout,
)
from kling_async.cli.run_config import RunConfig
from kling_async.cli.summary import print_interrupted, print_summary
from kling_async.client import KlingClient
from kling_async.errors import ConfigurationError, JournalError, KlingError
from kling_async.events import Event
from kling_async.history import HistoryRecorder
from kling_async.journal import Entry
from kling_async.progress import ProgressCounts, show_progress
from kling_async.report import check_target, write_report
from kling_async.requests import RequestLike
from kling_async.results import Result
from kling_async.types import ObjectUrl

_STOPPING = "stopping; Ctrl-C again leaves at once (waiting for the answers to what was just sent)"
"""The important words come first: a narrow terminal cuts the end."""


@attrs.define(eq=False, kw_only=True)
class BatchCommand:
    """Runs one batch and prints it; pass it as `on_event`.

    Raises:
        ConfigurationError: The report cannot be written, or videos are to be uploaded to a folder.
    """

    config: RunConfig
    total: int
    is_json: bool = False
    is_quiet: bool = False
    problem_at: Callable[[int], KlingError | None] = lambda _: None
    """Why the item at an index cannot be read as a request, in the words of the prompts' file."""
    _counts: ProgressCounts = attrs.field(init=False, factory=ProgressCounts)
    _history: HistoryRecorder = attrs.field(init=False, factory=HistoryRecorder)
    _results: list[Result] = attrs.field(init=False, factory=list)
    """In the order in which the items ended."""
    _journal_error: JournalError | None = attrs.field(init=False, default=None)
    """Why the journal could not be written until the end."""

    def __attrs_post_init__(self) -> None:
        if self.config.output.direct_upload and not isinstance(self.config.folder, ObjectUrl):
            raise ConfigurationError(
                "--direct-upload needs the URL of an object store: add --out s3://bucket/prefix."
            )
        report = self.config.output.report
        if report is not None:
            check_target(report)

    def __call__(self, event: Event) -> None:
        """Count one event."""
        self._counts(event)
        if self.config.output.report is not None:
            self._history(event)

    def print_note(self, sentence: str) -> None:
        """Print a sentence on stderr, above the progress bar; nothing if it is empty or the command is quiet."""
        if sentence and not self.is_quiet:
            # The bar takes over `sys.stderr`: a console of our own would write across it.
            sys.stderr.write(f"{one_line(sentence)}\n")

    @asynccontextmanager
    async def open_batch(
        self,
        client: KlingClient,
        items: Sequence[RequestLike | Entry],
        *,
        skip_invalid: bool = False,
        saves: bool = True,
    ) -> AsyncIterator[AsyncIterator[Result]]:
        """The results of the command's batch.

        Args:
            client: Sends its events to this command.
            items: All items of the batch.
            skip_invalid: Leave out items that are no valid request.
            saves: Save the videos in the command's folder.

        Raises:
            ConfigurationError: The journal cannot be used; nothing was sent.
        """
        config = self.config
        batch = client.stream_many(
            items,
            max_concurrency=config.max_concurrency,
            output=config.folder if saves else None,
            ascii_names=config.output.ascii_names,
            direct_upload=config.output.direct_upload and saves,
            journal=config.journal,
            max_cost_usd=config.budget.cap,
            prices=config.prices,
            on_ambiguous=config.budget.on_ambiguous,
            retry_failed=config.budget.retry_failed,
            skip_invalid=skip_invalid,
            allow_suspicious=True,  # the command has refused what looks like a mistake
            progress=False,
        )
        async with AsyncExitStack() as stack:
            with refuse_unusable_journal():
                stream = await stack.enter_async_context(batch)
            yield stream

    async def run(self, batch: AbstractAsyncContextManager[AsyncIterator[Result]]) -> int:
        """The exit status of the batch, after its summary is printed.

        Args:
            batch: Opens to the results as they finish.
        """
        started = time.monotonic()
        if self.config.output.sign_report is not None and not isinstance(self.config.folder, ObjectUrl):
            self.print_note("--sign-report has no effect: the videos are on this machine.")
        progress = choose_progress(is_json=self.is_json, is_quiet=self.is_quiet)
        try:
            with (
                show_progress(total=self.total, saves=True, progress=progress) as self._counts,
                without_python_advice(),
            ):
                async with batch as stream:
                    await self._collect(stream)
        except (asyncio.CancelledError, OSError):
            is_forced = _is_forced_exit()
            print_interrupted(self._counts, self.config, is_forced=is_forced)
            if self._results and not is_forced:
                self._write_report(None if self.is_quiet else stderr())
            raise
        return self._print_end(seconds=time.monotonic() - started)

    async def _collect(self, stream: AsyncIterator[Result]) -> None:
        """Keep all results, and print each with --json as soon as its item ends."""
        try:
            async for result in stream:
                problem = self.problem_at(result.index)
                self._results.append(attrs.evolve(result, error=problem) if problem else result)
                if self.is_json:
                    print_json(self._results[-1].to_dict())
        except asyncio.CancelledError:
            self._counts.note = _STOPPING
            raise
        except JournalError as error:  # comes after the last result
            self._journal_error = error

    def _ordered_results(self) -> list[Result]:
        return sorted(self._results, key=attrgetter("index"))

    def _print_end(self, *, seconds: float) -> int:
        console = None if self.is_quiet else stderr() if self.is_json else stdout()
        status = print_summary(
            self._ordered_results(),
            self._counts,
            self.config,
            seconds=seconds,
            console=console,
            journal_error=self._journal_error,
        )
        return status if self._write_report(console) else FAILED

    def _write_report(self, console: Console | None) -> bool:
        """Write the report, if the command has one; False if that failed, which is printed."""
        report = self.config.output.report
        if report is None:
            return True
        results = self._ordered_results()
        try:
            page = write_report(
                results,
                report,
                history=self._history.build(),
                missing=self.total - len(results),
                signed_for=self.config.output.sign_report,
            )
        except KlingError as error:
            print_error(error.message)
            return False
        if console is not None:
            print_text(f"Report: {page}", console)
        return True


@contextmanager
def without_python_advice() -> Iterator[None]:
    """A block in which the client does not log what an interruption leaves: the command prints that in its own words."""
    log = logging.getLogger("kling_async.interrupted")
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


def _is_forced_exit() -> bool:
    """Whether a second Ctrl-C ended the event loop before the replies that the first one waits for had come.

    Source: `asyncio.Runner` handles SIGINT for as long as its loop runs, and cancels what is left after that.
    """
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
