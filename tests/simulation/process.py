"""One process: a batch with its journal, which can be killed at each step that other processes can see."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import Context
from email.utils import formatdate
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
import attrs
from virtual_service import EPOCH, VirtualClock
from virtual_store import MemoryStore

from kling_async import JournalError, Limits, PollingPolicy, RetryPolicy, VideoRequest
from kling_async._engine.api import ApiCaller
from kling_async._engine.batch.batch import CheckedBatch, check_batch, make_parts, run_batch
from kling_async._engine.batch.batch_parts import BatchParts
from kling_async._engine.batch.settings import BatchSettings
from kling_async._engine.session import LoopSession
from kling_async._engine.shared_state import SharedState
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.store import PendingWrites
from kling_async._secrets import Secret
from kling_async._transport.base import Reply, Request, StreamedReply
from kling_async._wire.endpoints import QUEUE_PATH
from kling_async.events import Event, Notifier

from .gate import outside
from .jobs import Post, request_text
from .line_state import PRICE
from .rules import Inspector
from .scenario import Run
from .service import FaultyService

T = TypeVar("T")

_MAX_RUN_TIME = 200_000.0
"""Seconds after which a run that has not ended counts as endless."""


_BELATED = 5.0
"""Seconds after the last step of a process before a POST from which the recorded time is not that of the POST."""
_KEY = "eagle"
"""The API key; it stands in one of the prompts, where the client hides it in each record of the service."""


class Killed(BaseException):
    """Raised in a killed process at each step that other processes could see."""


class _MachineClock(VirtualClock):
    """The clock of the machine of a process: it can be wrong, and be set while the process runs."""

    def __init__(self, ahead: float) -> None:
        super().__init__()
        self._ahead = ahead
        self._steps: list[tuple[float, float]] = []

    def wall(self) -> float:
        now = self.now()
        return super().wall() + self._ahead + sum(seconds for at, seconds in self._steps if at <= now)

    def set_later(self, delay: float, seconds: float) -> None:
        """Set the clock after some time."""
        self._steps.append((self.now() + delay, seconds))


@attrs.define(eq=False, kw_only=True)
class _ProcessDisk(MemoryStore):
    """The disk as one process writes it; later processes read the same entries."""

    before: Callable[[], None]
    after: Callable[[], None]

    def commit(self, changes: PendingWrites) -> None:
        self.before()
        super().commit(changes)
        self.after()


@attrs.define(eq=False, kw_only=True)
class Process:
    """A running batch, and its transport.

    A killed process cannot send, write or emit anything more, so its cleanup has no effect. Between two steps that
    other processes can see, a process only computes, so kills before and after each step stand for all kills.
    """

    name: str
    run: Run
    service: FaultyService
    inspector: Inspector
    rng: random.Random
    """A generator of its own: the steps of other processes do not change its numbers."""
    note: Callable[..., None]
    is_dead: bool = False
    _steps: Counter[str] = attrs.field(init=False, factory=Counter)
    _commits: int = attrs.field(init=False, default=0)
    _waits: dict[asyncio.Future[Any], None] = attrs.field(init=False, factory=dict)
    """The futures that it waits for, in order."""
    _task: asyncio.Task[None] = attrs.field(init=False)
    _clock: _MachineClock = attrs.field(init=False)
    _context: Context | None = attrs.field(init=False, default=None)
    """The context in which its code runs; None for a copy of that of the world."""

    async def execute(self) -> None:
        """Run until the end that the scenario has for the run."""
        loop, ending = asyncio.get_running_loop(), self.run.ending
        self._task = loop.create_task(self._main(), context=self._context)
        alarms = []
        if ending.how in {"kill", "cancel"} and not ending.point:
            end = self.kill if ending.how == "kill" else self._task.cancel
            alarms.append(loop.call_later(ending.at, end))
        await asyncio.wait({self._task}, timeout=_MAX_RUN_TIME)
        for alarm in alarms:
            alarm.cancel()
        if not self._task.done():
            self.inspector.fail("a run never ends")
            self.kill()
            await asyncio.wait({self._task})
        error = asyncio.CancelledError() if self._task.cancelled() else self._task.exception()
        if not self.is_dead:
            self.note("ends", error)
            self.inspector.check_end(error)

    def kill(self) -> None:
        """Kill the process: it takes no further step that others can see."""
        if self.is_dead:
            return
        self.note("is killed")
        self.is_dead = True
        for post in self.inspector.posts:
            if post.fate == "in flight":
                post.fate = "unknown"
        for wait in self._waits:
            if not wait.done():
                wait.set_result(None)
        self._task.cancel()

    def _check(self) -> None:
        if self.is_dead:
            raise Killed

    def _step(self, point: str) -> None:
        """Note a step, and kill the process here if the scenario says so."""
        self._check()
        self._steps[point] += 1
        ending = self.run.ending
        if ending.point == point and ending.count == self._steps[point]:
            self.note(point, ending.count)
            self.kill()
            raise Killed

    async def _reach(self, point: str) -> None:
        """Take a step at which the process can also stand still."""
        self._step(point)

    async def _wait(self, future: asyncio.Future[Any]) -> Any:
        self._waits[future] = None
        try:
            value = await future
        finally:
            self._waits.pop(future)
        self._check()
        return value

    # The batch

    async def _main(self) -> None:
        run, journal = self.run, self._open_journal()
        self.inspector.journal = journal
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(run.ending.at if run.ending.how == "timeout" else None):
                    await self._consume(self._open(journal))
        finally:
            if journal is not None:
                journal.close()

    def _open_journal(self) -> WriteAheadJournal | None:
        disk = self.inspector.line_state.disk
        if disk is None:
            return None
        store = _ProcessDisk(
            kept=disk.kept, earlier=disk.earlier, before=self._before_commit, after=self._after_commit
        )
        return WriteAheadJournal(store, run_sync=self._call)

    async def _consume(self, batch: AbstractAsyncContextManager[AsyncIterator[Any]]) -> None:
        ending = self.run.ending
        async with batch as results:
            with anyio.move_on_after(ending.at if ending.how == "leave" else float("inf")):
                async for result in results:
                    self._check()
                    self.note("result", result.index, result.state, result.job and result.job.request_id)
                    self.inspector.check_result(result)

    def _open(self, journal: WriteAheadJournal | None) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
        run = self.run
        has_price = self.inspector.line_state.has_price
        settings = BatchSettings(
            max_concurrency=run.max_concurrency,
            journal="run.db" if journal is not None else None,
            max_cost_usd=run.cap * PRICE if run.cap is not None else None,
            prices={"kling-v2-6": PRICE} if has_price else None,
            on_ambiguous=run.on_ambiguous,
            retry_failed=run.retry_failed,
        )
        batch = check_batch(self._source(), {}, settings, Notifier(self._listen))
        return run_batch(batch.reader, _open_parts(self._session(), batch, journal))

    def _source(self) -> Any:
        requests = self.run.requests

        async def slow() -> AsyncIterator[VideoRequest]:
            for request in requests:
                await anyio.sleep(0.7)
                yield request

        if self.run.source == "slow":
            return slow()
        return iter(requests) if self.run.source == "iterator" else list(requests)

    def _session(self) -> LoopSession:
        run = self.run
        self._clock = _MachineClock(run.clock_ahead)
        limits = Limits(
            max_concurrent_submits=run.max_concurrent_submits,
            max_submits_per_hour=run.max_submits_per_hour,
            max_polls_per_second=run.max_polls_per_second,
        )
        polling = PollingPolicy(
            wait_timeout=run.wait_timeout,
            stall_timeout=run.stall_timeout,
            poll_interval=run.poll_interval,
            use_lists=run.use_lists,
        )
        api = ApiCaller(
            transport=self,
            clock=self._clock,
            rng=self.rng,
            queue=f"https://service.example{QUEUE_PATH}",
            headers={},
            secret=Secret(_KEY),
            timeout=run.timeout,
            retry=RetryPolicy(),
        )
        return LoopSession.open(api, SharedState(limits, polling))

    def _listen(self, event: Event) -> None:
        if self.is_dead:
            return
        self.note(type(event).__name__, event.index, event.request_id)
        try:
            self.inspector.check_event(event)
        except Exception as error:  # noqa: BLE001 - the batch would only log it
            self.inspector.fail(f"the rules failed: {error!r}")

    # The journal's disk

    async def _call(self, function: Callable[..., T], /, *arguments: Any) -> T:
        """Read at once, and commit as a thread does: with a delay, and without a cancellation."""
        self._check()
        if not arguments:
            return function()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(self.rng.choice((0.001, 0.02, 0.5)))
        self._step("committing")
        return function(*arguments)

    def _before_commit(self) -> None:
        self._step("commit")
        self._commits += 1
        begin, end = self.run.full_disk
        if begin <= self._commits < end:
            self.note("disk full")
            raise JournalError("The journal could not be written (database or disk is full).")

    def _after_commit(self) -> None:
        self.note("commits")
        self.inspector.line_state.check_recorded()
        self._step("committed")

    # The transport

    async def send(self, request: Request) -> Reply:
        self._check()
        if request.method == "POST":
            answer = await self._send_post(request)
        else:
            answer = await self._send_get(request)
        if isinstance(answer, Exception):
            raise answer
        if self.service.conditions.has_date:
            date = int(EPOCH + self.service.now + self.service.conditions.skew)
            return attrs.evolve(answer, headers={**answer.headers, "date": formatdate(date, usegmt=True)})
        return answer

    async def _send_post(self, request: Request) -> Reply | Exception:
        ready_at = asyncio.get_running_loop().time()
        await self._reach("post")
        body = json.loads(request.body or b"")
        post = Post(
            line=self.inspector.line_state.number,
            process=self.name,
            organization=self.inspector.line_state.organization,
            payload=body["payload"],
            request=request_text(body["model"], body["payload"]),
            sent=asyncio.get_running_loop().time(),
            is_belated=asyncio.get_running_loop().time() - ready_at > _BELATED,
        )
        self.note("POST", body["payload"])
        self.inspector.check_post(post)
        if step := self.run.clock_steps.get(self._steps["post"]):
            self._clock.set_later(*step)
        future = outside().run(self.service.receive, request, post=post)
        await self._reach("posted")
        answer = await self._wait(future)
        await self._reach("answered")
        post.fate = post.verdict
        if post.fate == "answered" and isinstance(answer, Reply) and b'"org_id"' in answer.body:
            post.told_organization_at = asyncio.get_running_loop().time()
        self.note("answer", post.fate, answer)
        return answer

    async def _send_get(self, request: Request) -> Reply | Exception:
        is_list = urlsplit(request.url).path.endswith("/requests")
        if is_list:
            await self._reach("list")
        self.inspector.check_poll()
        future = outside().run(self.service.receive, request, on_shown=self.inspector.note_shown)
        answer = await self._wait(future)
        if is_list:
            await self._reach("listed")
        self.note("list" if is_list else "status", request.url.rpartition("/")[2], answer)
        return answer

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamedReply]:
        raise AssertionError("no file is fetched in a world")

    async def aclose(self) -> None:
        """Do nothing: there is no connection to close."""


@asynccontextmanager
async def _open_parts(
    session: LoopSession, batch: CheckedBatch, journal: WriteAheadJournal | None
) -> AsyncIterator[BatchParts]:
    """The parts of a batch over a journal in memory."""
    await batch.reader.check()
    yield await make_parts(session, batch, journal=journal, output=None)
