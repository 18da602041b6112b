"""More machines and one journal: jobs a second with one, two and three workers, and rows a second of a journal.

Needs PostgreSQL's programs; the server runs with fsync. A job takes seconds, so that no processor is the limit: what the
workers cannot share is how much they ask of the database and of each other.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import figures, machine
from benchmarks.jobs import Workload, prompts

LINEAR_MARK = 0.9
ROWS_MARK = 2_000
IN_FLIGHT = 20
JOBS_OF_A_WORKER = 200
RUN_TIME = 4.0
ITEMS_AT_ONCE = 200
_HOLDS_SHARED_LOCK = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # every measure's form
    """Figures of the workers, and of the journals; without PostgreSQL those of SQLite alone."""
    rows, workers = [], []
    items = 200 if quick else 20_000
    with tempfile.TemporaryDirectory() as folder:
        rows.append(_rows("SQLite", str(Path(folder, "run.db")), items))
    with _database_server() as server:
        if server is not None:
            with server.make_database() as url:
                rows.append(_rows("PostgreSQL", url, items))
            for count in (1, 2) if quick else (1, 2, 3):
                with server.make_database() as url, machine.service() as service:
                    jobs = count * (20 if quick else JOBS_OF_A_WORKER)
                    service.reset(Workload(median=0.2 if quick else RUN_TIME, sigma=0.1))
                    workers.append(_workers(url, service.url, count, jobs))
    return {"measure": "workers", "environment": machine.environment(), "rows": rows, "workers": workers}


@contextmanager
def _database_server() -> Iterator[Any]:
    """A PostgreSQL server as the tests start it, but with fsync; None without its programs."""
    sys.path.append(str(machine.HERE.parent / "tests"))
    servers = importlib.import_module("postgres_server")
    programs = servers.find_programs()
    if programs is None:
        machine.tell("no workers: PostgreSQL is not installed")
        yield None
        return
    with servers.run_server(programs) as server:
        server.execute("ALTER SYSTEM SET fsync = on")
        server.execute("SELECT pg_reload_conf()")
        yield server


def _rows(name: str, journal: str, items: int) -> dict[str, Any]:
    machine.tell(f"{items:,} items in {name}")
    argument = {"journal": journal, "items": items}
    return {"journal": name, **machine.in_fresh_process("benchmarks.workers", argument)}


def main() -> None:
    """Write items in this very process and print the figures as JSON."""
    wanted = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(_write(wanted["journal"], wanted["items"]))))


async def _write(path: str, items: int) -> dict[str, Any]:
    """Two rows of each item, each on the disk before the next step, as a batch writes them: the intent and the end."""
    from kling_async._journal.entry import Identity
    from kling_async._journal.journal import WriteAheadJournal
    from kling_async._journal.open_journal import open_journal
    from kling_async._journal.shared_store import WantedItem
    from kling_async.results import ResultState

    numbers = iter(range(items))

    async def write_items(journal: WriteAheadJournal) -> None:
        for number in numbers:
            identity, payload = (
                Identity(None, f"{number:032x}", 0),
                {"prompt": f"A comet, shot number {number}"},
            )
            describe = partial(
                WantedItem, identity=identity, model="kling-v2-6", payload=payload, index=number
            )
            await journal.sharing.claim(identity, describe)
            entry = journal.record_intent(
                identity, model="kling-v2-6", payload=payload, at=time.time(), cost_usd=None, index=number
            )
            await journal.wait_durable()
            journal.record_job(entry, request_id=f"job-{number}", record={"status": "dispatched"})
            record = {"status": "success", "outcome": {"video_url": f"https://x.example/{number}.mp4"}}
            journal.record_end(entry, state=ResultState.SUCCEEDED, record=record, error=None)
            await journal.wait_durable()
            journal.sharing.release(entry)

    began = time.perf_counter()
    with open_journal(path) as journal:
        commits = asyncio.create_task(journal.run())
        async with asyncio.TaskGroup() as tasks:
            for _ in range(ITEMS_AT_ONCE):
                tasks.create_task(write_items(journal))
        commits.cancel()
    return {"items": items, "rows_per_second": 2 * items / (time.perf_counter() - began)}


def _workers(url: str, service: str, count: int, jobs: int) -> dict[str, Any]:
    machine.tell(f"{count} workers, {jobs:,} jobs")
    environment = {**os.environ, "GMI_API_KEY": "key", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        sys.executable,
        "-m",
        "kling_async",
        "worker",
        "--journal",
        url,
        "--base-url",
        service,
        "--quiet",
    ]
    with ExitStack() as stack:
        for _ in range(count):
            worker = stack.enter_context(subprocess.Popen(command, env=environment))
            stack.callback(worker.kill)
        succeeded, wall = asyncio.run(_call(url, count, jobs))
    return {
        "workers": count,
        "jobs": jobs,
        "succeeded": succeeded,
        "wall": wall,
        "jobs_per_second": jobs / wall,
    }


async def _call(url: str, count: int, jobs: int) -> tuple[int, float]:
    """How many jobs succeeded, and the seconds for all of them, once all workers wait for shards."""
    import psycopg

    from kling_async.distributed import generate_many_on

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            ready = await (await connection.execute(_HOLDS_SHARED_LOCK)).fetchone()
            if ready is not None and ready[0] >= count:
                break
            await asyncio.sleep(0.1)
    began = time.perf_counter()
    batch = await generate_many_on(
        url, prompts(jobs), max_concurrency=IN_FLIGHT, shard_size=jobs // count, progress=False
    )
    return len(batch.succeeded), time.perf_counter() - began


def table(result: dict[str, Any]) -> str:
    """Jobs a second by number of workers, and rows a second by journal."""
    header = ["workers", "jobs", "wall s", "jobs/s", "of linear", "mark"]
    one = result["workers"][0]["jobs_per_second"] if result["workers"] else 0.0
    rows = []
    for row in result["workers"]:
        linear = row["jobs_per_second"] / (one * row["workers"])
        mark = figures.against(LINEAR_MARK, linear, at_least=True) if row["workers"] > 1 else ""
        rows.append([row["workers"], row["jobs"], row["wall"], row["jobs_per_second"], linear, mark])
    journals = [
        [
            row["journal"],
            row["items"],
            row["rows_per_second"],
            figures.against(ROWS_MARK, row["rows_per_second"], at_least=True),
        ]
        for row in result["rows"]
    ]
    shown = [figures.table_of(["journal", "items", "rows/s", "mark"], journals)]
    return "\n\n".join([figures.table_of(header, rows), *shown] if rows else shown)
