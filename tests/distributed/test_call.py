"""The caller of a distributed batch, where shards, outcomes, events or the database go wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import psycopg
import pytest
from procrastinate.jobs import Status
from shared_batches import change, shards, until

from kling_async import (
    AuthenticationError,
    BatchInterruptedError,
    ConfigurationError,
    JournalError,
    KlingError,
    ResultState,
)
from kling_async._distributed.batch_record import BatchRecord, find_batch
from kling_async._distributed.call import DistributedBatch
from kling_async._distributed.database import WorkersDatabase
from kling_async._distributed.input import read_items, register_items
from kling_async._distributed.reports import Reporter, channel_of, listen
from kling_async._distributed.shard_cover import ShardCover
from kling_async._distributed.shard_queue import TASK, WORKERS_LOCK, list_unfinished_shards, open_shard_queue
from kling_async._engine.clock import Clock
from kling_async.distributed import _wait, generate_many_on
from kling_async.events import Downloaded, Finished, NotSubmitted, Resumed, Submitted, Throttled
from kling_async.jobs import Job, JobStatus
from kling_async.progress import ProgressCounts

PROMPTS = [f"A comet over hill number {number}" for number in range(4)]
MADE = {"state": "succeeded", "request_id": "j1", "path": "/v/a.mp4", "error": None}


@asynccontextmanager
async def open_batch(
    url, prompts=PROMPTS, notify=lambda _: None, output=None, *, retry_failed=False, **options
):
    """A batch as `generate_many_on` makes it, before anything is given out."""
    database = WorkersDatabase.at(url)
    try:
        async with open_shard_queue(database) as app:
            items, _ = await read_items(prompts, {})
            given = await register_items(database, items, output=output, retry_failed=retry_failed)
            number = await find_batch(database, options)
            shards = ShardCover(app=app, database=database, batch=number, awaited=given.awaited, shard_size=2)
            yield DistributedBatch(
                database=database,
                number=number,
                awaited=given.awaited,
                shards=shards,
                notify=notify,
                clock=Clock(),
            )
    finally:
        await database.close()


async def shards_of(batch, *states):
    jobs = await batch.shards.app.job_manager.list_jobs_async(task=TASK)
    return [job.id for job in jobs if job.status in (states or {"todo"})]


async def lose_shards(batch):
    """Let the shards end as a mistake of the worker does."""
    await batch.database.query("UPDATE procrastinate_jobs SET status = 'failed' WHERE status = 'todo'")


async def write_outcome(batch, number, outcome):
    await batch.database.query(
        "INSERT INTO kling_async_outcomes (batch, number, outcome) VALUES (%s, %s, %s)",
        batch.number,
        number,
        json.dumps(outcome),
    )


async def test_two_calls_with_the_same_items_give_them_out_once(journal):
    async with open_batch(journal) as first, open_batch(journal) as second:
        await first.begin()
        await second.begin()

        assert first.number == second.number
        assert len(await shards_of(first)) == 2


async def test_calls_with_other_options_are_batches_of_their_own(journal):
    async with open_batch(journal) as batch:
        assert await find_batch(batch.database, {"max_concurrency": 3}) != batch.number


async def test_an_item_whose_shard_has_gone_is_given_out_again_a_few_times(journal):
    async with open_batch(journal) as batch:
        await batch.begin()
        for _ in range(4):
            await lose_shards(batch)
            await batch.cover()
            assert len(await shards_of(batch)) == 2
        await lose_shards(batch)
        await write_outcome(batch, min(batch.awaited), MADE)

        await batch.cover()

        assert await shards_of(batch) == []
        assert batch.outcomes.keys() == {min(batch.awaited)}
        assert len(batch.given_up) == 3
        batch.outcomes.clear()
        batch.given_up |= dict.fromkeys(batch.awaited, KlingError("given up"))
        assert {result.state for result in await batch.collect()} == {ResultState.NOT_SUBMITTED}


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "how",
    [
        "UPDATE procrastinate_jobs SET status = 'cancelled'",
        "UPDATE procrastinate_jobs SET status = 'aborted'",
        "UPDATE procrastinate_jobs SET status = 'failed', abort_requested = true",
    ],
)
async def test_a_shard_that_another_call_has_withdrawn_is_given_out_again_without_limit(journal, how):
    async with open_batch(journal) as batch, open_batch(journal) as other:
        await other.begin()
        await batch.begin()
        for _ in range(8):
            change(journal, how)
            await batch.cover()

        assert not batch.given_up
        assert len(await shards_of(batch)) == 2


async def test_a_shard_that_is_gone_from_the_table_counts(journal):
    async with open_batch(journal) as batch:
        await batch.begin()
        for _ in range(5):
            change(journal, "DELETE FROM procrastinate_jobs")
            await batch.cover()

        assert batch.given_up.keys() == batch.awaited.keys()
        assert await shards_of(batch) == []


@pytest.mark.parametrize("table", ["procrastinate_jobs", "procrastinate_events"])
async def test_a_lost_shard_counts_once_if_its_items_cannot_be_given_out_again(journal, table):
    """A new shard writes the first table as it is put into the queue, and the second one's trigger fails at the commit."""
    async with open_batch(journal) as batch:
        await batch.begin()
        await lose_shards(batch)
        change(
            journal,
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'cut'; END $$;"
            f"CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON {table} DEFERRABLE INITIALLY"
            f" {'DEFERRED' if table.endswith('events') else 'IMMEDIATE'} FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        for _ in range(7):
            with pytest.raises(JournalError, match="cut"):
                await batch.cover()
        change(journal, "DROP FUNCTION fail CASCADE")
        await batch.cover()

        assert not batch.given_up
        assert {awaited.shards_without_outcome for awaited in batch.awaited.values()} == {1}
        assert len(await shards_of(batch)) == 2


async def test_an_outcome_that_the_journal_never_has_is_not_given_out_without_limit(journal):
    async with open_batch(journal, PROMPTS[:1]) as batch, asyncio.timeout(40):
        await batch.begin()
        call = asyncio.create_task(batch.collect())
        for _ in range(5):
            await until(lambda: ("todo", 0) in shards(journal))
            change(journal, "UPDATE procrastinate_jobs SET status = 'failed'")
            await write_later(journal, batch)
        (result,) = await call

    assert result.state is ResultState.NOT_SUBMITTED
    assert "5 shards with this item" in result.error.message


async def test_a_call_whose_shards_have_gone_is_finished_all_the_same(journal, kling_emulator, workers):
    async with open_batch(journal) as batch:
        batch.cover_interval = 0.0
        await batch.begin()
        await lose_shards(batch)
        async with workers(), asyncio.timeout(40):
            results = await batch.collect()

    assert [result.state for result in results] == [ResultState.SUCCEEDED] * 4
    assert len(kling_emulator.stats.accepted) == 4


@pytest.mark.parametrize("outcome", [[], 3, {"state": "done"}])
async def test_an_outcome_that_another_program_has_changed_is_written_again_and_nothing_is_bought_twice(
    journal, kling_emulator, workers, outcome
):
    async with open_batch(journal) as batch:
        await batch.begin()
        async with workers(), asyncio.timeout(60):
            await until(lambda: len(kling_emulator.stats.accepted) == 4 and not shards(journal))
        change(journal, f"UPDATE kling_async_outcomes SET outcome = '{json.dumps(outcome)}'")  # noqa: S608 - our own
        batch.cover_interval = 0.0
        async with workers(), asyncio.timeout(60):
            results = await batch.collect()

    assert [result.state for result in results] == [ResultState.SUCCEEDED] * 4
    assert len(kling_emulator.stats.accepted) == 4


async def test_a_call_with_a_row_that_another_program_has_changed_ends(
    journal, kling_emulator, workers, caplog
):
    async with open_batch(journal) as batch:
        batch.cover_interval = 0.0
        await batch.begin()
        change(journal, "UPDATE kling_async_entries SET state = 'odd' WHERE number = 1")
        async with workers(), asyncio.timeout(60):
            with pytest.raises(JournalError, match="Entry 1 of the journal cannot be read"):
                await batch.collect()
            await until(lambda: "The shard fails." in caplog.text)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_call_withdraws_its_own_items_and_no_others(journal):
    async with open_batch(journal) as batch, open_batch(journal, PROMPTS[:1], max_concurrency=3) as other:
        await batch.begin()
        await other.begin()

        await batch.shards.withdraw()

        assert len(await shards_of(batch)) == 1
        assert len(await shards_of(batch, "cancelled")) == 2


async def test_all_shards_of_a_call_are_withdrawn_in_one_transaction(journal):
    async with open_batch(journal, [f"Comet {number}" for number in range(40)]) as batch:
        await batch.begin()
        running = (await shards_of(batch))[7:9]
        await batch.database.query(
            "UPDATE procrastinate_jobs SET status = 'doing' WHERE id = ANY(%s)", running
        )

        await batch.shards.withdraw()

        rows = change(
            journal,
            "SELECT count(DISTINCT xmin::text), count(*), bool_and(abort_requested) FROM procrastinate_jobs",
        )
        assert rows.fetchone() == (1, 20, True)
        assert await shards_of(batch, "doing") == running


@pytest.mark.parametrize(
    "how", ["ALTER TABLE procrastinate_jobs RENAME TO away", "DROP FUNCTION procrastinate_cancel_job_v1"]
)
async def test_a_database_that_refuses_to_withdraw_a_shard_leaves_the_end_of_the_call_as_it_is(journal, how):
    async with open_batch(journal) as batch:
        await batch.begin()
        change(journal, how)

        assert not await batch.shards.withdraw()

        assert not batch.given_up


@pytest.mark.parametrize("deadlocks, is_withdrawn", [(2, True), (3, False)])
async def test_a_withdrawal_that_the_server_ends_for_another_transaction_is_tried_again(
    journal, deadlocks, is_withdrawn
):
    async with open_batch(journal) as batch:
        await batch.begin()
        change(
            journal,
            f"""
            CREATE SEQUENCE tries;  -- its next value stays also if the transaction is rolled back
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('tries') <= {deadlocks} THEN RAISE deadlock_detected; END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER refuse BEFORE UPDATE ON procrastinate_jobs FOR EACH STATEMENT EXECUTE FUNCTION refuse();
            """,
        )

        assert await batch.shards.withdraw() is is_withdrawn

        assert bool(await shards_of(batch)) is not is_withdrawn


async def test_a_caller_that_stands_still_while_it_gives_shards_out_does_not_stop_the_others(
    journal, monkeypatch
):
    monkeypatch.setattr("kling_async._distributed.database._MAX_PAUSE", 1)
    stopped = WorkersDatabase.at(journal)
    async with open_batch(journal) as batch, asyncio.timeout(30):
        with pytest.raises(JournalError, match="idle-in-transaction timeout"):
            async with stopped.transaction() as connection:
                await connection.execute("SELECT pg_advisory_xact_lock(hashtext('kling_async enqueue'))")
                await batch.begin()
        assert len(await shards_of(batch)) == 2
    await stopped.close()


async def test_a_caller_that_stands_still_while_it_makes_the_tables_holds_up_none_that_has_them(
    new_journal, monkeypatch
):
    monkeypatch.setattr("kling_async._distributed.database._MAX_LOCK_WAIT", 1)
    with psycopg.connect(new_journal, autocommit=True) as stopped:
        lock = "(hashtext('kling_async ' || current_schema() || 'schema'))"
        stopped.execute(f"SELECT pg_advisory_lock{lock}")
        with pytest.raises(JournalError, match=r"lock timeout\): continue or end the process"):
            await generate_many_on(new_journal, [])
        stopped.execute(f"SELECT pg_advisory_unlock{lock}")
        await generate_many_on(new_journal, [])
        stopped.execute(f"SELECT pg_advisory_lock{lock}")

        assert len(await generate_many_on(new_journal, [])) == 0


async def test_two_calls_that_begin_together_in_a_new_database_make_the_tables_once(new_journal):
    lock = "(hashtext('kling_async ' || current_schema() || 'schema'))"
    change(new_journal, f"SELECT pg_advisory_lock{lock}")
    calls = [asyncio.create_task(generate_many_on(new_journal, [])) for _ in range(2)]
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    await until(lambda: change(new_journal, blocked).fetchone() == (2,))
    change(new_journal, f"SELECT pg_advisory_unlock{lock}")

    assert [len(batch) for batch in await asyncio.gather(*calls)] == [0, 0]
    assert change(new_journal, "SELECT version FROM kling_async_tables").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "limit", ["idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout"]
)
async def test_no_connection_of_a_call_waits_without_an_end(journal, limit):
    async with open_batch(journal) as batch:
        row = await batch.shards.app.connector.execute_query_one_async(f"SHOW {limit}")
        assert row[limit] not in ("0", None)
        assert await batch.database.query(f"SHOW {limit}") == [(row[limit],)]


