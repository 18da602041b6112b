"""A process that shares its journal with others: it can stand still, and be cut off from the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import anyio
import attrs

from kling_async import JournalError
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.sharing import Sharing

from .gate import GATE, Gate, outside
from .process import Killed, Process
from .shared_database import LOST_AFTER, SharedDatabase
from .shared_store import SharedMemoryStore, UnreachableError

_PING_INTERVAL = LOST_AFTER / 8
_ANSWER_DELAY = 0.02
_NOTICE_DELAY = 0.2
_RETRY_DELAY = 0.25
_MAX_OUTAGE = 60.0
"""Seconds for which a process waits for the server."""


@attrs.define(eq=False, kw_only=True)
class SharedProcess(Process):
    """A process over a shared journal.

    All that it does passes its gate: while that is closed, the process stands still, and the world goes on. What it has
    asked the server or the service is answered meanwhile.
    """

    database: SharedDatabase
    gate: Gate = attrs.field(factory=Gate)
    _store: SharedMemoryStore | None = attrs.field(init=False, default=None)
    _keeper: asyncio.Task[None] | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._context = copy_context()
        self._context.run(GATE.set, self.gate)

    async def execute(self) -> None:
        for pause in self.run.pauses:
            if not pause.point:
                self._call_later(pause.at, self.stop, pause.seconds)
        for begin, seconds in self.run.cuts:
            self._call_later(begin, self._cut_off, seconds)
        await super().execute()

    @staticmethod
    def _call_later(delay: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function, also while the process stands still."""
        asyncio.get_running_loop().call_later(delay, function, *arguments, context=outside())

    def kill(self) -> None:
        super().kill()
        if self._store is not None:
            self.database.end_session(self._store.holder)
        if self.gate.is_closed:
            self.gate.open()

    # Standing still

    def stop(self, seconds: float) -> None:
        """Stand still for some time."""
        if self.is_dead or self.gate.is_closed or self._task.done():
            return
        self.note("stands still", round(seconds))
        self.inspector.line_state.stops += 1
        self.gate.is_closed = True
        self._call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        if self.gate.is_closed:
            self.note("goes on")
            self.gate.open()

    async def _reach(self, point: str) -> None:
        await super()._reach(point)
        for pause in self.run.pauses:
            if (pause.point, pause.count) == (point, self._steps[point]):
                self.stop(pause.seconds)
                await asyncio.sleep(0)
                self._check()

    # The shared journal

    def _open_journal(self) -> WriteAheadJournal:
        loop = asyncio.get_running_loop()
        self._store = SharedMemoryStore(
            database=self.database,
            wake=self._wake,
            before_commit=self._before_commit,
            after_commit=self._after_commit,
        )
        self._keeper = loop.create_task(self._keep_session(self._store))
        journal = WriteAheadJournal(self._store, run_sync=self._call)
        assert isinstance(journal.sharing, Sharing)
        journal.sharing._clock = loop.time
        return journal

    async def _main(self) -> None:
        try:
            await super()._main()
        except UnreachableError:
            raise JournalError("The journal could not be reached at its end.") from None
        finally:
            if self._keeper is not None:
                self._keeper.cancel()

    def _wake(self, notify: Callable[[], None]) -> None:
        """Let the process hear a notice, once it runs."""
        asyncio.get_running_loop().call_later(_NOTICE_DELAY, notify, context=self._context)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Ask the server as a thread does: with a delay, without a cancellation, and again after a lost connection."""
        self._check()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        delay = self.rng.choice((0.001, 0.02, 0.5))
        self._call_later(delay, self._try, future, function, arguments, loop.time(), None)
        await self._reach("asked")
        with anyio.CancelScope(shield=True):
            return await self._wait(future)

    def _try(
        self,
        future: asyncio.Future[Any],
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        asked_at: float,
        failed_at: float | None,
    ) -> None:
        """One question to the server; its answer comes a little later."""
        loop, store = asyncio.get_running_loop(), self._store
        assert store is not None
        if self.is_dead or self._task.done():
            return
        if failed_at is not None:
            if self.gate.is_closed:  # it asks again when it goes on
                self._call_later(_RETRY_DELAY, self._try, future, function, arguments, asked_at, failed_at)
                return
            asked_at = loop.time()
        store.asked_at = asked_at
        store.loses_answer = self.rng.random() < self.run.lost_answers
        try:
            answer, error = function(*arguments), None
        except UnreachableError:
            failed_at = asked_at if failed_at is None else failed_at
            if not store.is_closed and loop.time() - failed_at <= _MAX_OUTAGE:
                self._call_later(_RETRY_DELAY, self._try, future, function, arguments, asked_at, failed_at)
                return
            answer, error = None, JournalError("The journal could not be reached.")
        except JournalError as failure:
            answer, error = None, failure
        except Killed:
            return
        store.loses_answer = False
        self._call_later(self.rng.choice((0.001, 0.02)), _resolve, future, answer, error)

    async def _keep_session(self, store: SharedMemoryStore) -> None:
        """Prove again and again that the session lives, and open another one if the server has ended it."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_PING_INTERVAL)
            asked_at = loop.time()
            await asyncio.sleep(_ANSWER_DELAY)
            if self.is_dead or store.is_closed:
                return
            is_broken = asked_at - store.confirmed > 2 * LOST_AFTER  # this side gives the connection up, too
            with suppress(UnreachableError):
                store.look_after_session(asked_at, is_broken=is_broken)

    # The network

    def _cut_off(self, seconds: float) -> None:
        """Cut the process off from the server: packets are dropped, and both sides live."""
        store = self._store
        if store is None or self.is_dead or self._task.done():
            return
        self.note("is cut off", round(seconds))
        self.inspector.line_state.cuts += 1
        store.is_cut_off = True
        lost_at = self.database.heard_at[store.holder] + LOST_AFTER + self.rng.choice((0.0, 5.0))
        delay = max(0.0, lost_at - asyncio.get_running_loop().time())
        if delay < seconds:
            self._call_later(delay, self.database.end_session, store.holder)
        self._call_later(seconds, self._connect_again, store)

    def _connect_again(self, store: SharedMemoryStore) -> None:
        self.note("is connected again")
        store.is_cut_off = False


def _resolve(future: asyncio.Future[Any], answer: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
