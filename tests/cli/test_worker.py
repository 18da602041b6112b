from __future__ import annotations

import asyncio
import signal

import pytest
from shared_batches import change, end, shards, until

from kling_async.distributed import generate_many_on
from kling_async.emulator import Fault, Reply
from tests.cli.conftest import wait_until

pytestmark = pytest.mark.usefixtures("tiny_films")
PROMPTS = ["A comet over a hill", "A moon over a lake", "A star over a house"]


@pytest.fixture
def give_out(database):
    """Leaves shards for workers, as a caller does that was killed."""

    async def call():
        running = asyncio.create_task(generate_many_on(database, PROMPTS, detach=True))
        await until(lambda: shards(database))
        await end(running)

    def give_out():
        asyncio.run(call())

    return give_out


def test_a_worker_makes_what_was_given_out_and_ends_when_idle(cli, serve, database, give_out):
    emulator = serve()
    give_out()

    done = cli("worker", "--journal", database, "--until-idle")

    assert (done.status, done.out) == (0, "")
    assert done.err.splitlines() == [
        "The worker waits for shards (Ctrl-C stops it)",
        "3 items ended, 1 shard done",
    ]
    assert len(emulator.stats.accepted) == 3


def test_status_and_resume_work_on_a_batch_of_workers_and_its_shards_buy_nothing_more(
    cli, serve, database, give_out, home
):
    emulator = serve()
    give_out()

    before = cli("status", database)
    resumed = cli("resume", database, "--out", "videos", "--quiet")
    late = cli("worker", "--journal", database, "--until-idle")
    batch = asyncio.run(generate_many_on(database, PROMPTS))

    assert "3 not submitted" in before.err
    assert resumed.status == 0
    assert "3 items ended, 1 shard done" in late.err
    assert len(batch.succeeded) == len(emulator.stats.accepted) == 3


def test_a_worker_with_json_prints_what_it_did(cli, serve, database, give_out):
    serve()
    give_out()

    done = cli("worker", "--journal", database, "--until-idle", "--json", "--quiet")

    assert done.err == ""
    assert done.records == [{"shards": 1, "items": 3, "shards_given_back": 0, "refusal": None}]


def test_a_worker_that_is_refused_gives_its_shard_back_and_fails(cli, serve, database, give_out):
    emulator = serve()
    emulator.faults.add(Fault("submit", Reply(401, {"error": "invalid key"}), times=None))
    give_out()

    done = cli("worker", "--journal", database)

    assert done.status == 1
    assert done.err.splitlines()[1:] == [
        "0 items ended, 0 shards done; 1 given back",
        "kling-async worker: the submit: the API key was not accepted; check GMI_API_KEY (HTTP 401: invalid key).",
    ]
    assert shards(database) == [("todo", 1)]


def test_a_worker_shows_trouble_unless_it_is_quiet(cli, serve, database, give_out):
    emulator = serve(instant_rate=0.0)
    emulator.faults.add(Fault("status", Reply(503, {"error": "busy"}), times=3))
    give_out()

    shown = cli("worker", "--journal", database, "--until-idle")

    assert "polling again" in shown.err


def test_ctrl_c_stops_a_worker_which_says_what_it_gives_back(interrupt, serve, database, give_out):
    emulator = serve(instant_rate=0.0, time_scale=1.0)
    give_out()

    done = interrupt(
        lambda: len(emulator.stats.accepted) == 3, "worker", "--journal", database, "--grace", "0.1"
    )

    assert done.status == 0
    assert "stopping; Ctrl-C again leaves at once (waiting up to 0.1 s for jobs in flight)" in done.err
    assert "0 items ended, 0 shards done; 1 given back" in done.err
    assert shards(database) == [("todo", 1)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_worker_at_once_and_its_shard_is_left_to_others(
    start_process, serve, database, give_out, number
):
    emulator = serve(instant_rate=0.0, time_scale=1.0)
    give_out()
    process = start_process("worker", "--journal", database, "--grace", "600")
    ids = "SELECT count(request_id) FROM kling_async_entries"
    asyncio.run(until(lambda: change(database, ids).fetchone() == (3,)))

    process.send_signal(number)
    while "Ctrl-C again" not in process.stderr.readline():
        pass
    process.send_signal(number)
    if number == signal.SIGTERM:  # a second one that comes at once is the first one
        wait_until(lambda: (process.terminate(), process.poll())[1] is not None)

    _, rest = process.communicate(timeout=20)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)
    left = "kling-async worker: left at once: its jobs continue, and other workers or `kling-async resume` save them.\n"
    assert rest == (left if number == signal.SIGINT else "")
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    asyncio.run(until(lambda: change(database, query).fetchone() == (0,)))
    assert len(emulator.stats.accepted) == 3


def test_a_worker_that_cannot_reach_the_journal_does_not_say_that_it_waits(cli, serve):
    serve()
    assert "waits for shards" not in cli("worker", "--journal", "postgresql://me@127.0.0.1:1/kling").err


def test_the_help_of_a_worker_has_one_text_about_the_exit_status(cli):
    text = " ".join(cli("worker", "--help").out.split())
    assert text.count("Exit status") == 1
    assert "Exit status: 0 stopped by Ctrl-C" in text


def test_sigterm_stops_a_quiet_worker(start_process, serve, database):
    serve()
    process = start_process("worker", "--journal", database, "--quiet")
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
    asyncio.run(until(lambda: is_made(database) and change(database, query).fetchone()[0]))

    process.send_signal(signal.SIGTERM)

    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def is_made(database):
    return change(database, "SELECT to_regclass('procrastinate_jobs') IS NOT NULL").fetchone()[0]


@pytest.mark.parametrize(
    "tokens, sentence",
    [
        (["--journal", "run.db"], "is a file of this machine, and workers share a PostgreSQL database"),
        (["--journal", "postgresql://me:secret@127.0.0.1:1/kling"], "could not be reached"),
        (["--journal", "postgresql://x/y", "--concurrency", "0"], "--concurrency"),
        (["--journal", "postgresql://x/y", "--grace", "-1"], "--grace"),
        ([], "--journal"),
    ],
)
def test_a_worker_that_cannot_start_says_why_in_one_sentence(cli, serve, tokens, sentence):
    serve()

    done = cli("worker", *tokens, "--quiet")

    assert done.status == 2
    assert sentence in done.error_line
    assert "secret" not in done.err