async def test_shards_that_have_ended_are_not_read_again(journal):
    async with open_batch(journal) as batch:
        await batch.begin()
        waiting = await shards_of(batch)
        running = change(
            journal,
            "UPDATE procrastinate_jobs SET status = 'doing' WHERE id = (SELECT min(id) FROM procrastinate_jobs) RETURNING id",
        ).fetchone()[0]
        assert {job.id for job in await list_unfinished_shards(batch.shards.app)} == set(waiting)
        assert running in waiting

        await batch.shards.app.job_manager.finish_job_by_id_async(running, Status.FAILED, delete_job=False)
        await lose_shards(batch)
        assert await list_unfinished_shards(batch.shards.app) == []


async def test_nothing_is_given_out_again_that_a_shard_covers(journal):
    async with open_batch(journal) as batch:
        await batch.begin()
        await batch.cover()

        assert len(await shards_of(batch)) == 2


async def test_an_end_that_the_journal_does_not_have_is_no_end(journal, kling_emulator, workers):
    async with open_batch(journal, PROMPTS[:1]) as batch:
        await batch.begin()
        await lose_shards(batch)
        await write_outcome(batch, min(batch.awaited), MADE)
        async with workers(), asyncio.timeout(40):
            (result,) = await batch.collect()

    (job,) = kling_emulator.stats.accepted
    assert (result.state, result.job.request_id) == (ResultState.SUCCEEDED, job.request_id)


