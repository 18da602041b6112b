"""A worker, where shards, other workers or the database go wrong."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
from contextlib import asynccontextmanager

import anyio
import pytest
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Status
from shared_batches import SLOW, change, end, shards, until

from kling_async import (
    APIConnectionError,
    JournalError,
    ResultState,
)
from kling_async._distributed.database import WorkersDatabase, connect
from kling_async._distributed.shard_queue import (
    SHARD_LOCK,
    TASK,
    WORKERS_LOCK,
    hide_worker_log,
    open_shard_queue,
)
from kling_async._distributed.worker import Worker
from kling_async._engine.clock import Clock
from kling_async._journal.location import journal_location
from kling_async._journal.postgres.store import PostgresStore
from kling_async.distributed import generate_many_on, run_worker
from kling_async.emulator import EmulatorSettings, Fault, JobScript, LogNormal, Reply

PROMPTS = [f"A comet over hill number {number}" for number in range(4)]
ONE_IS_INSTANT = EmulatorSettings(
    time_scale=1.0,
    queue_time=LogNormal(0.0),
    dispatch_time=0.0,
    run_time=LogNormal(2.0),
    script=lambda number, _: JobScript(ending="instant") if number == 1 else None,
)


async def give_out(journal, prompts=PROMPTS, **options):
    """Leave shards for workers, as a caller does that was killed."""
    call = asyncio.create_task(generate_many_on(journal, prompts, detach=True, **options))
    await until(lambda: shards(journal))
    await end(call)


@asynccontextmanager
async def open_worker(journal, client):
    """A worker that takes no shards by itself."""
    database = WorkersDatabase.at(journal)
    worker = Worker(
        client=client, database=database, clock=Clock(), concurrency=1, grace=0.0, until_idle=False
    )
    try:
        async with open_shard_queue(database, worker.run_queued_shard) as app:
            yield worker, app
    finally:
        await database.close()


async def take_shard(app):
    """Take a shard as a worker does that dies at once."""
    number = await app.job_manager.register_worker()
    return await app.job_manager.fetch_job(queues=None, worker_id=number)


async def test_the_shard_of_a_dead_worker_is_available_again_after_two_looks(journal, make_client):
    await give_out(journal)
    async with make_client() as client, open_worker(journal, client) as (worker, app):
        await take_shard(app)

        await worker.give_back_dead_shards(app)
        assert shards(journal) == [("doing", 0)]
        await worker.give_back_dead_shards(app)
        assert shards(journal) == [("todo", 1)]


async def test_a_worker_that_is_to_end_when_idle_waits_for_shards_that_are_to_be_tried_later(
    journal, kling_emulator, make_client
):
    await give_out(journal, PROMPTS[:1])
    change(journal, "UPDATE procrastinate_jobs SET scheduled_at = now() + interval '1 hour'")
    async with make_client() as client, open_worker(journal, client) as (worker, app):
        worker.until_idle = True
        assert not await worker._work_on_queue(app)

        change(journal, "UPDATE procrastinate_jobs SET scheduled_at = NULL")
        assert await worker._work_on_queue(app)
    assert worker.report().items == 1


async def test_the_shard_of_a_worker_that_stands_still_is_left_alone(journal, make_client):
    await give_out(journal)
    other = WorkersDatabase.at(journal)
    async with make_client() as client, open_worker(journal, client) as (worker, app):
        job = await take_shard(app)
        assert await other.lock(f"{SHARD_LOCK}{job.id}")

        for _ in range(3):
            await worker.give_back_dead_shards(app)
        assert shards(journal) == [("doing", 0)]

        await other.close()
        with anyio.fail_after(10):  # the server ends the session, and its lock, a moment later
            while shards(journal) != [("todo", 1)]:
                await worker.give_back_dead_shards(app)


async def test_a_shard_that_another_worker_has_locked_is_given_back(journal, make_client):
    await give_out(journal)
    other = WorkersDatabase.at(journal)
    assert await other.lock(f"{SHARD_LOCK}1")
    async with make_client() as client:
        worker = asyncio.create_task(run_worker(journal, client))
        await until(lambda: shards(journal) == [("todo", 1)])
        worker.cancel()
        await asyncio.wait({worker})
    await other.close()


@pytest.mark.parametrize("kling_emulator_settings", [SLOW], ids=["slow"])
async def test_a_worker_looks_for_dead_ones_and_leaves_its_own_shards_alone(
    journal, kling_emulator, make_client
):
    await give_out(journal)
    async with make_client() as client, open_worker(journal, client) as (worker, app):
        taking = asyncio.create_task(worker.take_shards(app))
        await until(lambda: kling_emulator.stats.accepted)
        for _ in range(3):
            await worker.give_back_dead_shards(app)
        assert shards(journal) == [("doing", 0)]
        worker.stop()
        await taking
    assert shards(journal) == [("todo", 1)]


@pytest.mark.parametrize("kling_emulator_settings", [SLOW], ids=["slow"])
async def test_a_worker_that_stops_and_is_cancelled_ends_at_once(journal, kling_emulator, make_client):
    await give_out(journal)
    stop = asyncio.Event()
    async with make_client() as client, asyncio.timeout(15):
        worker = asyncio.create_task(run_worker(journal, client, grace=60.0, stop=stop))
        await until(lambda: kling_emulator.stats.accepted)
        stop.set()
        await asyncio.sleep(0.1)
        worker.cancel()
        await asyncio.wait({worker})

    assert worker.cancelled()
    assert shards(journal) == [("todo", 1)]


async def test_a_worker_rides_out_a_queue_that_does_not_answer(journal, kling_emulator, workers, caplog):
    async with workers():
        # In a thread: a worker of this loop can hold a lock of the table, and must go on to give it back.
        await asyncio.to_thread(change, journal, "ALTER TABLE procrastinate_jobs RENAME TO hidden")
        await until(lambda: "process tries again" in caplog.text)
        await asyncio.to_thread(change, journal, "ALTER TABLE hidden RENAME TO procrastinate_jobs")
        batch = await generate_many_on(journal, PROMPTS[:1])

    assert batch[0].ok


async def test_a_worker_looks_again_after_a_look_that_failed(journal, make_client, caplog):
    caplog.set_level("DEBUG", "kling_async")
    async with make_client() as client, open_worker(journal, client) as (worker, app):
        change(journal, "ALTER TABLE procrastinate_jobs RENAME TO hidden")
        looking = asyncio.create_task(worker.look_for_dead_workers(app))
        await until(lambda: "No look for dead workers" in caplog.text)
        looking.cancel()


async def test_a_shard_whose_journal_refuses_is_given_back_for_later(
    journal, kling_emulator, workers, caplog
):
    await give_out(journal)
    change(journal, "ALTER TABLE kling_async_batches RENAME COLUMN options TO hidden")
    async with workers() as reports:
        await until(lambda: shards(journal) == [("todo", 1)])

    assert reports[0].shards_given_back == 1
    assert "The shard is given back" in caplog.text
    assert not kling_emulator.stats.accepted


async def test_a_shard_of_a_newer_release_is_given_back(journal, workers):
    await give_out(journal)
    change(journal, "UPDATE procrastinate_jobs SET args = jsonb_set(args, '{version}', '99')")

    async with workers() as reports:
        await until(lambda: shards(journal) == [("todo", 1)])

    assert reports[0].refusal is None
    assert reports[0].shards_given_back == 1
    (refused,) = change(journal, "SELECT error, is_end FROM kling_async_refusals").fetchall()
    assert "newer release" in refused[0]
    assert not refused[1]


@pytest.mark.parametrize("kling_emulator_settings", [ONE_IS_INSTANT], ids=["one is instant"])
async def test_outcomes_that_cannot_be_written_are_written_later(journal, kling_emulator, workers, caplog):
    await give_out(journal, PROMPTS[:2])
    change(journal, "ALTER TABLE kling_async_outcomes RENAME COLUMN outcome TO hidden")
    async with workers():
        await until(lambda: "process tries again" in caplog.text)
        change(journal, "ALTER TABLE kling_async_outcomes RENAME COLUMN hidden TO outcome")
        await until(lambda: change(journal, "SELECT count(*) FROM kling_async_outcomes").fetchone() == (2,))


async def test_an_outage_of_the_service_gives_shards_back_however_often_and_ends_items_after_a_long_time(
    journal, workers, make_client
):
    call = asyncio.create_task(generate_many_on(journal, PROMPTS[:2], shard_size=1))
    await until(lambda: shards(journal))
    change(journal, "UPDATE procrastinate_jobs SET attempts = 50")
    async with make_client(base_url="http://127.0.0.1:1") as client:
        async with workers(client=client) as reports:
            await until(lambda: shards(journal) == [("todo", 51)] * 2)
        assert reports[0].refusal is None
        assert not change(journal, "SELECT number FROM kling_async_outcomes").fetchall()
        waits = change(journal, "SELECT extract(epoch FROM scheduled_at - now()) FROM procrastinate_jobs")
        assert all(5 < wait <= 15 for (wait,) in waits)
        change(journal, "UPDATE kling_async_batches SET outage_began_at = outage_began_at - 3601")
        change(journal, "UPDATE procrastinate_jobs SET scheduled_at = NULL")
        async with workers(client=client), asyncio.timeout(40):
            batch = await call

    assert {result.state for result in batch} == {ResultState.NOT_SUBMITTED}
    assert {type(result.error) for result in batch} == {APIConnectionError}


async def test_a_batch_that_workers_make_again_is_in_no_outage(journal, kling_emulator, workers):
    call = asyncio.create_task(generate_many_on(journal, PROMPTS[:1]))
    await until(lambda: shards(journal))
    outage = "SELECT outage_began_at FROM kling_async_batches"
    change(journal, "UPDATE kling_async_batches SET outage_began_at = 1, outage_seen_at = 2")
    async with workers():
        assert (await call)[0].ok
        await until(lambda: not shards(journal))
    assert change(journal, outage).fetchone() == (None,)

    change(journal, "UPDATE kling_async_batches SET outage_began_at = 1, outage_seen_at = 2")
    await generate_many_on(journal, PROMPTS[:1])
    assert change(journal, outage).fetchone() == (None,)


async def test_a_lock_is_held_again_after_the_connection_broke(journal):
    first, second = WorkersDatabase.at(journal), WorkersDatabase.at(journal)
    async with open_shard_queue(first):
        assert await first.share_lock(WORKERS_LOCK)
        assert not await second.lock(WORKERS_LOCK)
        change(
            journal,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        with pytest.raises(JournalError):
            await first.query("SELECT 1")
        await first.query("SELECT 1")
        with pytest.raises(JournalError):
            await second.query("SELECT 1")

        assert await second.list_sharers(WORKERS_LOCK)
    await first.close()
    async with asyncio.timeout(20):
        while await second.list_sharers(WORKERS_LOCK):  # noqa: ASYNC110 - the server sees the end of a session later
            await asyncio.sleep(0.05)
    await second.close()
    await second.unlock("a lock that nothing has")
    await second.close()


def break_connections(journal):
    """End all sessions with the database, as a restart of the server does."""
    change(
        journal,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


async def test_a_lock_that_another_session_has_after_the_connection_broke_is_held_again_as_soon_as_it_is_free(
    journal,
):
    first = WorkersDatabase.at(journal)
    assert await first.lock("shard 1")
    assert await first.lock("shard 2")
    break_connections(journal)
    other = WorkersDatabase.at(journal)
    assert await other.lock("shard 1")
    assert await other.lock("shard 2")
    with pytest.raises(JournalError):
        await first.keep_locks()
    await first.keep_locks()

    await other.close()
    third = WorkersDatabase.at(journal)
    await first.unlock("shard 2")  # it is not wanted any more
    async with asyncio.timeout(20):
        while await third.lock("shard 1"):
            await third.unlock("shard 1")
            await first.keep_locks()
    assert await third.lock("shard 2")

    await first.unlock("shard 1")
    assert await third.lock("shard 1")
    await first.close()
    await third.close()


async def test_a_lock_that_is_taken_over_a_connection_that_is_made_again_is_freed_by_one_unlock(journal):
    first, second = WorkersDatabase.at(journal), WorkersDatabase.at(journal)
    assert await first.lock("shard 1")
    break_connections(journal)
    with pytest.raises(JournalError):
        await first.query("SELECT 1")

    assert await first.lock("shard 2")
    await first.unlock("shard 2")

    assert await second.lock("shard 2")
    assert not await second.lock("shard 1")
    await first.close()
    await second.close()


async def test_a_worker_hears_of_new_shards_again_after_the_server_restarts(
    journal, workers, postgres_server, caplog
):
    listening = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'"
    )
    async with workers():
        await until(lambda: change(journal, listening).fetchone() == (1,))
        await asyncio.to_thread(postgres_server.stop)
        await asyncio.sleep(
            0.2
        )  # within it the connection is refused, also where the server is started quickly
        await asyncio.to_thread(postgres_server.start)
        await until(lambda: change(journal, listening).fetchone() == (1,))

    assert not [record for record in caplog.records if record.exc_info]


async def test_a_worker_that_is_to_end_at_once_does_not_wait_for_a_database_that_is_away(
    journal, make_client, postgres_server, caplog
):
    async with make_client() as client, open_worker(journal, client) as (worker, app):
        taking = asyncio.create_task(worker.take_shards(app))
        await until(lambda: change(journal, "SELECT FROM procrastinate_workers").rowcount)
        await asyncio.to_thread(postgres_server.stop)
        try:
            await until(lambda: app.connector.pool.get_stats().get("requests_waiting"))
            taking.cancel()
            async with asyncio.timeout(20):
                await asyncio.wait({taking})
        finally:
            await asyncio.to_thread(postgres_server.start)
    assert taking.cancelled()
    assert "process tries again" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


async def test_the_first_shard_after_a_restart_is_run_at_once(journal, kling_emulator, make_client):
    await give_out(journal, PROMPTS[:1])
    async with make_client() as client, open_worker(journal, client) as (worker, app):
        worker.until_idle = True
        break_connections(journal)
        assert await worker._work_on_queue(app)

    assert (worker.report().shards, worker.report().shards_given_back) == (1, 0)


async def test_the_heartbeat_of_a_worker_that_an_outage_has_ended_costs_it_no_shard(
    journal, kling_emulator, workers, caplog
):
    count = "SELECT count(*) FROM procrastinate_workers"
    async with workers():
        await until(lambda: change(journal, count).fetchone() == (1,))
        change(journal, "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
        async with workers(2):
            await until(lambda: change(journal, count).fetchone() == (3,))
            batch = await generate_many_on(journal, PROMPTS[:1])

    assert batch[0].ok
    assert "process tries again" not in caplog.text


async def test_the_log_of_a_worker_has_no_traceback_of_an_outage_and_those_of_other_workers_stay(caplog):
    caplog.set_level("DEBUG", "kling_async")
    names = ("utils", "worker", "worker.mine")

    error = ConnectorException()
    error.__cause__ = OSError("refused")

    def log_outage():
        for name in names:
            logging.getLogger(f"procrastinate.{name}").error("a poll has failed", exc_info=error)

    with hide_worker_log("mine"):
        log_outage()
        logging.getLogger("procrastinate.worker").error("an error without a cause")
        others = contextvars.Context().run(asyncio.create_task, asyncio.to_thread(log_outage))
        await others
    log_outage()

    told = [(record.name, bool(record.exc_info), record.getMessage()) for record in caplog.records]
    shown = [(f"procrastinate.{name}", True, "a poll has failed") for name in names]
    hidden = [("kling_async", False, "Procrastinate: a poll has failed: refused")] * 3
    assert told == [
        *hidden,
        ("procrastinate.worker", False, "an error without a cause"),
        *shown,
        *shown,
    ]


async def test_a_listener_that_is_cancelled_while_its_connection_breaks_ends(journal, monkeypatch):
    """The error of the connection then comes in the place of the cancellation."""
    async with open_shard_queue(database := WorkersDatabase.at(journal)) as app:
        is_listening = asyncio.Event()

        async def break_when_cancelled(*_):
            is_listening.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                raise ConnectorException from None

        monkeypatch.setattr("procrastinate.PsycopgConnector.listen_notify", break_when_cancelled)
        listener = asyncio.create_task(app.job_manager.listen_for_jobs(on_notification=lambda **_: None))
        await is_listening.wait()
        listener.cancel()
        await asyncio.wait({listener}, timeout=1)
        assert listener.cancelled()
    await database.close()


@pytest.mark.parametrize("end", ["finish", "give back"])
async def test_a_shard_whose_end_cannot_be_written_is_given_back_by_the_next_looks(journal, make_client, end):
    await give_out(journal)
    async with make_client() as client, open_worker(journal, client) as (worker, app):
        shard = await take_shard(app)
        change(journal, "ALTER TABLE procrastinate_jobs RENAME TO hidden")
        if end == "finish":
            await app.job_manager.finish_job(shard, Status.SUCCEEDED, delete_job=True)
        else:
            await app.job_manager.retry_job(job=shard)
        change(journal, "ALTER TABLE hidden RENAME TO procrastinate_jobs")
        assert shards(journal) == [("doing", 0)]

        for _ in range(2):
            await worker.give_back_dead_shards(app)
        assert shards(journal) == [("todo", 1)]
        await app.job_manager.finish_job(await take_shard(app), Status.SUCCEEDED, delete_job=True)
        assert shards(journal) == []


async def test_each_session_that_can_hold_a_lock_ends_on_both_sides_when_the_network_is_cut(journal):
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
    store = PostgresStore(journal_location(journal, name="journal"))
    database = WorkersDatabase.at(journal)
    async with open_shard_queue(database) as app:
        of_queue = await app.connector.pool.getconn()
        of_journal = [store._session._connection, store._database._connection]
        of_workers = [await connect(database.url), await database._connect(), of_queue]
        for connections, seconds in ((of_journal, 30), (of_workers, 18)):
            for connection in connections:
                shown = [connection.pgconn.exec_(f"SHOW {name}".encode()) for name in names]
                settings = [int(answer.get_value(0, 0)) for answer in shown]
                idle, interval = seconds // 3, seconds // 6
                assert settings == [idle, interval, 4, seconds * 1000]
                client = connection.info.get_parameters()
                assert client["keepalives_idle"] == str(idle)
                assert client["tcp_user_timeout"] == str(seconds * 1000)
                assert idle + 4 * interval == seconds
        await app.connector.pool.putconn(of_queue)
        await of_workers[0].close()
    await database.close()
    store.close()


async def test_a_connection_that_breaks_at_its_beginning_is_closed(journal, monkeypatch):
    monkeypatch.setattr("kling_async._journal.postgres.connection._PROBES", -4)  # the server refuses that
    with pytest.raises(JournalError, match="outside the valid range"):
        await WorkersDatabase.at(f"{journal}?keepalives=0").query("SELECT 1")
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kling_async' AND datname = current_database()"
    await until(lambda: change(journal, count).fetchone() == (0,))


async def test_a_throttled_service_is_no_reason_to_end(journal, kling_emulator, workers):
    kling_emulator.faults.add(Fault("submit", Reply(429, {"error": "slow"}, headers={"Retry-After": "0"})))

    async with workers():
        batch = await generate_many_on(journal, PROMPTS[:2])

    assert len(batch.succeeded) == 2


def test_without_procrastinate_the_extra_is_named():
    program = "import sys; sys.modules['procrastinate'] = None; import kling_async.distributed"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603

    assert 'needs procrastinate: pip install ".[distributed]" in a checkout' in done.stderr.splitlines()[-1]


def test_the_package_imports_nothing_of_procrastinate():
    program = "import sys, kling_async; print([n for n in sys.modules if n.startswith(('procrastinate', 'psycopg'))])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603

    assert done.stdout == "[]\n"


def test_the_task_has_a_name_that_does_not_change():
    """A worker of one release takes the shards of another."""
    assert TASK == "kling_async.run_shard"
