"""Many items through the concurrency limit; results as they finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from functools import partial
from os import PathLike
from typing import Any

import anyio
import attrs

from kling_async._callbacks import SafeLogger, raise_from_loop
from kling_async._engine.batch.batch_input import InputItem, InputReader, open_input
from kling_async._engine.batch.batch_parts import BatchParts
from kling_async._engine.batch.given_entries import require_entries
from kling_async._engine.batch.result_stream import ResultStream
from kling_async._engine.batch.run_item import run_item
from kling_async._engine.batch.settings import BatchSettings
from kling_async._engine.download.destination import Output
from kling_async._engine.interrupted import describe_batch, warn_interrupted
from kling_async._engine.session import LoopSession
from kling_async._engine.submit.ledger import Ledger, price_unpriced
from kling_async._engine.submit.uploader import Uploader
from kling_async._engine.tasks import first_error, is_cancelled, run_cancellable
from kling_async._engine.threads import open_in_thread
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.location import DatabaseUrl
from kling_async._journal.open_journal import open_journal
from kling_async._policy.budget import Budget
from kling_async.errors import JournalError, KlingError
from kling_async.events import Notifier
from kling_async.results import Result
from kling_async.types import Requests

_log = SafeLogger("kling_async")


class Batch:
    """A running batch: it reads items from the input, at most the concurrency limit in flight, and runs each to its result."""

    def __init__(self, reader: InputReader, parts: BatchParts) -> None:
        self.reader = reader
        self.parts = parts

    async def run(self) -> None:
        """Run every item of the input to its result.

        The caller hears of one failure: that of the journal or of the input at their end, else the one that ended the items early.
        """
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as background:
                background.start_soon(self.parts.ledger.run_commits)
                failure = await run_cancellable(self._run_items())
                background.cancel_scope.cancel()
        except ExceptionGroup as error:  # of an item, which no code foresees: a mistake of ours
            failure = first_error(error)
        finally:
            with anyio.CancelScope(shield=True):
                failure = await self._close() or failure
        if failure is not None:
            self._warn_of(self.parts.results.interrupted, failure)
        self.parts.results.complete(failure)

    async def _run_items(self) -> Exception | None:
        """Start a task for each item, and wait for all of them; the error that ended the input early, if there is one.

        The tasks are asyncio's own: they take a third of the memory of anyio's, and there may be a hundred thousand.
        """
        async with asyncio.TaskGroup() as items:
            try:
                while (item := await self._read_item()) is not None:
                    items.create_task(run_item(self.parts, item), name="item")
            except BaseException as error:
                if is_cancelled():
                    raise
                return _as_failure(error)
        return None

    async def _read_item(self) -> InputItem | None:
        """The next item, which holds a slot of the concurrency limit; None at the end of the input.

        The slot is taken after the item is read: the input may wait for the result of an item that waits for a slot.
        """
        slots = self.parts.slots
        await self.parts.results.read_ahead.acquire()
        await slots.wait_free()
        item = await self.reader.next_item()
        if item is not None:
            await slots.take()
        return item

    def warn_if_interrupted(self, error: BaseException | None) -> None:
        """Say which paid jobs the caller has heard nothing of, if the batch ended before all results were taken."""
        self._warn_of(self.parts.results.rest, error)

    def _warn_of(self, results: Sequence[Result], error: BaseException | None) -> None:
        """Say which paid jobs are among these results."""
        journal = self.parts.ledger.journal
        next_step = (
            None
            if journal is None
            else f"make the same call with journal={journal.name!r} again to get the videos"
        )
        if (text := describe_batch(results, next_step=next_step)) is not None:
            warn_interrupted(text, error)

    def mark_failure_known(self) -> None:
        """Let the end of the journal not log the failure again that the caller has got."""
        journal = self.parts.ledger.journal
        if self.parts.results.has_raised and journal is not None:
            journal.is_failure_known = True

    async def _close(self) -> Exception | None:
        """Write the rest of the journal and let the input clean up; the first error of both."""
        failure: Exception | None = await self.parts.ledger.close()
        try:
            await self.reader.close()
        except BaseException as error:  # noqa: BLE001 - the caller's own cleanup may raise anything
            failure = failure or _as_failure(error)
        return failure


def _as_failure(error: BaseException) -> Exception:
    """The failure of a batch whose input raises an error.

    An error such as a `CancelledError` of a generator would end our own tasks instead of the call.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise_from_loop(error)
    if isinstance(error, Exception):
        return error
    failure = KlingError(f"The iterable of requests raised {type(error).__name__}.")
    failure.__cause__ = error
    return failure