async def test_a_later_outcome_replaces_one_that_is_no_end_of_a_job(journal):
    unclear = {"type": "AmbiguousSubmitError", "message": "Unknown."}
    async with open_batch(journal, PROMPTS[:2]) as batch:
        await batch.begin()
        first, second = sorted(batch.awaited)

        async def read(number, outcome):
            await batch.database.query(
                "DELETE FROM kling_async_outcomes WHERE batch = %s AND number = %s", batch.number, number
            )
            await write_outcome(batch, number, outcome)
            await batch._read_new_outcomes()

        await read(first, {"state": "ambiguous", "request_id": None, "path": None, "error": unclear})
        await read(second, MADE)
        await read(first, MADE)
        await read(second, {"state": "ambiguous", "request_id": None, "path": None, "error": unclear})

    assert [batch.outcomes[number] for number in (first, second)] == [MADE, MADE]


async def test_an_end_whose_event_does_not_come_is_told_all_the_same_and_once(journal):
    heard = []
    async with open_batch(journal, PROMPTS[:2], heard.append) as batch:
        await batch.begin()
        first, second = sorted(batch.awaited)
        await write_outcome(batch, first, MADE)
        failed = {"type": "JobFailedError", "message": "no"}
        await write_outcome(
            batch, second, {"state": "failed", "request_id": "j2", "path": None, "error": failed}
        )
        async with asyncio.timeout(10):
            await batch.wait()

        assert [type(event) for event in heard] == [Finished, Downloaded, Finished]
        assert (heard[0].index, heard[0].request_id, heard[0].state) == (0, "j1", ResultState.SUCCEEDED)
        assert heard[2].error.message == "no"
        for late in tuple(heard):
            batch.hear(first if late.index == 0 else second, late)
        batch.hear(first, Throttled(1.0, delay=1.0, error=KlingError("slow")))
        assert [type(event) for event in heard[3:]] == [Throttled]
        assert [result.path and str(result.path) for result in batch.results_so_far()] == ["/v/a.mp4", None]


