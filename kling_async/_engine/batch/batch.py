"""Many jobs through a bounded window; results as they come."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from os import PathLike
from typing import Any, get_args

import anyio
import anyio.to_thread
import attrs
from anyio.abc import TaskGroup

from kling_async._engine.batch.batch_input import InputReader
from kling_async._engine.batch.ledger import Ledger
from kling_async._engine.batch.result_stream import ResultStream
from kling_async._engine.batch.run_item import Course
from kling_async._engine.download.downloader import check_folder
from kling_async._engine.session import LoopSession
from kling_async._journal.journal import Journal
from kling_async._policy.budget import Budget, Prices
from kling_async._policy.concurrency_limit import ConcurrencyLimit
from kling_async.errors import ConfigurationError, JournalError
from kling_async.events import Notifier
from kling_async.results import Result
from kling_async.types import OnAmbiguous, Requests

_log = logging.getLogger("kling_async")


@attrs.define(eq=False, kw_only=True)
class Batch:
    """One batch under way: takers pull items through the window, and each item takes its course."""

    source: InputReader
    course: Course
    results: ResultStream = attrs.field(init=False)
    _alive: int = attrs.field(init=False, default=0)
    """Items that hold a place of the window: from before their POST until the service has ended them."""
    _open: int = attrs.field(init=False, default=0)
    """Items without a result yet: the alive ones and those being saved."""
    _takers: int = attrs.field(init=False, default=0)
    _waiting: deque[anyio.Event] = attrs.field(init=False, factory=deque)
    _failure: BaseException | None = attrs.field(init=False, default=None)
    _tasks: TaskGroup = attrs.field(init=False)
    _is_done: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    def __attrs_post_init__(self) -> None:
        self.results = ResultStream(self._make_room)
        self.course.on_free = self._free
        self.course.on_result = self._finish
        self.course.alive = lambda: self._alive

    async def run(self) -> None:
        """Everything, until each item that was taken has its result."""
        course = self.course
        try:
            async with anyio.create_task_group() as self._tasks:
                course.tasks = self._tasks
                self._tasks.start_soon(course.watcher.run)
                self._tasks.start_soon(course.books.run)
                self._takers = min(course.engine.submitter.limits.max_concurrent_submits, course.window.limit)
                for _ in range(self._takers):
                    self._tasks.start_soon(self._take)
                await self._is_done.wait()
                self._tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()
        self.results.complete(self._failure)

    async def _close(self) -> None:
        """Let the input clean up, and put the last words of the journal on the disk."""
        try:
            await self.source.close()
        except Exception as error:  # noqa: BLE001 - the caller's own cleanup may raise anything
            self._failure = self._failure or error
        if (lost := await self.course.books.close()) is not None:
            _log.error("%s", lost)
            self._failure = self._failure or lost

    async def _take(self) -> None:
        """Pull items through the window until there are none."""
        with anyio.CancelScope() as scope:
            while await self._enter():
                try:
                    taken = await self.source.take()
                except Exception as error:  # noqa: BLE001 - the caller's iterator may raise anything
                    self._failure = self._failure or error
                    taken = None
                if taken is None:
                    self._alive -= 1
                    break
                self._open += 1
                await self.course.begin(taken, scope)
        self._takers -= 1
        self._make_room()
        self._check_done()

    async def _enter(self) -> bool:
        """Wait for a place in the window, and for the consumer to keep up; False when there is nothing more to take."""
        window = self.course.window
        while not self.source.is_over:
            held = self._open + self.results.waiting
            if self._alive < window.room and held < 2 * window.limit:
                self._alive += 1
                return True
            turn = anyio.Event()
            self._waiting.append(turn)
            await turn.wait()
        return False

    def _make_room(self) -> None:
        """Let one waiting taker look again, or all of them when the input is over."""
        while self._waiting:
            self._waiting.popleft().set()
            if not self.source.is_over:
                return

    def _free(self) -> None:
        """An item gives its place in the window back."""
        self._alive -= 1
        self._make_room()

    def _finish(self, result: Result) -> None:
        self._open -= 1
        self.results.put(result)
        self._make_room()
        self._check_done()

    def _check_done(self) -> None:
        if self._takers == 0 and self._open == 0:
            self._is_done.set()


@attrs.frozen(kw_only=True)
class BatchSettings:
    """How a batch is to be run, as the caller said it.

    Raises:
        ConfigurationError: One of them makes no sense.
    """

    max_concurrency: int = 20
    """How many jobs may be alive at the service."""
    output: str | PathLike[str] | None = None
    """The folder in which videos are saved."""
    journal: str | PathLike[str] | Journal | None = None
    """Where it is written down what is sent, for a later run to go on."""
    max_cost_usd: Any = None
    prices: Prices | None = None
    on_ambiguous: OnAmbiguous = "report"
    retry_failed: bool = False
    skip_invalid: bool = False

    def __attrs_post_init__(self) -> None:
        most = self.max_concurrency
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise ConfigurationError(f"max_concurrency must be a whole number of at least 1, not {most!r}.")
        if self.on_ambiguous not in get_args(OnAmbiguous):
            raise ConfigurationError(f"on_ambiguous must be 'report' or 'resend', not {self.on_ambiguous!r}.")


def open_batch(
    engine: Callable[[], LoopSession],
    requests: Requests,
    *,
    options: Mapping[str, Any],
    settings: BatchSettings,
    notify: Notifier,
) -> AbstractAsyncContextManager[AsyncIterator[Result]]:
    """A batch that runs for as long as its block lasts; what can be checked before is checked at once.

    Args:
        engine: Gives the engine of the event loop in which the block is entered.
        requests: See `InputReader`.
        options: Fill what the requests leave open.
        settings: How it is run.
        notify: Hears of everything.

    Raises:
        InvalidRequestError: See `InputReader`.
        ConfigurationError: A price or the cap makes no sense, or a price is missing under a cap.
    """
    budget = Budget(settings.prices, settings.max_cost_usd)
    check = budget.price if budget.cap is not None else None
    source = InputReader(requests, options, settings.skip_invalid, check=check)

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[Result]]:
        # The journal may lie in the folder.
        folder = await check_folder(settings.output) if settings.output is not None else None
        async with opened_journal(settings.journal) as journal:
            here = engine()
            if journal is not None:
                budget.spent = journal.spent_usd()
            books = Ledger(clock=here.caller.clock, notify=notify, budget=budget, journal=journal)
            course = Course(
                engine=here,
                books=books,
                window=ConcurrencyLimit(settings.max_concurrency),
                notify=notify,
                folder=folder,
                on_ambiguous=settings.on_ambiguous,
                retry_failed=settings.retry_failed,
            )
            async with running(Batch(source=source, course=course)) as results:
                yield results

    return opened()


@asynccontextmanager
async def opened_journal(journal: str | PathLike[str] | Journal | None) -> AsyncIterator[Journal | None]:
    """The journal of a batch: opened and closed here where only its path is given.

    Raises:
        JournalError: It cannot be used, or another batch uses it now.
    """
    if journal is None:
        yield None
    elif isinstance(journal, Journal):
        with journal.exclusive():
            yield journal
    else:
        mine = await anyio.to_thread.run_sync(Journal, journal)
        try:
            with mine.exclusive():
                yield mine
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_close, mine)


def _close(journal: Journal) -> None:
    try:
        journal.close()
    except JournalError as error:  # the batch has told it with its results
        _log.error("%s", error)


@asynccontextmanager
async def running(batch: Batch) -> AsyncIterator[ResultStream]:
    """Run a batch for as long as the block lasts; leaving early stops submitting and leaves the jobs alone.

    What the block raises comes out as it is, not wrapped into a group.
    """
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batch.run)
        try:
            yield batch.results
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - raised again outside the group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