@attrs.frozen(eq=False)
class CheckedBatch:
    """A batch before it runs; its options make sense."""

    reader: InputReader
    budget: Budget
    settings: BatchSettings
    notify: Notifier


def check_batch(
    requests: Requests, options: Mapping[str, Any], settings: BatchSettings, notify: Notifier
) -> CheckedBatch:
    """A batch to run; the items are checked by `open_parts`.

    Args:
        requests: See `InputReader`.
        options: Fill what the requests leave open.
        settings: How it is run.
        notify: Hears of everything.

    Raises:
        InvalidRequestError: See `InputReader`.
        ConfigurationError: A price or the cap makes no sense.
    """
    budget = Budget(settings.prices, settings.max_cost_usd)
    reader = open_input(requests, options, settings, budget, has_journal=settings.journal is not None)
    return CheckedBatch(reader, budget, settings, notify)


@asynccontextmanager
async def open_parts(session: LoopSession, batch: CheckedBatch) -> AsyncIterator[BatchParts]:
    """The parts of a batch; opens the output and the journal once the input is checked.

    Raises:
        InvalidRequestError: An item is invalid.
        ConfigurationError: Nothing can be saved to the output; or an item is an entry that the journal does not have.
        JournalError: See `use_journal`.
    """
    settings = batch.settings
    await _check_items(batch)  # before a folder or a journal is made
    # First the folder: the journal can be a file in it.
    output = None
    if settings.output is not None:
        output = await session.downloader.outputs.open(
            settings.output, ascii_names=settings.ascii_names, is_streamed=settings.direct_upload
        )
    async with use_journal(settings.journal) as journal:
        yield await make_parts(session, batch, journal=journal, output=output)


async def make_parts(
    session: LoopSession, batch: CheckedBatch, *, journal: WriteAheadJournal | None, output: Output | None
) -> BatchParts:
    """The parts of a batch over its open journal and output."""
    if journal is not None:
        await count_earlier(batch.budget, journal)
    emit = session.api.emitter(batch.notify)
    return BatchParts(
        session=session,
        settings=batch.settings,
        ledger=Ledger(emit=emit, budget=batch.budget, journal=journal),
        emit=emit,
        uploader=Uploader(session.api, emit),
        output=output,
    )


async def _check_items(batch: CheckedBatch) -> None:
    entries, journal = await batch.reader.check(), batch.settings.journal
    if journal is not None:
        await require_entries(entries, journal)


async def count_earlier(budget: Budget, journal: WriteAheadJournal) -> None:
    """Count what earlier runs have spent; under a cap, what had no price then counts at the price of this batch."""
    unrecorded = Decimal(0) if budget.cap is None else await price_unpriced(budget, journal)
    budget.count_earlier(journal.spent_usd_at_start, unrecorded=unrecorded)


@asynccontextmanager
async def use_journal(
    location: str | PathLike[str] | DatabaseUrl | None,
) -> AsyncIterator[WriteAheadJournal | None]:
    """The open journal of a batch, which is closed at the end of the block; None without one.

    Raises:
        JournalError: It cannot be used, or another batch uses it now.
    """
    if location is None:
        yield None
    else:
        async with open_in_thread(partial(open_journal, location), _close) as journal:
            yield journal


def _close(journal: WriteAheadJournal) -> None:
    try:
        journal.close()
    except JournalError as error:
        if not journal.is_failure_known:
            _log.error("%s", error)


@asynccontextmanager
async def run_batch(
    reader: InputReader, parts: AbstractAsyncContextManager[BatchParts]
) -> AsyncIterator[ResultStream]:
    """Run a batch for as long as the block lasts; leaving early stops submitting and leaves the jobs alone.

    What the block raises comes out as it is, not wrapped into a group.
    """
    failure: BaseException | None = None
    async with parts as opened:
        batch = Batch(reader, opened)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(batch.run)
                try:
                    yield opened.results
                except anyio.get_cancelled_exc_class():
                    raise
                except BaseException as error:  # noqa: BLE001 - raised again outside the group
                    failure = error
                tasks.cancel_scope.cancel()
        except asyncio.CancelledError as error:
            batch.warn_if_interrupted(error)
            raise
        finally:
            opened.results.close()
        batch.warn_if_interrupted(failure)
        batch.mark_failure_known()
    if failure is not None:
        raise failure