async def test_an_item_that_is_given_back_has_not_ended_for_the_caller(journal):
    heard = []
    async with open_batch(journal, PROMPTS[:1], heard.append) as batch:
        await batch.begin()
        (number,) = batch.awaited
        is_ready = anyio.Event()
        listener = asyncio.create_task(listen(batch.database, batch.number, batch.hear, is_ready=is_ready))
        await is_ready.wait()
        reporter, refused = Reporter(batch.database, batch.number, Clock()), KlingError("no way")
        reporter.relay(number, NotSubmitted(1.0, index=0, error=refused))
        for state in set(ResultState) - {ResultState.SUCCEEDED}:
            reporter.relay(number, Finished(1.0, index=0, state=state, error=refused))
        reporter.relay(number, Throttled(1.0, delay=1.0, error=KlingError("slow")))
        await reporter.flush()
        await until(lambda: heard)
        assert [type(event) for event in heard] == [Throttled]

        # Only the outcome says that an item is never submitted.
        error = {"type": "KlingError", "message": "no way"}
        await write_outcome(
            batch, number, {"state": "not_submitted", "request_id": None, "path": None, "error": error}
        )
        async with asyncio.timeout(10):
            await batch.wait()
        listener.cancel()
    assert [type(event) for event in heard[1:]] == [NotSubmitted, Finished]


