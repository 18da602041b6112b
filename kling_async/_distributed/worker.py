"""A worker: takes shards from the queue and runs them, until it is stopped, has nothing to do, or is refused."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Never, cast

import anyio
import attrs
from procrastinate import App, JobContext
from procrastinate.exceptions import ConnectorException

from kling_async._callbacks import SafeLogger
from kling_async._distributed.batch_record import BatchRecord
from kling_async._distributed.database import WorkersDatabase, describe_trouble, end_tasks
from kling_async._distributed.outage import TRANSIENT_DELAY, delay_of_shard
from kling_async._distributed.reports import Reporter
from kling_async._distributed.run_shard import ShardRun, WorkerRefusedError
from kling_async._distributed.shard_queue import (
    QUEUE,
    SHARD_LOCK,
    TASK,
    WORKERS_LOCK,
    ShardGivenBackError,
    close_connections,
    hide_worker_log,
    list_unfinished_shards,
    open_shard_queue,
    translate_queue_errors,
)
from kling_async._distributed.shards import ShardItem, load_items
from kling_async._distributed.trouble import ends_worker
from kling_async._engine.clock import Clock
from kling_async._field_docs import describe_fields
from kling_async._journal.store import is_unreadable_row
from kling_async.client import KlingClient
from kling_async.errors import ConfigurationError, JournalError, KlingError

_LOOK_INTERVAL = 5.0
"""Seconds between two looks for the shards of dead workers."""
_POLL_INTERVAL = 2.0
"""Seconds between two questions for a shard, where no notice of one comes."""
_FORGET_WORKERS_AFTER = 86_400.0
"""Seconds without a heartbeat after which a worker that starts removes another from the table of Procrastinate.

