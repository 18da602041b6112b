"""A shard that runs more than once for one call, because a worker died, was stopped, or gave it back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from shared_batches import change, until

from kling_async import PollingPolicy
from kling_async._distributed.batch_record import BatchRecord, find_batch
from kling_async._distributed.database import WorkersDatabase
from kling_async._distributed.input import read_items, register_items
from kling_async._distributed.reports import Reporter
from kling_async._distributed.run_shard import ShardRun, WorkerRefusedError
from kling_async._distributed.shard_queue import open_shard_queue
from kling_async._distributed.shards import dump_options
from kling_async._engine.clock import Clock
from kling_async.emulator import EmulatorSettings, Fault, JobScript, LogNormal, Reply
from kling_async.requests import VideoOptions

PROMPTS = ["A comet over a hill"]
NO_LIST = Fault("list", Reply(404, {"error": "no list"}), times=None)
LOST = Reply(502, {"error": "bad gateway"})


def every_job(**script):
    """A service whose jobs all run by this script."""
    return EmulatorSettings(time_scale=100.0, run_time=LogNormal(2.0), script=lambda *_: JobScript(**script))


@asynccontextmanager
async def open_shard(journal, client, *, retry_failed=False, **options):
    """Runs the shard of a call, each time as a worker does that takes the shard after another one."""
    database = WorkersDatabase.at(journal)
    try:
        async with open_shard_queue(database):
            items, _ = await read_items(PROMPTS, options)
            given = await register_items(database, items, output=None, retry_failed=retry_failed)
            batch = await find_batch(
                database, dump_options(options, video_fields=VideoOptions.__annotations__)
            )

            async def run_shard():
                run = ShardRun(
                    client=client,
                    database=database,
                    record=BatchRecord(database, batch),
                    reporter=Reporter(database, batch, Clock()),
                    is_stopping=lambda: False,
                )
                return await run.run([awaited.item for awaited in given.awaited.values()])

            yield run_shard
    finally:
        await database.close()


async def test_a_lost_submit_is_sent_again_once_in_all_runs_of_a_shard(journal, kling_emulator, make_client):
    kling_emulator.faults.add(NO_LIST, Fault("submit", LOST, times=None))
    async with make_client() as client:
        async with open_shard(journal, client, on_ambiguous="resend") as run_shard:
            await run_shard()
            assert kling_emulator.stats.requests["submit"] == 2
            await run_shard()
            await run_shard()
            assert kling_emulator.stats.requests["submit"] == 2

        async with open_shard(journal, client, on_ambiguous="resend") as run_shard:  # the same call again
            await run_shard()
            await run_shard()
            assert kling_emulator.stats.requests["submit"] == 3


async def test_a_lost_submit_of_an_earlier_run_of_the_shard_is_sent_again(
    journal, kling_emulator, make_client
):
    kling_emulator.faults.add(NO_LIST, Fault("submit", LOST, nth=1), Fault("submit", Reply(401, {}), nth=2))
    async with make_client() as client, open_shard(journal, client, on_ambiguous="resend") as run_shard:
        with pytest.raises(WorkerRefusedError):
            await run_shard()
        assert kling_emulator.stats.requests["submit"] == 2
        await run_shard()

    assert len(kling_emulator.stats.accepted) == 1


@pytest.mark.parametrize(
    "kling_emulator_settings",
    [every_job(ending="failed", error="rate limit exceeded(RPM)")],
    ids=["throttled"],
)
async def test_a_throttled_job_is_submitted_again_five_times_in_all_runs_of_a_shard(
    journal, kling_emulator, make_client
):
    async with make_client() as client, open_shard(journal, client) as run_shard:
        for posts in (2, 4):
            stopped = asyncio.create_task(run_shard())
            await until(lambda posts=posts: len(kling_emulator.stats.accepted) >= posts)
            stopped.cancel()
            await asyncio.wait({stopped})
        await run_shard()
        await run_shard()

    assert len(kling_emulator.stats.accepted) == 6


@pytest.mark.parametrize(
    "kling_emulator_settings", [every_job(ending="failed", error="policy")], ids=["failed"]
)
async def test_a_failed_job_is_retried_once_in_all_runs_of_a_shard(journal, kling_emulator, make_client):
    async with make_client() as client:
        for retry_failed, accepted in [(False, 1), (True, 2), (True, 3)]:
            async with open_shard(journal, client, retry_failed=retry_failed) as run_shard:
                for _ in range(3):
                    await run_shard()
                assert len(kling_emulator.stats.accepted) == accepted


def outcomes(journal):
    return change(journal, "SELECT count(*) FROM kling_async_outcomes").fetchone()[0]


@pytest.mark.parametrize("is_lost", [False, True], ids=["in flight", "lost"])
async def test_a_wrong_key_ends_no_item_that_was_sent(journal, kling_emulator, make_client, is_lost):
    refusal = Reply(401, {"error": "invalid key"})
    kling_emulator.faults.add(*[Fault(operation, refusal, times=None) for operation in ("status", "list")])
    kling_emulator.faults.add(*[Fault("submit", LOST)] * is_lost)
    polling = PollingPolicy(poll_interval=0.05, wait_timeout=1.0)
    async with make_client(polling=polling) as client, open_shard(journal, client) as run_shard:
        with pytest.raises(WorkerRefusedError, match="invalid key"):
            await run_shard()
        assert outcomes(journal) == 0


@pytest.mark.parametrize(
    "kling_emulator_settings", [every_job(ending="failed", error="policy")], ids=["failed"]
)
async def test_a_wrong_key_leaves_the_retry_of_a_failed_job_to_another_worker(
    journal, kling_emulator, make_client
):
    async with make_client() as client:
        async with open_shard(journal, client) as run_shard:
            await run_shard()
        change(journal, "DELETE FROM kling_async_outcomes")
        async with open_shard(journal, client, retry_failed=True) as run_shard:
            kling_emulator.faults.add(Fault("submit", Reply(401, {"error": "invalid key"})))
            with pytest.raises(WorkerRefusedError, match="invalid key"):
                await run_shard()

    assert outcomes(journal) == 0
