"""The shard queue: Procrastinate, which gives each shard to one worker. Only its public names are used here.

Procrastinate calls a queued shard a job. In this package a job is what the service makes of a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import psycopg
from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.manager import JobManager

from kling_async._callbacks import SafeLogger
from kling_async._distributed.database import (
    WorkersDatabase,
    connection_text,
    set_up,
    translate_database_errors,
)
from kling_async._engine.tasks import is_cancelled
from kling_async._journal.location import DatabaseUrl
from kling_async.errors import ConfigurationError, JournalError

TASK = "kling_async.run_shard"
QUEUE = "kling_async"
SHARD_LOCK = "shard "
"""The lock of a shard that a worker runs, before the number of the queued shard."""
WORKERS_LOCK = "workers"
"""The lock that all workers share."""
_SCHEMA_LOCK = "schema"
_POOL = "kling_async shard queue"
_LISTEN_DELAY = 2.0
"""Seconds before a connection for notices of new shards is made again."""
_log = SafeLogger("kling_async")
_is_in_our_worker: ContextVar[bool] = ContextVar("is_in_our_worker", default=False)
"""Whether the code runs in a task of a worker of this package, so that it is no worker of the user's own."""
_TABLES_VERSION = 1
_TABLES = """
CREATE TABLE kling_async_tables (version integer NOT NULL);
INSERT INTO kling_async_tables VALUES (1);
CREATE TABLE kling_async_batches (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    digest text NOT NULL UNIQUE,
    options text NOT NULL,
    version integer NOT NULL,
    outage_began_at double precision,
    outage_seen_at double precision,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE kling_async_outcomes (
    batch bigint NOT NULL REFERENCES kling_async_batches ON DELETE CASCADE,
    number bigint NOT NULL,
    outcome text NOT NULL,
    sequence bigserial,
    PRIMARY KEY (batch, number)
);
CREATE INDEX kling_async_outcome_sequence ON kling_async_outcomes (batch, sequence);
CREATE TABLE kling_async_refusals (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    batch bigint NOT NULL REFERENCES kling_async_batches ON DELETE CASCADE,
    session integer NOT NULL DEFAULT pg_backend_pid(),
    worker text NOT NULL,
    error text NOT NULL,
    is_end boolean NOT NULL
);
"""


class ShardGivenBackError(Exception):
    """The shard is not at its end, and another worker may run it.

    Args:
        delay: Seconds before which no worker takes the shard.
    """

    def __init__(self, delay: float) -> None:
        super().__init__(f"given back; another worker can run the shard in {delay:g} s")
        self.delay = delay


_TOLD = (ConnectorException, JournalError, ShardGivenBackError)
"""The errors of which the log of this package tells."""