An outage can end the heartbeats of a worker that runs shards; removed, it could take no more. The locks say which worker lives.
"""
_REFUSAL_TIME = 60.0
"""Seconds before a worker tries again whether it can obey the options of a batch."""
_URGENT_TIME = 2.0
"""Seconds that a worker that is to end at once waits for the database, when it runs no shard any more."""
_LOCK_TRIES, _LOCK_DELAY = 10, 0.2
"""Another worker that looks for dead ones holds the lock of a shard for some milliseconds."""
_log = SafeLogger("kling_async")


@attrs.frozen(kw_only=True)
class WorkerReport:
    """What a worker did, and what it left."""

    shards: int
    """How many shards it ran to their end."""
    items: int
    """How many items of them ended."""
    shards_given_back: int
    """How many shards it gave back before their end; other workers run them."""
    refusal: KlingError | None = None
    """Why the worker ended by itself: the service refuses it, or only batches are left whose options it cannot obey."""


@attrs.define(eq=False)
class Worker:
    """One worker of a journal."""

    client: KlingClient
    database: WorkersDatabase
    clock: Clock
    concurrency: int
    grace: float
    until_idle: bool
    name: str = attrs.field(factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    _stop: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _is_urgent: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _running: set[int] = attrs.field(init=False, factory=set)
    """The numbers of the queued shards that this worker runs."""
    _unlocked: frozenset[int] = attrs.field(init=False, default=frozenset())
    """The numbers of the queued shards that ran at the last look and that no worker had locked."""
    _refused: dict[int, tuple[float, KlingError]] = attrs.field(init=False, factory=dict)
    """By number, the batches that this worker cannot run: when it tried, and why."""
    _pauses: dict[int, float] = attrs.field(init=False, factory=dict)
    """By number, when this worker tries a batch again for which the service could not be reached."""
    _shards: int = attrs.field(init=False, default=0)
    _items: int = attrs.field(init=False, default=0)
    _given_back: int = attrs.field(init=False, default=0)
    _refusal: KlingError | None = attrs.field(init=False, default=None)

    async def run(self, ready: asyncio.Event) -> WorkerReport:
        """Run shards; what the worker did, once it has ended.

        Cancelling stops the worker without the grace time, and raises after the shards are given back.

        Args:
            ready: Set when the journal is reached.
        """
        try:
            async with open_shard_queue(self.database, self.run_queued_shard) as app:
                is_shared = await self.database.share_lock(WORKERS_LOCK)
                assert is_shared, "all sessions that take this lock share it"
                ready.set()
                async with self._look_regularly(app):
                    await self.take_shards(app)
        finally:
            with anyio.CancelScope(shield=True):
                await self.database.close()
        return self.report()

    def report(self) -> WorkerReport:
        """What the worker has done so far."""
        return WorkerReport(
            shards=self._shards,
            items=self._items,
            shards_given_back=self._given_back,
            refusal=self._refusal,
        )

    def stop(self) -> None:
        """Take no shard any more, submit nothing, and give the shards back after the grace time."""
        self._stop.set()

    async def take_shards(self, app: App) -> None:
        """Run the worker of Procrastinate, and again after its connection broke."""
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        giving_up = asyncio.create_task(self._give_up_database(app), name="end at once")
        try:
            while not self._stop.is_set():
                queue = asyncio.create_task(self._work_on_queue(app), name="shard queue")
                try:
                    await asyncio.wait({queue, stop}, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:
                    self._stop_at_once()
                    await self._end(queue)
                    raise
                if self._stop.is_set():
                    await self._end(queue)
                if not queue.cancelled() and queue.result():
                    return
                await asyncio.wait({stop}, timeout=_POLL_INTERVAL)
        finally:
            await end_tasks(stop, giving_up)

    async def _give_up_database(self, app: App) -> None:
        """End the statements that wait for a database that is away, when the worker is to end at once."""
        await self._is_urgent.wait()
        # The journals of the shards get what was paid for, and wait for the database themselves.
        while self._running:
            await self.clock.sleep(_LOCK_DELAY)
        await self.clock.sleep(_URGENT_TIME)
        await close_connections(app)

    async def _end(self, queue: asyncio.Task[bool]) -> None:
        """Let the worker of Procrastinate wait for its shards, which end within the grace time."""
        queue.cancel()
        is_cancelled = False
        while not queue.done():
            try:
                await asyncio.wait({queue})
            except asyncio.CancelledError:
                is_cancelled = True
                self._stop_at_once()
        if is_cancelled:
            raise asyncio.CancelledError

    def _stop_at_once(self) -> None:
        self._is_urgent.set()
        self.stop()

    async def _work_on_queue(self, app: App) -> bool:
        """Whether no shard is left, and the worker is to end then."""
        try:
            with translate_queue_errors(self.database), hide_worker_log(self.name):
                await app.run_worker_async(
                    queues=[QUEUE],
                    name=self.name,
                    concurrency=self.concurrency,
                    wait=not self.until_idle,
                    fetch_job_polling_interval=_POLL_INTERVAL,
                    install_signal_handlers=False,
                    delete_jobs="successful",
                    stalled_worker_timeout=_FORGET_WORKERS_AFTER,
                )
                left = {cast(int, job.task_kwargs["batch"]) for job in await list_unfinished_shards(app)}
        except JournalError as error:
            if not self._stop.is_set():
                self.database.report_trouble(error, now=self.clock.now())
            return False
        if not self.until_idle or any(self._refusal_of(batch) is None for batch in left):
            return False
        if left:
            self._refusal = self._refusal_of(min(left))
        return True

    def _refusal_of(self, batch: int) -> KlingError | None:
        """Why this worker cannot run a batch; None if it may be able to by now."""
        tried_at, error = self._refused.get(batch, (-math.inf, None))
        return error if self.clock.now() - tried_at <= _REFUSAL_TIME else None

    async def run_queued_shard(self, context: JobContext, **arguments: Any) -> None:
        """Run one shard, which no other live worker runs."""
        assert context.job.id is not None
        lock = f"{SHARD_LOCK}{context.job.id}"
        self._running.add(context.job.id)
        try:
            # The connection can have broken since its last statement; it is made again below.
            with suppress(JournalError):
                await self.database.keep_locks()
            if not await self._lock(lock):
                raise ShardGivenBackError(TRANSIENT_DELAY)  # noqa: TRY301 - counted below
            await self._run_shard(arguments)
        except JournalError as error:
            if is_unreadable_row(error):
                _log.warning("%s The shard fails.", error.message)
                raise  # the call gives it out again a few times
            _log.warning("%s The shard is given back.", describe_trouble(error))
            self._given_back += 1
            raise ShardGivenBackError(TRANSIENT_DELAY) from error
        except ShardGivenBackError:
            self._given_back += 1
            raise
        finally:
            self._running.remove(context.job.id)
            with anyio.CancelScope(shield=True):
                await self.database.unlock(lock)

    async def _lock(self, name: str) -> bool:
        for _ in range(_LOCK_TRIES):
            if await self.database.lock(name):
                return True
            await self.clock.sleep(_LOCK_DELAY)
        return False

    async def _run_shard(self, arguments: Mapping[str, Any]) -> None:
        record = BatchRecord(self.database, arguments["batch"])
        pause = self._pauses.get(record.number, -math.inf) - self.clock.now()
        is_refused = self._refusal_of(record.number) is not None
        if (delay := delay_of_shard(is_refused=is_refused, pause=pause)) is not None:
            raise ShardGivenBackError(delay)
        try:
            items = load_items(arguments)
        except ConfigurationError as error:
            await self._refuse(record, error)
        outage, now = await record.read_outage()
        shard = ShardRun(
            client=self.client,
            database=self.database,
            record=record,
            reporter=Reporter(self.database, record.number, self.clock),
            is_stopping=self._stop.is_set,
            is_last_try=outage is not None and outage.is_too_long(now=now),
        )
        try:
            left = await self._run_within_grace(shard, items)
        except WorkerRefusedError as error:
            await self._refuse(record, error.error)
        finally:
            self._items += shard.reporter.ended
        outage = await record.record_contact(shard.contact)
        delay = delay_of_shard(left=left, is_stopping=self._stop.is_set(), outage=outage)
        if delay is None:
            self._shards += 1
            return
        if outage is not None:
            self._pauses[record.number] = self.clock.now() + delay
        raise ShardGivenBackError(delay)

    async def _run_within_grace(self, shard: ShardRun, items: Sequence[ShardItem]) -> int:
        """How many items of a shard are left; a worker that stops waits for those in flight for the grace time."""
        helpers = [
            asyncio.create_task(shard.reporter.run(), name="reports"),
            asyncio.create_task(self._cancel_after_grace(scope := anyio.CancelScope()), name="grace"),
        ]
        left = len(items)
        try:
            with scope:
                left = await shard.run(items)
        finally:
            await end_tasks(*helpers)
            with anyio.CancelScope(shield=True), suppress(JournalError):
                await shard.reporter.flush()
        return left

    async def _cancel_after_grace(self, scope: anyio.CancelScope) -> None:
        await self._stop.wait()
        with anyio.move_on_after(self.grace):
            await self._is_urgent.wait()
        scope.cancel()

    async def _refuse(self, record: BatchRecord, error: KlingError) -> Never:
        """Give the shard back and tell the callers why; end this worker if it can run no other batch either."""
        is_end = ends_worker(error)
        if is_end:
            self._refusal = self._refusal or error
            self.stop()
        else:
            self._refused[record.number] = self.clock.now(), error
            _log.warning("%s This worker gives the shards of batch %s back.", error.message, record.number)
        with suppress(JournalError):
            await record.record_refusal(self.name, error, is_end=is_end)
        delay = delay_of_shard(is_stopping=is_end, is_refused=True)
        assert delay is not None, "a refused shard is always given back"
        raise ShardGivenBackError(delay) from error

    @asynccontextmanager
    async def _look_regularly(self, app: App) -> AsyncIterator[None]:
        look = asyncio.create_task(self.look_for_dead_workers(app), name="look for dead workers")
        try:
            yield
        finally:
            await end_tasks(look)

    async def look_for_dead_workers(self, app: App) -> None:
        while True:
            try:
                await self.database.keep_locks()
                await self.give_back_dead_shards(app)
            except (ConnectorException, JournalError) as error:
                _log.debug("No look for dead workers: %s", error)
            await self.clock.sleep(_LOOK_INTERVAL)

    async def give_back_dead_shards(self, app: App) -> None:
        """Make available each shard that the queue calls running, and that no worker had locked at two looks.

        The lock goes with the session of the worker that runs the shard. A worker that stands still keeps it. Two looks,
        because a worker locks a shard a moment after it has taken it.
        """
        jobs = await app.job_manager.list_jobs_async(task=TASK, status="doing")
        unlocked = set()
        for job in jobs:
            assert job.id is not None
            lock = f"{SHARD_LOCK}{job.id}"
            if job.id in self._running or not await self.database.lock(lock):
                continue
            try:
                if job.id in self._unlocked:
                    await app.job_manager.retry_job(job)
                else:
                    unlocked.add(job.id)
            finally:
                await self.database.unlock(lock)
        self._unlocked = frozenset(unlocked)


describe_fields(__name__)
