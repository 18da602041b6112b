from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from postgres_server import make_journal
from shared_batches import change

from kling_async import KlingClient, Limits, PollingPolicy, RetryPolicy
from kling_async._distributed.database import WorkersDatabase
from kling_async._distributed.shard_queue import open_shard_queue
from kling_async.distributed import run_worker
from kling_async.emulator import EmulatorSettings, LogNormal


@pytest.fixture
def journal(postgres_server):
    """The URL of a database with the tables of a journal and of its workers, and no entry, batch or shard."""
    with postgres_server.make_database(make_tables) as url:
        yield url


def make_tables(url):
    make_journal(url)
    asyncio.run(make_queue(WorkersDatabase.at(url)))


async def make_queue(database):
    async with open_shard_queue(database):
        await database.close()


@pytest.fixture(autouse=True)
def impatient_callers(monkeypatch):
    """Callers look for outcomes more often than once a second, for which most tests would only wait."""
    monkeypatch.setattr("kling_async._distributed.call._POLL_INTERVAL", 0.1)


@pytest.fixture
def new_journal(database):
    """The URL of a database without tables."""
    return database


@pytest.fixture
def kling_emulator_settings():
    return EmulatorSettings(
        time_scale=100.0,
        queue_time=LogNormal(0.5),
        dispatch_time=0.1,
        run_time=LogNormal(2.0, 0.2),
        workers=100,
    )


@pytest.fixture
def make_client(kling_emulator, tiny_films):
    """Makes clients of the emulator."""

    def make_client(**settings):
        settings = {
            "api_key": "any-key",
            "base_url": kling_emulator.url,
            "polling": PollingPolicy(poll_interval=0.05, wait_timeout=20.0),
            "limits": Limits(max_polls_per_second=500.0),
            "retry": RetryPolicy(max_retries=1, initial_delay=0.01),
            **settings,
        }
        return KlingClient(**settings)

    return make_client


@pytest.fixture
def workers(journal, make_client):
    """Runs workers for a block; their reports are there after it."""

    @asynccontextmanager
    async def workers(count=1, *, client=None, **options):
        stop, reports = asyncio.Event(), []
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            running = []
            for _ in range(count):
                one = client or await stack.enter_async_context(make_client())
                running.append(tasks.create_task(run_worker(journal, one, stop=stop, **options)))
            await all_up(journal, count)
            yield reports
            stop.set()
            reports += [await worker for worker in running]

    return workers


async def all_up(journal, count):
    """Return when so many workers are ready to take shards."""
    async with asyncio.timeout(20):
        while True:
            locks = change(
                journal,
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            ).fetchone()
            if locks[0] >= count:
                return
            await asyncio.sleep(0.05)
