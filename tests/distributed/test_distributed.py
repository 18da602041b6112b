from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter
from decimal import Decimal
from functools import partial

import pytest
from fake_pooler import run_pooler
from independent_store import error as refuse
from shared_batches import SLOW, change, end, shards, until

from kling_async import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    JobFailedError,
    Journal,
    JournalError,
    PollingPolicy,
    ResultState,
    VideoRequest,
)
from kling_async._journal.open_journal import read_journal
from kling_async.distributed import generate_many_on, run_worker
from kling_async.emulator import EmulatorSettings, Fault, JobScript, LogNormal, Reply
from kling_async.events import Downloaded, Finished, Resumed, Submitted
from kling_async.history import ItemTimes
from kling_async.jobs import JobStatus

PROMPTS = [f"A comet over hill number {number}" for number in range(12)]
FIRST_FAILS = EmulatorSettings(
    time_scale=100.0,
    run_time=LogNormal(2.0),
    script=lambda number, _: JobScript(ending="failed", error="policy") if number == 1 else None,
)


def fail_first_prompt(error):
    """A service where the job of the first prompt fails at once, and the others run for minutes."""
    fails, runs = JobScript(ending="failed", error=error), JobScript(run_time=60_000.0)
    return EmulatorSettings(
        time_scale=100.0,
        run_time=LogNormal(2.0),
        script=lambda _, payload: fails if payload["prompt"] == PROMPTS[0] else runs,
    )


def posts(emulator):
    """By prompt, the accepted POSTs."""
    return Counter(job.payload["prompt"] for job in emulator.stats.accepted)