async def test_a_video_that_a_worker_finds_saved_is_told_once(journal):
    heard = []
    async with open_batch(journal, PROMPTS[:1], heard.append) as batch:
        await batch.begin()
        (number,) = batch.awaited
        job = Job(request_id="j1", status=JobStatus.SUCCESS)
        batch.hear(number, Resumed(1.0, index=0, request_id="j1", job=job, path=Path("/v/a.mp4")))
        await write_outcome(batch, number, MADE)
        async with asyncio.timeout(10):
            await batch.wait()
        batch.hear(number, Resumed(1.0, index=0, request_id="j1", job=job))
    assert [type(event) for event in heard] == [Resumed, Finished]


async def test_a_second_call_counts_from_its_start_what_the_journal_has(journal, kling_emulator, workers):
    async with workers():
        await generate_many_on(journal, PROMPTS[:2])
    counts = ProgressCounts(total=3, saves=True)
    async with open_batch(journal, PROMPTS[:3], counts, output="/elsewhere") as batch:
        await batch.begin()
        assert (counts.ended, counts.succeeded, counts.waiting) == (2, 2, 1)
        assert len(batch.unfinished) == 3  # a worker has to look whether the videos are saved


async def test_a_call_without_a_worker_says_once_how_to_start_one(journal, caplog):
    async with open_batch(journal, PROMPTS[:1]) as batch:
        batch.worker_wait = 0.0
        await batch.begin()
        waiting = asyncio.create_task(batch.wait())
        await until(lambda: "No worker is on" in caplog.text)
        await asyncio.sleep(2.0)
        await write_later(journal, batch)
        await waiting
    (line,) = [record.getMessage() for record in caplog.records if "No worker" in record.getMessage()]
    name = batch.database.name
    assert line.endswith(f"start `kling-async worker --journal {name}`.")
    assert "s3cret" not in line


async def test_a_call_with_a_worker_says_nothing_of_workers(journal, kling_emulator, workers, caplog):
    async with open_batch(journal, PROMPTS[:1]) as batch, workers():
        batch.worker_wait = 0.0
        await batch.begin()
        async with asyncio.timeout(20):
            await batch.wait()
    assert "No worker" not in caplog.text


async def test_an_outcome_that_is_committed_after_a_later_one_is_read_all_the_same(journal):
    insert = "INSERT INTO kling_async_outcomes (batch, number, outcome) VALUES (%s, %s, %s)"
    async with open_batch(journal, PROMPTS[:2]) as batch, asyncio.timeout(20):
        await batch.begin()
        first, second = sorted(batch.awaited)
        with psycopg.connect(journal) as slow:
            slow.execute(insert, (batch.number, first, json.dumps(MADE)))
            await write_outcome(batch, second, MADE)
            waiting = asyncio.create_task(batch.wait())
            await until(lambda: second in batch.outcomes)
            assert first not in batch.outcomes
            slow.commit()
        await waiting

    assert batch.outcomes.keys() == {first, second}


async def test_events_come_again_after_the_connection_for_them_broke(journal, postgres_server):
    heard = []
    async with open_batch(journal) as batch:
        listener = asyncio.create_task(
            listen(batch.database, batch.number, lambda *about: heard.append(about), is_ready=anyio.Event())
        )
        reporter = Reporter(batch.database, batch.number, Clock())

        async def send_until(count):
            async with asyncio.timeout(20):
                while len(heard) < count:
                    reporter.relay(7, Throttled(1.0, delay=1.0, error=KlingError("slow")))
                    await reporter.flush()
                    await asyncio.sleep(0.1)

        await send_until(1)
        ended = await batch.database.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        )
        assert ended
        await send_until(len(heard) + 1)
        listener.cancel()
    assert {number for number, _ in heard} == {7}
    assert channel_of(7) == "kling_async_batch_7"