class GiveBack(BaseRetryStrategy):
    """Makes a shard that is given back available again, and no other."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """When the shard is available again."""
        del job
        if isinstance(exception, ShardGivenBackError):
            return RetryDecision(retry_in={"milliseconds": round(exception.delay * 1000)})
        return None


class _Connector(PsycopgConnector):
    """The connections of Procrastinate, of which the one for notices is made again after each outage.

    The worker of Procrastinate does not notice that its listener has ended, and would find new shards by its questions alone.
    Source: issue 1597 of Procrastinate.
    """

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        """Pass on notices until cancelled."""
        while True:
            try:
                await super().listen_notify(on_notification, channels)
            except ConnectorException as error:
                _log.debug("No notices of new shards: %s", error.__cause__)
            if is_cancelled():  # the error of a broken connection has come in the place of the cancellation
                raise asyncio.CancelledError
            await anyio.sleep(_LISTEN_DELAY)


class _JobManager(JobManager):
    """The statements of Procrastinate about a queued shard. The end of a shard can be missing in the table after an outage.

    A shard whose end is missing has no lock, so the look for dead workers gives it back. The worker of Procrastinate leaves such
    an error in a task, so that asyncio would print a traceback.
    """

    async def finish_job(self, *arguments: Any, **options: Any) -> None:
        """Write down that a shard has ended."""
        with _leave_to_look():
            await super().finish_job(*arguments, **options)

    async def retry_job(self, *arguments: Any, **options: Any) -> None:
        """Write down that a shard is given back."""
        with _leave_to_look():
            await super().retry_job(*arguments, **options)


@contextmanager
def _leave_to_look() -> Iterator[None]:
    try:
        yield
    except ConnectorException as error:
        _log.debug("The end of a shard is not written: %s", error.__cause__)


def make_app(url: DatabaseUrl, run_shard: Callable[..., Awaitable[None]] | None = None) -> App:
    """The shard queue in the database of a journal.

    Args:
        url: The database.
        run_shard: Runs a shard, where the process is a worker. Its arguments are the context of the queued shard and `dump_shard`.
    """
    text = connection_text(url)
    connector = _Connector(conninfo=text, configure=set_up, min_size=1, max_size=4, name=_POOL)
    app = App(connector=connector)
    app.job_manager = _JobManager(connector)
    if run_shard is not None:
        run = run_shard

        async def run_queued_shard(context: JobContext, /, **arguments: Any) -> None:
            await run(context, **arguments)

        app.task(name=TASK, queue=QUEUE, pass_context=True, retry=GiveBack())(run_queued_shard)
    return app


async def close_connections(app: App) -> None:
    """Close the connections of a shard queue: what waits for one, and what wants one later, ends with a `ConnectorException`."""
    assert isinstance(app.connector, PsycopgConnector)
    await app.connector.pool.close()


@contextmanager
def _hide_pool_log() -> Iterator[None]:
    """A block in which the pool of the shard queue logs nothing: several lines a second while the database is away."""

    def is_of_others(record: logging.LogRecord) -> bool:
        return not (isinstance(record.args, tuple) and _POOL in record.args)

    log = logging.getLogger("psycopg.pool")
    log.addFilter(is_of_others)
    try:
        yield
    finally:
        log.removeFilter(is_of_others)


@contextmanager
def hide_worker_log(name: str) -> Iterator[None]:
    """A block in which the worker of Procrastinate logs no traceback of what the log of this package tells: outages, and ends of shards.

    Args:
        name: The name of the worker.
    """

    def is_of_others(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not (isinstance(error, _TOLD) and _is_in_our_worker.get()):
            return True
        _log.debug("Procrastinate: %s: %s", record.getMessage().rstrip(), error.__cause__ or error)
        return False

    workers = "procrastinate.worker"
    logs = [logging.getLogger(log) for log in ("procrastinate.utils", workers, f"{workers}.{name}")]
    token = _is_in_our_worker.set(True)
    for log in logs:
        log.addFilter(is_of_others)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(is_of_others)
        _is_in_our_worker.reset(token)


@contextmanager
def translate_queue_errors(database: WorkersDatabase) -> Iterator[None]:
    """A block whose errors of the shard queue are raised as a `JournalError`.

    Raises:
        JournalError: The database cannot be reached, or refuses.
    """
    try:
        yield
    except ConnectorException as error:
        with translate_database_errors(database.url):
            raise (error.__cause__ or psycopg.OperationalError(str(error))) from None


async def list_unfinished_shards(app: App) -> list[Job]:
    """The queued shards that wait or run: not those that have ended, which stay in the table.

    Raises:
        ConnectorException: The database cannot be reached, or refuses.
    """
    jobs: dict[int, Job] = {}
    for status in ("todo", "doing", "todo"):  # again, for one that a worker gives back meanwhile
        for job in await app.job_manager.list_jobs_async(task=TASK, status=status):
            assert job.id is not None
            jobs[job.id] = job
    return list(jobs.values())


@asynccontextmanager
async def open_shard_queue(
    database: WorkersDatabase, run_shard: Callable[..., Awaitable[None]] | None = None
) -> AsyncIterator[App]:
    """The shard queue in a database, whose tables are there; see `make_app`.

    Raises:
        ConfigurationError: The tables are of another version.
        JournalError: The database cannot be reached, or refuses.
    """
    app = make_app(database.url, run_shard)
    await database.query("SELECT 1")  # before the pool of the queue, which tries for half a minute
    with _hide_pool_log():
        with translate_database_errors(database.url):
            await app.open_async()
        try:
            await prepare_tables(app, database)
            yield app
        finally:
            await app.close_async()


async def prepare_tables(app: App, database: WorkersDatabase) -> None:
    """Make the tables of Procrastinate and ours if they are missing; two processes that begin together do it once.

    Where they are there, it takes no lock: a process that stands still with the lock holds up those that make tables alone.

    Raises:
        ConfigurationError: The tables are of another version.
        JournalError: The database cannot be reached, or refuses.
    """
    if not await _has_tables(app, database):
        await database.query(
            "SELECT pg_advisory_lock(hashtext('kling_async ' || current_schema() || %s))", _SCHEMA_LOCK
        )
        try:
            await _make_missing_tables(app, database)
        finally:
            await database.query(
                "SELECT pg_advisory_unlock(hashtext('kling_async ' || current_schema() || %s))", _SCHEMA_LOCK
            )
    with translate_queue_errors(database):
        await _check_queue(app, database)
    ((version,),) = await database.query("SELECT version FROM kling_async_tables")
    if version > _TABLES_VERSION:
        raise ConfigurationError(
            f"The tables in {database.name!r} are of version {version}, and this release of kling_async reads "
            f"{_TABLES_VERSION}: update kling_async here."
        )


async def _has_tables(app: App, database: WorkersDatabase) -> bool:
    """Whether the tables of Procrastinate and ours are there, which a user who may make no tables can ask."""
    ((is_made,),) = await database.query("SELECT to_regclass('kling_async_tables') IS NOT NULL")
    with translate_queue_errors(database):
        return bool(is_made) and await app.check_connection_async()


async def _make_missing_tables(app: App, database: WorkersDatabase) -> None:
    with translate_queue_errors(database):
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
    ((is_made,),) = await database.query("SELECT to_regclass('kling_async_tables') IS NOT NULL")
    if not is_made:
        await database.query(_TABLES)


async def _check_queue(app: App, database: WorkersDatabase) -> None:
    """Ask for a shard that no queue has, which older tables of Procrastinate cannot answer.

    Raises:
        ConfigurationError: The tables are of another version.
    """
    try:
        await app.job_manager.fetch_job(queues=[f"{QUEUE} has no such queue"], worker_id=0)
    except ConnectorException as error:
        if not isinstance(error.__cause__, psycopg.errors.UndefinedFunction):
            raise
        raise ConfigurationError(
            f"The tables of Procrastinate in {database.name!r} are of another version than the package here: bring them up to "
            "date with its migrations, or give the journal a database of its own."
        ) from error