def tables(journal):
    return change(journal, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()[0]


@pytest.mark.unmeasured
async def test_workers_make_a_batch_and_the_caller_gets_its_results_in_input_order(
    journal, kling_emulator, workers, tmp_path
):
    events = []

    async with workers(2) as reports:
        batch = await generate_many_on(
            journal,
            [*PROMPTS, {"prompt": "A key", "key": "k", "duration": 10}, VideoRequest("A moon")],
            duration=5,
            max_concurrency=3,
            output=tmp_path,
            on_event=events.append,
        )

    assert [result.prompt for result in batch] == [*PROMPTS, "A key", "A moon"]
    assert [result.index for result in batch] == list(range(14))
    assert [result.request.duration for result in batch] == [5] * 12 + [10, 5]
    assert all(result.path.parent == tmp_path and result.path.exists() for result in batch)
    assert {job.request_id for job in kling_emulator.stats.accepted} == {
        result.job.request_id for result in batch
    }
    counts = Counter(map(type, events))
    assert (counts[Submitted], counts[Finished], counts[Downloaded]) == (14, 14, 14)
    assert batch.history.times_of(13).submits == 1
    assert sum(report.items for report in reports) == 14
    assert sum(report.shards for report in reports) == 5
    assert {report.refusal for report in reports} == {None}


async def test_two_calls_with_equal_options_at_the_same_time_hear_of_their_own_items_alone(
    journal, kling_emulator, workers
):
    shared, heard = "A kettle begins to sing", ([], [])
    given = ([*PROMPTS, shared], [shared, *(f"{prompt} at night" for prompt in PROMPTS[:3])])

    async with workers(2), asyncio.timeout(60):
        batches = await asyncio.gather(
            *(
                generate_many_on(journal, prompts, shard_size=2, on_event=events.append)
                for prompts, events in zip(given, heard, strict=True)
            )
        )

    assert len(posts(kling_emulator)) == len(PROMPTS) + 1 + 3
    for prompts, events, batch in zip(given, heard, batches, strict=True):
        assert [result.request.prompt for result in batch if result.ok] == prompts
        ids = {result.index: result.job.request_id for result in batch}
        finished = [event for event in events if isinstance(event, Finished)]
        assert sorted(event.index for event in finished) == list(range(len(prompts)))
        about = {(event.index, event.request_id) for event in events if event.request_id is not None}
        assert about == set(ids.items())
        assert batch.history.times_of(len(prompts)) == ItemTimes()
        assert all(batch.history.times_of(index).finished is not None for index in ids)


async def test_the_same_call_again_needs_no_worker_and_pays_for_nothing(
    journal, kling_emulator, workers, tmp_path
):
    async with workers():
        first = await generate_many_on(journal, PROMPTS[:3], output=tmp_path)
    events = []

    again = await generate_many_on(journal, PROMPTS[:3], output=tmp_path, on_event=events.append)

    assert [result.job.request_id for result in again] == [result.job.request_id for result in first]
    assert again.paths == first.paths
    assert [type(event) for event in events] == [Resumed, Finished] * 3
    assert len(kling_emulator.stats.accepted) == 3


async def test_a_call_with_more_prompts_sends_the_new_ones_alone(journal, kling_emulator, workers):
    async with workers():
        await generate_many_on(journal, PROMPTS[:2])
        batch = await generate_many_on(journal, [PROMPTS[2], *PROMPTS[:2]])

    assert posts(kling_emulator) == dict.fromkeys(PROMPTS[:3], 1)
    assert [result.prompt for result in batch] == [PROMPTS[2], *PROMPTS[:2]]


async def test_entries_of_the_journal_are_items_too(journal, kling_emulator, workers):
    call = asyncio.create_task(generate_many_on(journal, PROMPTS[:2]))
    await until(lambda: shards(journal))
    await end(call)
    entries = list(read_journal(journal))

    async with workers():
        batch = await generate_many_on(journal, [entries[1], entries[0], PROMPTS[2]])

    assert [result.prompt for result in batch] == [PROMPTS[1], PROMPTS[0], PROMPTS[2]]
    assert sum(posts(kling_emulator).values()) == 3
    for twice in ([entries[0], entries[0]], [PROMPTS[0], entries[0]]):
        with pytest.raises(ConfigurationError, match="in this batch already"):
            await generate_many_on(journal, twice)


async def test_entries_that_were_read_before_their_jobs_ended_are_taken_as_the_journal_has_them_now(
    journal, kling_emulator, workers
):
    old = (await Journal(journal).register(PROMPTS)).entries
    async with workers():
        await generate_many_on(journal, PROMPTS)

    async with asyncio.timeout(60):  # without a worker
        again = await generate_many_on(journal, old)
    assert [result.state for result in again] == [ResultState.SUCCEEDED] * len(PROMPTS)
    assert sum(posts(kling_emulator).values()) == len(PROMPTS)


async def test_an_entry_of_another_journal_is_refused(new_journal, tmp_path):
    other = await Journal(tmp_path / "other.db").register(PROMPTS[:1])
    before = tables(new_journal)

    with pytest.raises(ConfigurationError, match="is not in the journal of this batch") as caught:
        await generate_many_on(new_journal, [PROMPTS[1], *other.entries])

    assert caught.value.call == "generate_many_on"
    assert tables(new_journal) == before


async def test_an_option_that_would_change_an_entry_is_refused(journal):
    entries = (await Journal(journal).register(PROMPTS[:1], duration=5)).entries

    with pytest.raises(ConfigurationError, match="duration=10 cannot change item 0"):
        await generate_many_on(journal, entries, duration=10)


@pytest.mark.parametrize("kling_emulator_settings", [FIRST_FAILS], ids=["first fails"])
async def test_a_failed_job_is_reported_and_tried_again_once_where_that_is_asked_for(
    journal, kling_emulator, workers
):
    async with workers():
        batch = await generate_many_on(journal, PROMPTS[:1])
        reported = await generate_many_on(journal, PROMPTS[:1])
        again = await generate_many_on(journal, PROMPTS[:1], retry_failed=True)

    for result in (batch[0], reported[0]):
        assert (result.state, type(result.error)) == (ResultState.FAILED, JobFailedError)
    assert again[0].state is ResultState.SUCCEEDED
    assert posts(kling_emulator) == {PROMPTS[0]: 2}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("kling_emulator_settings", [fail_first_prompt("policy")], ids=["first fails"])
async def test_a_failed_job_whose_second_submit_is_refused_is_a_result_and_not_the_end_of_the_call(
    journal, kling_emulator, workers, status
):
    async with workers(), asyncio.timeout(60):
        await generate_many_on(journal, PROMPTS[:1])
        kling_emulator.faults.add(Fault("submit", Reply(status, {"error": "no such mode"}), times=None))
        batch = await generate_many_on(journal, PROMPTS[:1], retry_failed=True)

    assert (batch[0].state, type(batch[0].error)) == (ResultState.FAILED, JobFailedError)
    assert "it was not submitted again" in batch[0].error.message
    assert batch[0].job.status is JobStatus.FAILED
    assert kling_emulator.stats.requests["submit"] == 2


@pytest.mark.parametrize(
    "kling_emulator_settings, retry_failed",
    [(fail_first_prompt("rate limit exceeded (RPM)"), False), (fail_first_prompt("policy"), True)],
    ids=["rate limit", "retry_failed"],
)
async def test_a_call_that_is_cancelled_before_a_failed_job_is_submitted_again_is_cancelled_and_names_the_others(
    journal, kling_emulator, workers, retry_failed
):
    def states():
        return [entry.state for entry in read_journal(journal)] if shards(journal) else []

    throttled = Reply(429, {"error": "slow down"}, headers={"Retry-After": "600"})
    kling_emulator.faults.add(Fault("submit", throttled, nth=3, times=None))
    make = partial(generate_many_on, journal, PROMPTS[:2], shard_size=1)
    async with workers(2, grace=0.0):
        if retry_failed:
            call = asyncio.create_task(make(detach=True))
            await until(lambda: states() == ["failed", "submitted"])
            await end(call)
        call = asyncio.create_task(make(retry_failed=retry_failed))
        await until(
            lambda: kling_emulator.stats.requests["submit"] == 3 and states() == ["submitted", "submitted"]
        )
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call

    [running] = [job for job in kling_emulator.stats.accepted if job.payload["prompt"] == PROMPTS[1]]
    assert f"left 1 job to run and to be charged ({running.request_id})" in caught.value.__notes__[1]


async def test_invalid_items_are_found_before_anything_is_written(new_journal):
    before = tables(new_journal)

    with pytest.raises(InvalidRequestError, match="1 of 2 requests are invalid") as caught:
        await generate_many_on(new_journal, [PROMPTS[0], {"prompt": "A", "duration": 7}])

    assert caught.value.call == "generate_many_on"
    assert tables(new_journal) == before


async def test_a_picture_that_cannot_be_read_is_found_before_any_item_is_written(new_journal, tmp_path):
    (tmp_path / "lost.png").symlink_to("/proc/self/mem")  # a file that is there and cannot be read

    with pytest.raises(InvalidRequestError, match=r"item 1: .*lost\.png' cannot be read") as caught:
        await generate_many_on(new_journal, [PROMPTS[0], VideoRequest("A", image=tmp_path / "lost.png")])

    assert caught.value.advice == "skip_invalid=True leaves them out."
    assert not Journal(new_journal).exists()


async def test_a_picture_that_is_removed_after_the_check_is_found_before_any_item_is_written(
    new_journal, tmp_path
):
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for picture in pictures:
        picture.write_bytes(b"a picture")

    async def remove():
        pictures[1].unlink()

    removal = asyncio.create_task(remove())  # runs while the first picture is read in a thread
    with pytest.raises(InvalidRequestError, match=r"^generate_many_on\(\): Item 1: .*b\.png") as caught:
        await generate_many_on(new_journal, [VideoRequest("A", image=picture) for picture in pictures])
    await removal

    assert caught.value.advice == "skip_invalid=True leaves it out."
    assert not Journal(new_journal).exists()


@pytest.mark.parametrize("target", ["/proc/self/mem", "empty.png"], ids=["unreadable", "empty"])
async def test_items_whose_picture_cannot_be_read_are_skipped_as_generate_many_skips_them(
    journal, workers, make_client, tmp_path, target
):
    (tmp_path / "empty.png").touch()
    (tmp_path / "lost.png").symlink_to(target)
    requests = [VideoRequest("A", image=tmp_path / "lost.png"), PROMPTS[0]]

    async with make_client() as client:
        here = await client.generate_many(iter(requests), skip_invalid=True)
    async with workers():
        there = await generate_many_on(journal, requests, skip_invalid=True)
        by_iterator = await generate_many_on(journal, iter(requests), skip_invalid=True)

    for batch in (here, there, by_iterator):
        assert [result.state for result in batch] == [ResultState.NOT_SUBMITTED, ResultState.SUCCEEDED]
        assert "lost.png" in batch[0].error.message
    assert [entry.payload["prompt"] for entry in read_journal(journal)] == [PROMPTS[0]]


async def test_invalid_items_that_are_skipped_are_results(journal, workers):
    async with workers():
        batch = await generate_many_on(
            journal, [{"prompt": "A", "duration": 7}, PROMPTS[0]], skip_invalid=True
        )

    assert [result.state for result in batch] == [ResultState.NOT_SUBMITTED, ResultState.SUCCEEDED]
    assert isinstance(batch[0].error, InvalidRequestError)


async def test_a_cap_holds_for_all_workers_together(journal, kling_emulator, workers):
    async with workers(2):
        batch = await generate_many_on(
            journal,
            PROMPTS,
            max_concurrency=2,
            max_cost_usd=Decimal("1.75"),
            prices={"kling-v2-6": Decimal("0.35")},
        )

    states = Counter(result.state for result in batch)
    assert states == {ResultState.SUCCEEDED: 5, ResultState.NOT_SUBMITTED: 7}
    assert batch.cost_usd == Decimal("1.75")
    assert "above the cap" in batch.failed[0].error.message


@pytest.mark.parametrize("kling_emulator_settings", [FIRST_FAILS], ids=["first fails"])
async def test_failures_are_raised_where_that_is_asked_for(journal, kling_emulator, workers):
    async with workers():
        with pytest.raises(ExceptionGroup, match="1 of 1 videos were not made"):
            await generate_many_on(journal, PROMPTS[:1], raise_on_failure=True)


async def test_a_worker_with_a_wrong_key_ends_and_the_others_make_the_batch(
    journal, kling_emulator, workers, caplog
):
    kling_emulator.faults.add(Fault("submit", Reply(401, {"error": "invalid key"})))

    async with workers(2) as reports:
        batch = await generate_many_on(journal, PROMPTS[:4], max_concurrency=1, shard_size=1)

    (refused,) = [report for report in reports if report.refusal is not None]
    assert isinstance(refused.refusal, AuthenticationError)
    assert refused.shards_given_back == 1
    assert [result.state for result in batch] == [ResultState.SUCCEEDED] * 4
    assert posts(kling_emulator) == dict.fromkeys(PROMPTS[:4], 1)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
async def test_a_storage_that_refuses_a_picture_ends_its_item_and_no_worker(
    journal, kling_emulator, workers, tmp_path, status
):
    (tmp_path / "a.png").write_bytes(b"a picture")
    kling_emulator.faults.add(Fault("store", Reply(status, "<Code>AccessDenied</Code>"), times=None))

    async with workers() as reports, asyncio.timeout(60):
        batch = await generate_many_on(
            journal, [VideoRequest("A", image=tmp_path / "a.png"), *PROMPTS[:3]], shard_size=2
        )

    assert [result.ok for result in batch] == [False, True, True, True]
    assert batch[0].state is ResultState.NOT_SUBMITTED
    assert f"the upload: it refused the request (HTTP {status}" in batch[0].error.message
    assert [report.refusal for report in reports] == [None]


async def test_a_batch_whose_last_worker_is_refused_ends_with_the_reason(
    journal, kling_emulator, workers, caplog
):
    kling_emulator.faults.add(Fault("submit", Reply(401, {"error": "invalid key"}), times=None))

    async with workers() as reports:
        batch = await generate_many_on(journal, PROMPTS[:3])

    assert [result.state for result in batch] == [ResultState.NOT_SUBMITTED] * 3
    assert {type(result.error) for result in batch} == {AuthenticationError}
    assert isinstance(reports[0].refusal, AuthenticationError)
    assert "ends: " in caplog.text
    assert not kling_emulator.stats.accepted


async def test_an_item_that_is_given_back_and_made_by_a_later_run_ends_once_for_its_caller(
    journal, kling_emulator, make_client, workers
):
    """The answer to its POST is lost, and the list that shows its job is away."""
    kling_emulator.faults.add(
        Fault("submit", Reply(502, {"error": "bad gateway"}, accepted=True)),
        Fault("list", Reply(502, {"error": "bad gateway"}), times=None),
    )
    events = []
    polling = PollingPolicy(poll_interval=0.05, wait_timeout=2.0)
    async with make_client(polling=polling) as client, asyncio.timeout(60):
        call = asyncio.create_task(generate_many_on(journal, PROMPTS[:1], on_event=events.append))
        async with workers(client=client):
            await until(lambda: shards(journal) == [("todo", 1)])
        assert not [event for event in events if isinstance(event, Finished)]
        kling_emulator.faults.clear()
        change(journal, "UPDATE procrastinate_jobs SET scheduled_at = NULL")
        async with workers(client=client):
            batch = await call

    assert batch[0].ok
    [end_of_item] = [event for event in events if isinstance(event, Finished)]
    assert (end_of_item.state, end_of_item.job.request_id) == (
        ResultState.SUCCEEDED,
        batch[0].job.request_id,
    )
    assert batch.history.times_of(0).finished == end_of_item.at


async def test_a_worker_that_stops_lets_jobs_end_and_gives_the_rest_to_others(
    journal, kling_emulator, workers
):
    call = asyncio.create_task(generate_many_on(journal, PROMPTS, max_concurrency=2, shard_size=12))
    async with workers() as reports:
        await until(lambda: len(kling_emulator.stats.accepted) >= 3)
    (first,) = reports
    begun = len(kling_emulator.stats.accepted)
    async with workers():
        batch = await call

    assert (first.shards, first.shards_given_back) == (0, 1)
    assert first.items == begun < 12
    assert {result.state for result in batch} == {ResultState.SUCCEEDED}
    assert posts(kling_emulator) == dict.fromkeys(PROMPTS, 1)


@pytest.mark.parametrize("kling_emulator_settings", [SLOW], ids=["slow"])
async def test_a_worker_waits_no_longer_than_the_grace_time(journal, kling_emulator, workers):
    call = asyncio.create_task(generate_many_on(journal, PROMPTS[:3], max_concurrency=2, shard_size=3))
    async with asyncio.timeout(10), workers(grace=0.1) as reports:
        await until(lambda: len(kling_emulator.stats.accepted) == 2)
    call.cancel()
    await asyncio.wait({call})

    assert (reports[0].items, reports[0].shards_given_back) == (0, 1)
    states = Counter(entry.state for entry in read_journal(journal))
    assert states == {"submitted": 2, "not_submitted": 1}


@pytest.mark.parametrize("kling_emulator_settings", [SLOW], ids=["slow"])
async def test_a_cancelled_worker_gives_its_shard_back_at_once(journal, kling_emulator, make_client):
    call = asyncio.create_task(generate_many_on(journal, PROMPTS[:2]))
    async with make_client() as client:
        worker = asyncio.create_task(run_worker(journal, client))
        await until(lambda: len(kling_emulator.stats.accepted) == 2)
        worker.cancel()
        async with asyncio.timeout(10):
            await asyncio.wait({worker})
    assert worker.cancelled()
    call.cancel()
    await asyncio.wait({call})
    assert shards(journal) == [("cancelled", 1)]


@pytest.mark.parametrize("kling_emulator_settings", [SLOW], ids=["slow"])
async def test_a_cancelled_call_takes_back_what_is_not_submitted_and_names_its_jobs(
    journal, kling_emulator, workers, caplog
):
    async with workers(grace=0.0) as reports:
        call = asyncio.create_task(generate_many_on(journal, PROMPTS, max_concurrency=2, shard_size=4))
        await until(lambda: len(kling_emulator.stats.accepted) == 2)
        await until(lambda: Counter(entry.state for entry in read_journal(journal))["submitted"] == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert len([frame for frame in frames if "kling_async" in frame.filename]) <= 2
        assert caught.value.__suppress_context__
        first, second = caught.value.__notes__
        assert first.startswith(
            "12 items have no result yet, and the workers submit no more of this call: make the same call"
        )
        assert "left 2 jobs to run and to be charged" in second
        assert all(job.request_id in second for job in kling_emulator.stats.accepted)
        assert second in caplog.text
        await until(lambda: {state for state, _ in shards(journal)} == {"aborted", "cancelled"})

    assert len(kling_emulator.stats.accepted) == 2
    assert (reports[0].shards, reports[0].items) == (0, 0)


async def test_a_detached_call_leaves_its_shards_to_the_workers(journal, kling_emulator, workers):
    call = asyncio.create_task(generate_many_on(journal, PROMPTS[:1], detach=True))
    await until(lambda: shards(journal))
    assert "1 item has no result yet, and the workers continue" in await end(call)

    async with workers():
        batch = await generate_many_on(journal, PROMPTS[:3])

    assert len(batch.succeeded) == 3
    assert posts(kling_emulator) == dict.fromkeys(PROMPTS[:3], 1)


async def test_a_worker_that_is_to_end_when_idle_ends(new_journal, make_client):
    async with make_client() as client, asyncio.timeout(10):
        report = await run_worker(new_journal, client, until_idle=True)

    assert (report.shards, report.items) == (0, 0)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"shard_size": 0}, "shard_size must be a whole number of at least 1, not 0"),
        ({"shard_size": "5"}, "shard_size must be"),
        ({"max_concurrency": 0}, "max_concurrency must be"),
        ({"prices": lambda _: Decimal(1)}, "cannot be sent to the workers"),
        ({"max_cost_usd": 1}, r"A cap needs the price of a video\. Give prices=.*\}, or prices='catalog'\.$"),
        ({"progress": "yes"}, "progress must be"),
        ({"output": "ftp://host/videos"}, "output="),
        ({"retry_failed": "false"}, "retry_failed must be True or False, not 'false'"),
        ({"detach": "no"}, "detach must be True or False"),
        ({"raise_on_failure": None}, "raise_on_failure must be True or False"),
    ],
)
async def test_an_option_that_makes_no_sense_is_refused_before_anything_is_written(
    new_journal, options, sentence
):
    before = tables(new_journal)

    with pytest.raises(ConfigurationError, match=sentence):
        await generate_many_on(new_journal, PROMPTS[:1], **options)

    assert tables(new_journal) == before