@pytest.mark.parametrize("callers", [1, 2])
async def test_a_refused_worker_that_still_waits_for_its_jobs_ends_the_call_as_soon_as_it_is_gone(
    journal, callers
):
    worker = WorkersDatabase.at(journal)
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        batches = [await stack.enter_async_context(open_batch(journal)) for _ in range(callers)]
        assert await worker.share_lock(WORKERS_LOCK)
        for batch in batches:
            await batch.begin()
        record = BatchRecord(worker, batches[0].number)
        await record.record_refusal("w", AuthenticationError("401"), is_end=True)
        calls = [asyncio.create_task(batch.wait()) for batch in batches]
        await until(lambda: all(batch._last_refusal for batch in batches))
        for batch in batches:
            await batch._read_refusals()
            assert not batch.given_up

        await worker.close()
        await asyncio.gather(*calls)

        for batch in batches:
            assert {type(error) for error in batch.given_up.values()} == {AuthenticationError}
            assert not batch.unfinished


@pytest.mark.parametrize("code, is_outage", [("lock_not_available", True), ("insufficient_privilege", False)])
async def test_a_call_gives_no_item_up_whose_shard_it_cannot_take_back(journal, code, is_outage):
    async with open_batch(journal) as batch, asyncio.timeout(30):
        await batch.begin()
        change(
            journal,
            f"""
            CREATE SEQUENCE tries;
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('tries') <= 2 THEN RAISE {code}; END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER refuse BEFORE UPDATE ON procrastinate_jobs FOR EACH STATEMENT EXECUTE FUNCTION refuse();
            """,
        )
        record = BatchRecord(batch.database, batch.number)
        await record.record_refusal("w", AuthenticationError("401"), is_end=True)
        if is_outage:
            await batch.wait()
            assert batch.given_up.keys() == batch.awaited.keys()
            assert not await shards_of(batch)
        else:
            with pytest.raises(JournalError, match="insufficient_privilege"):
                await batch.wait()
            assert not batch.given_up


async def test_a_database_that_breaks_a_connection_is_ridden_out(journal, caplog):
    async with open_batch(journal, PROMPTS[:1]) as batch:
        await batch.begin()
        with psycopg.connect(journal, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await write_later(journal, batch)
        async with asyncio.timeout(20):
            await batch.wait()

    told = [record.getMessage() for record in caplog.records]
    assert [line.rpartition(": ")[2] for line in told if "could not be reached" in line] == [
        "this process tries again."
    ]
    assert len([line for line in told if "can be reached again" in line]) == 1
    assert not [record for record in caplog.records if record.name.startswith("psycopg")]


async def test_the_log_of_the_pool_of_the_queue_is_hidden_and_no_other(journal, caplog):
    log = logging.getLogger("psycopg.pool")
    async with open_batch(journal) as batch:
        pool = batch.shards.app.connector.pool.name
        log.warning("error connecting in %r: %s", pool, "down")
        log.warning("error connecting in %r: %s", "another pool", "down")
        log.warning("words")
    log.warning("error connecting in %r: %s", pool, "after the block")
    assert [record.getMessage() for record in caplog.records if record.name == log.name] == [
        "error connecting in 'another pool': down",
        "words",
        f"error connecting in {pool!r}: after the block",
    ]


async def write_later(journal, batch):
    with psycopg.connect(journal, autocommit=True) as other:
        other.execute(
            "INSERT INTO kling_async_outcomes (batch, number, outcome) VALUES (%s, %s, %s)",
            (batch.number, min(batch.awaited), json.dumps(MADE)),
        )


def waits_for_outcomes(connection):
    """Whether the call has given out its shards and read its outcomes again."""
    query = "SELECT FROM pg_stat_activity WHERE query LIKE '%FROM kling_async_refusals WHERE (batch%' AND pid <> pg_backend_pid()"
    return connection.execute(query).fetchone() is not None


async def test_a_database_that_refuses_interrupts_the_call_with_the_results_so_far(journal):
    call = asyncio.create_task(generate_many_on(journal, [*PROMPTS[:1], {"prompt": ""}], skip_invalid=True))
    with psycopg.connect(journal, autocommit=True) as other:
        await until(lambda: waits_for_outcomes(other))
        other.execute("DROP TABLE kling_async_outcomes")

    with pytest.raises(BatchInterruptedError, match="the same call gives all results then") as caught:
        await call

    assert [result.index for result in caught.value.batch] == [1]


@pytest.mark.parametrize("table", ["kling_async_refusals", "kling_async_outcomes"])
async def test_a_database_that_refuses_before_anything_is_given_out_says_nothing_of_workers(journal, table):
    async with open_batch(journal) as batch:
        change(journal, f"ALTER TABLE {table} RENAME TO away")

        with pytest.raises(BatchInterruptedError, match="Make the same call again: it gives out") as caught:
            await _wait(batch, [], detach=False)

        assert "workers continue" not in caught.value.message
        assert not await shards_of(batch)


async def test_entries_that_are_gone_interrupt_the_call(journal, kling_emulator, workers):
    async with open_batch(journal) as batch, workers():
        await batch.begin()
        await batch.wait()
        change(
            journal,
            "DELETE FROM kling_async_entries WHERE number = (SELECT min(number) FROM kling_async_entries)",
        )

        with pytest.raises(JournalError, match="has lost entries that it had before"):
            await batch.collect()


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM kling_async_entries WHERE number = (SELECT max(number) FROM kling_async_entries)",
        "DELETE FROM kling_async_entries",
        "TRUNCATE kling_async_entries CASCADE",
    ],
)
async def test_a_call_whose_entries_are_deleted_while_no_worker_ends_anything_ends_and_names_its_jobs(
    journal, loss, caplog
):
    async with open_batch(journal) as batch:
        batch.cover_interval = 0.0
        first, last = min(batch.awaited), max(batch.awaited)
        call = asyncio.create_task(_wait(batch, [], detach=False))
        await until(lambda: shards(journal))
        await write_outcome(batch, first, MADE)
        reporter = Reporter(batch.database, batch.number, Clock())
        job = Job(request_id="j2", status=JobStatus.PROCESSING)
        reporter.relay(last, Submitted(0.0, index=3, request_id="j2", job=job))
        await reporter.flush()
        await until(lambda: batch.job_ids == ["j1", "j2"])
        change(journal, loss)

        with pytest.raises(BatchInterruptedError, match="has lost entries that it had before") as caught:
            await call

        assert caught.value.message.endswith("Jobs of it that are charged: 2, which the log names.")
        assert [(result.index, result.state) for result in caught.value.batch] == [(0, ResultState.SUCCEEDED)]
        [note] = caught.value.__notes__
        assert note.startswith("Jobs of the batch that are charged: j1, j2. `await client.wait(...)`")
        assert note in caplog.text
        assert await shards_of(batch) == []


async def test_a_call_that_is_cancelled_while_it_takes_back_the_shards_of_lost_entries_logs_its_jobs(
    journal, caplog
):
    async with open_batch(journal) as batch, asyncio.timeout(20):
        batch.cover_interval = 0.0
        call = asyncio.create_task(_wait(batch, [], detach=False))
        await until(lambda: shards(journal))
        await write_outcome(batch, min(batch.awaited), MADE)
        await until(lambda: batch.job_ids == ["j1"])
        with psycopg.connect(journal) as other:
            other.execute("SELECT FROM procrastinate_jobs FOR UPDATE")
            change(journal, "DELETE FROM kling_async_entries")
            await until(lambda: is_blocked(journal))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    assert "Jobs of the batch that are charged: j1." in caplog.text