@pytest.mark.parametrize("name", ["journal", "promts"])
async def test_an_unknown_option_is_a_type_error(journal, name):
    with pytest.raises(
        TypeError, match=rf"generate_many_on\(\) (has no option '{name}'|got multiple values)"
    ):
        await generate_many_on(journal, PROMPTS, **{name: "run.db"})


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"concurrency": 0}, "concurrency must be a whole number of at least 1"),
        ({"concurrency": True}, "concurrency must be"),
        ({"grace": -1}, "grace must be a number of seconds"),
        ({"grace": "long"}, "grace must be"),
    ],
)
async def test_a_worker_option_that_makes_no_sense_is_refused(journal, make_client, options, sentence):
    async with make_client() as client:
        with pytest.raises(ConfigurationError, match=sentence):
            await run_worker(journal, client, **options)
    with pytest.raises(ConfigurationError, match="client"):
        await run_worker(journal, "client")


@pytest.mark.parametrize("given", ["run.db", "postgres:/host/database"])
async def test_a_journal_that_is_no_database_is_refused(given, make_client):
    with pytest.raises(ConfigurationError) as caught:
        await generate_many_on(given, PROMPTS)
    assert "postgresql://" in caught.value.message or "URL" in caught.value.message
    async with make_client() as client:
        with pytest.raises(ConfigurationError):
            await run_worker(given, client)