def is_blocked(journal):
    """Whether a transaction waits for another one."""
    return change(journal, "SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None


async def test_a_job_that_failed_before_the_call_is_none_of_its_jobs(journal):
    async with open_batch(journal, PROMPTS[:2]) as batch:
        assert batch.awaited.keys() == {1, 2}
    change(
        journal,
        "UPDATE kling_async_entries SET attempts = 1, request_id = 'j' || number,"
        " state = CASE number WHEN 1 THEN 'failed' ELSE 'submitted' END",
    )
    async with open_batch(journal, PROMPTS[:2], retry_failed=True) as batch:
        assert batch.awaited.keys() == {1, 2}
        assert batch.job_ids == ["j2"]


@pytest.mark.parametrize(
    "how", ["ALTER TABLE kling_async_entries RENAME TO away", "UPDATE kling_async_entries SET state = 'done'"]
)
async def test_a_cancelled_call_that_cannot_read_the_journal_names_the_jobs_that_it_has_heard_of(
    journal, caplog, how
):
    async with open_batch(journal) as batch:
        call = asyncio.create_task(_wait(batch, [], detach=False))
        await until(lambda: shards(journal))
        job = Job(request_id="j2", status=JobStatus.PROCESSING)
        batch.hear(max(batch.awaited), Submitted(0.0, index=3, request_id="j2", job=job))
        batch.hear(
            min(batch.awaited), Finished(0.0, index=0, request_id="j1", state=ResultState.FAILED, error=None)
        )
        change(journal, how)
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        assert (
            "left 1 job to run and to be charged (j2): make the same call again" in caught.value.__notes__[1]
        )
        assert caught.value.__notes__[1] in caplog.text


async def test_a_call_that_loses_its_entries_before_anything_is_sent_says_that_nothing_is_charged(journal):
    async with open_batch(journal) as batch:
        batch.cover_interval = 0.0
        call = asyncio.create_task(_wait(batch, [], detach=False))
        await until(lambda: shards(journal))
        change(journal, "DELETE FROM kling_async_entries")

        with pytest.raises(
            BatchInterruptedError, match="that are charged: none that this call knows of"
        ) as caught:
            await call

        assert not hasattr(caught.value, "__notes__")


async def test_a_database_that_refuses_ends_the_wait_for_workers(journal):
    async with open_batch(journal, PROMPTS[:1]) as batch:
        await batch.begin()
        with psycopg.connect(journal, autocommit=True) as other:
            other.execute("DROP TABLE kling_async_outcomes")

        with pytest.raises(JournalError, match="kling_async_outcomes"):
            await batch.wait()


async def test_a_queue_with_other_columns_is_one_sentence(journal):
    await generate_many_on(journal, [])
    with psycopg.connect(journal, autocommit=True) as other:
        other.execute("ALTER TABLE procrastinate_jobs RENAME COLUMN queue_name TO queue")

    with pytest.raises(KlingError, match="queue_name"):
        await generate_many_on(journal, PROMPTS)


async def test_a_queue_that_refuses_is_one_sentence(journal):
    async with open_batch(journal) as batch:
        with psycopg.connect(journal, autocommit=True) as other:
            other.execute("ALTER TABLE procrastinate_jobs RENAME TO procrastinate_jobs_of_others")

        with pytest.raises(KlingError, match="procrastinate_jobs"):
            await batch.begin()


async def test_tables_of_another_procrastinate_are_one_sentence(journal):
    await generate_many_on(journal, [])
    with psycopg.connect(journal, autocommit=True) as other:
        other.execute("DROP FUNCTION procrastinate_fetch_job_v2")

    with pytest.raises(ConfigurationError, match=r"Procrastinate in .* are of another version"):
        await generate_many_on(journal, PROMPTS)


async def test_a_user_who_may_make_no_tables_can_use_those_that_are_there(journal, postgres_server):
    await generate_many_on(journal, [])
    postgres_server.execute("DROP ROLE IF EXISTS worker")
    postgres_server.execute("CREATE ROLE worker LOGIN PASSWORD 'worker'")
    name = journal.rpartition("/")[2]
    with psycopg.connect(journal, autocommit=True) as other:
        for kind in ("TABLES", "SEQUENCES"):
            other.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO worker")

    assert len(await generate_many_on(postgres_server.url(name, user="worker", password="worker"), [])) == 0


async def test_a_user_who_may_make_no_tables_is_told_so(new_journal, postgres_server):
    postgres_server.execute("DROP ROLE IF EXISTS guest")
    postgres_server.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    name = new_journal.rpartition("/")[2]

    with pytest.raises(KlingError, match="permission denied for schema public"):
        await generate_many_on(postgres_server.url(name, user="guest", password="guest"), PROMPTS)