async def test_a_database_that_cannot_be_reached_is_one_sentence(make_client):
    url = "postgresql://me:secret@127.0.0.1:1/kling"

    with pytest.raises(JournalError) as caught:
        await generate_many_on(url, PROMPTS)
    async with make_client() as client:
        with pytest.raises(JournalError) as worker:
            await run_worker(url, client)

    for error in (caught.value, worker.value):
        assert "could not be reached" in error.message
        assert "secret" not in str(error)


async def test_a_pooler_is_refused_before_anything_is_made_there(new_journal, postgres_server, make_client):
    with run_pooler(postgres_server.port) as port:
        url = new_journal.replace(f":{postgres_server.port}/", f":{port}/")
        with pytest.raises(JournalError, match="is a pooler such as PgBouncer"):
            await generate_many_on(url, PROMPTS)
        async with make_client() as client:
            with pytest.raises(JournalError, match="is a pooler such as PgBouncer"):
                await run_worker(url, client)

    assert change(new_journal, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (
        0,
    )


async def test_tables_of_a_newer_release_are_refused(journal, workers):
    await generate_many_on(journal, [])
    change(journal, "UPDATE kling_async_tables SET version = 99")

    with pytest.raises(ConfigurationError, match="are of version 99"):
        await generate_many_on(journal, PROMPTS)


async def test_a_batch_of_a_newer_release_is_refused_by_this_worker(journal, kling_emulator, workers, caplog):
    async with workers() as reports:
        call = asyncio.create_task(generate_many_on(journal, PROMPTS[:1], detach=True))
        await until(lambda: kling_emulator.stats.accepted)
        await call
        change(journal, "UPDATE kling_async_batches SET version = 99")
        batch = await generate_many_on(journal, PROMPTS[1:2])

    assert "newer release" in batch[0].error.message
    assert reports[0].refusal is None


async def test_an_option_that_this_release_does_not_have_is_refused_by_the_worker(
    journal, kling_emulator, workers
):
    await generate_many_on(journal, [])
    change(journal, "UPDATE kling_async_batches SET options = '{\"new_option\": 1}'")

    async with workers() as reports:
        batch = await generate_many_on(journal, PROMPTS[:1])

    assert reports[0].refusal is None
    assert "new_option" in batch[0].error.message
    assert isinstance(batch[0].error, ConfigurationError)
    assert not kling_emulator.stats.accepted


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("kind", ["folder", "bucket"])
async def test_a_place_that_takes_no_videos_ends_its_own_call_and_no_other(
    journal, kling_emulator, workers, tmp_path, *, kind
):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "videos" if kind == "folder" else "s3://no-such-bucket/videos"

    async with workers() as reports, asyncio.timeout(50):
        bad = await generate_many_on(journal, PROMPTS[:3], output=place, shard_size=1)
        good = await generate_many_on(journal, PROMPTS[3:5], output=tmp_path)

    assert [result.state for result in bad] == [ResultState.NOT_SUBMITTED] * 3
    assert {type(result.error) for result in bad} == {ConfigurationError}
    assert len(good.succeeded) == 2
    assert reports[0].refusal is None
    assert posts(kling_emulator) == dict.fromkeys(PROMPTS[3:5], 1)


async def test_a_store_that_does_not_answer_is_waited_for(journal, kling_emulator, workers, store):
    store.faults.append(lambda _: refuse(503, "SlowDown"))
    call = asyncio.create_task(generate_many_on(journal, PROMPTS[:1], output="s3://videos/v"))
    async with asyncio.timeout(50):
        async with workers() as reports:
            await until(lambda: shards(journal) == [("todo", 1)])
        store.faults.clear()
        change(journal, "UPDATE procrastinate_jobs SET scheduled_at = NULL")
        async with workers():
            batch = await call

    assert len(batch.succeeded) == 1
    assert reports[0].shards_given_back == 1
    assert not change(journal, "SELECT id FROM kling_async_refusals").fetchall()


async def test_a_worker_that_is_refused_in_one_batch_ends_the_calls_of_others(
    journal, kling_emulator, workers
):
    kling_emulator.faults.add(Fault("submit", Reply(401, {"error": "invalid key"}), times=None))
    calls = [
        asyncio.create_task(generate_many_on(journal, PROMPTS[:1], max_concurrency=number))
        for number in (1, 2)
    ]
    await until(lambda: len(shards(journal)) == 2)

    async with workers() as reports, asyncio.timeout(50):
        batches = await asyncio.gather(*calls)

    assert {type(batch[0].error) for batch in batches} == {AuthenticationError}
    assert reports[0].shards_given_back == 1


async def test_a_worker_that_is_to_end_when_idle_ends_when_only_what_it_cannot_do_is_left(
    journal, make_client, tmp_path
):
    (tmp_path / "file").touch()
    call = asyncio.create_task(
        generate_many_on(journal, PROMPTS[:1], output=tmp_path / "file" / "videos", detach=True)
    )
    await until(lambda: shards(journal))
    await end(call)

    async with make_client() as client, asyncio.timeout(20):
        report = await run_worker(journal, client, until_idle=True)

    assert isinstance(report.refusal, ConfigurationError)
    assert (report.shards, report.shards_given_back) == (0, 1)


async def test_neither_the_database_nor_a_log_has_the_key(journal, workers, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)

    async with workers():
        await generate_many_on(journal, PROMPTS[:1], output=tmp_path)

    names = [
        name for (name,) in change(journal, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    rows = [row for name in names for row in change(journal, f"SELECT t::text FROM {name} t")]  # noqa: S608
    assert str(tmp_path) in str(rows)
    for text in (caplog.text, str(rows)):
        assert "any-key" not in text
        assert "s3cret-of-the-database" not in text


FIRST_FAILS_SECOND_IS_SLOW = EmulatorSettings(
    time_scale=100.0,
    run_time=LogNormal(2.0),
    script=lambda number, _: (
        JobScript(ending="failed", error="policy")
        if number == 1
        else JobScript(run_time=400.0 if number == 2 else 2.0)
    ),
)


@pytest.mark.parametrize("kling_emulator_settings", [FIRST_FAILS_SECOND_IS_SLOW], ids=["first fails"])
async def test_a_retry_does_not_wait_for_the_shard_of_an_earlier_call(journal, kling_emulator, workers):
    options = {"max_concurrency": 1, "shard_size": 2}
    async with workers(concurrency=2):
        call = asyncio.create_task(generate_many_on(journal, PROMPTS[:2], detach=True, **options))
        await until(lambda: len(kling_emulator.stats.accepted) == 2)
        await until(lambda: change(journal, "SELECT count(*) FROM kling_async_outcomes").fetchone() == (1,))
        await end(call)
        assert shards(journal) == [("doing", 0)]

        batch = await generate_many_on(journal, PROMPTS[:2], retry_failed=True, **options)

    assert [result.state for result in batch] == [ResultState.SUCCEEDED] * 2
    assert posts(kling_emulator) == {PROMPTS[0]: 2, PROMPTS[1]: 1}
