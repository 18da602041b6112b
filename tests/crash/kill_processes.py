"""Kill and stop processes that share one journal in PostgreSQL, and count the jobs at the service.

    python tests/crash/kill_processes.py --kills 60 --stops 60

Three processes make the same call with the same journal, against `tests/independent_service.py`. At random times the
program kills one with SIGKILL, and starts it again; or it stops one with SIGSTOP for a random time. With `--restarts` it
also kills the database and starts it again. When all three calls have ended, their results are compared with the jobs of
the service, and the next batch starts. The exit status is 1 if a job was lost or bought twice.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio.lowlevel

# A child is a fork of this process: modules imported here need no import in each child.
import kling_async._journal.postgres.store  # noqa: F401
from kling_async import BatchInterruptedError, JournalError, KlingClient, Limits, PollingPolicy

sys.path.append(str(Path(__file__).parents[1]))
from crash.kill_batches import (
    FAULT_PROBABILITIES,
    SPEED,
    KillReport,
    check_batch,
    control,
    make_prompts,
    start_service,
)
from postgres_server import Server, find_programs, run_server

PROCESSES = 3
PAUSES = (0.05, 0.5)
"""Shortest and longest seconds between two kills or stops."""
STOPS = (0.2, 3.0)
"""Shortest and longest seconds of a stop."""
MAX_FINAL_RUNS = 5
CAP_USD = 10_000
JOURNAL_FAILED = 3
"""The exit status of a process that could not reach the journal, as while the database starts."""


@dataclass
class SharedReport(KillReport):
    """The counts of all batches."""

    stops: int = 0
    restarts: int = 0
    disagreements: list[str] = field(default_factory=list)
    """Items for which two processes report different jobs."""

    @property
    def is_good(self) -> bool:
        return super().is_good and not self.disagreements


async def run_batch(
    url: str, journal: str | None, folder: Path, prompts: list[str], *, name: str, on_ambiguous: str
) -> None:
    """Make the call that is killed and repeated, and write its results to a file."""
    polling = PollingPolicy(poll_interval=0.05, wait_timeout=60.0)
    limits = Limits(max_concurrent_submits=8, max_polls_per_second=200.0, max_submits_per_hour=3600 * 200)
    async with KlingClient("any-key", base_url=url, timeout=5.0, polling=polling, limits=limits) as client:
        results = await client.generate_many(
            prompts,
            max_concurrency=20,
            output=folder / "videos",
            journal=journal or folder / f"{name}.db",
            on_ambiguous=on_ambiguous,
            max_cost_usd=CAP_USD,
            prices={"kling-v2-6": 1},
            progress=False,
        )
    records = [
        {
            "request_id": result.job and result.job.request_id,
            "path": result.path and str(result.path),
            "state": result.state,
            "error": str(result.error or ""),
        }
        for result in results
    ]
    temporary = folder / f"{name}.new"
    temporary.write_text(json.dumps(records))
    temporary.replace(folder / f"{name}.json")


@dataclass
class Child:
    """One process that runs the call."""

    name: str
    start: object
    pid: int = 0
    continues_at: float | None = None
    """When it goes on, if it is stopped."""
    is_over: bool = False

    def run(self) -> None:
        self.pid = self.start(self.name)
        self.continues_at = None

    def reap(self) -> None:
        """Note whether the process has ended by itself."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if ended:
            if os.waitstatus_to_exitcode(status) == JOURNAL_FAILED:
                self.run()
            elif status:
                self.is_over = True
                raise RuntimeError(f"{self.name} ended with {status}")
            else:
                self.is_over = True

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def fork(work) -> int:
    """Run a coroutine in a forked process; returns the process id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(work)
            status = 0
        except (JournalError, BatchInterruptedError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            status = JOURNAL_FAILED
        except BaseException:  # noqa: BLE001 - a forked child cannot raise to a caller
            traceback.print_exc()
        finally:
            os._exit(status)
    work.close()
    return child


def disturb(
    children: list[Child], rng: random.Random, report: SharedReport, *, kills: int, stops: int
) -> None:
    """Kill one of the processes, or stop it for a while."""
    running = [child for child in children if not child.is_over and child.continues_at is None]
    if not running:
        return
    child = rng.choice(running)
    wants_kill = report.kills < kills and (report.stops >= stops or rng.random() < 0.5)
    if wants_kill:
        child.kill()
        report.kills += 1
        child.run()
    elif report.stops < stops:
        os.kill(child.pid, signal.SIGSTOP)
        child.continues_at = time.monotonic() + rng.uniform(*STOPS)
        report.stops += 1


def go_on(children: list[Child], *, now: float) -> None:
    """Let the processes continue whose stop is over."""
    for child in children:
        if child.continues_at is not None and now >= child.continues_at:
            os.kill(child.pid, signal.SIGCONT)
            child.continues_at = None


def run_one_batch(children, rng, report, server, *, kills, stops, restarts) -> None:
    """Disturb the processes until all have ended."""
    next_at = time.monotonic()
    try:
        for child in children:
            child.run()
        while not all(child.is_over for child in children):
            time.sleep(0.01)
            now = time.monotonic()
            go_on(children, now=now)
            for child in children:
                if not child.is_over:
                    child.reap()
            if now < next_at:
                continue
            next_at = now + rng.uniform(*PAUSES)
            disturb(children, rng, report, kills=kills, stops=stops)
            if server is not None and report.restarts < restarts and rng.random() < 0.2:
                server.stop(rng.choice([signal.SIGINT, signal.SIGQUIT]))
                time.sleep(rng.uniform(0.0, 1.0))
                server.start()
                report.restarts += 1
    finally:
        for child in children:
            if not child.is_over:
                child.kill()


def compare(folder: Path, names: list[str], report: SharedReport) -> None:
    """Add the items for which two processes have another job."""
    every = [json.loads((folder / f"{name}.json").read_text()) for name in names]
    for index, records in enumerate(zip(*every, strict=True)):
        if len({record["request_id"] for record in records if record["request_id"]}) > 1:
            report.disagreements.append(f"{index}: {[record['request_id'] for record in records]}")


@contextmanager
def open_database() -> Iterator[Server]:
    """A PostgreSQL server for the block."""
    programs = find_programs()
    if programs is None:
        raise SystemExit("There is no PostgreSQL server: install one, or name its folder in POSTGRES_BIN.")
    with run_server(programs) as server:
        yield server


def disturb_and_count(
    *, kills: int, stops: int, restarts: int, seed: int, items: int, has_faults: bool, is_shared: bool
) -> SharedReport:
    """Run batches until there were so many kills and stops, at times that depend on the seed, and count."""
    rng, report, began = random.Random(seed), SharedReport(), time.monotonic()  # noqa: S311
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        url = stack.enter_context(start_service(Path(name)))
        server = stack.enter_context(open_database()) if is_shared else None
        control(url, seed=seed, probabilities=FAULT_PROBABILITIES if has_faults else {}, **SPEED)
        while report.kills < kills or report.stops < stops or report.restarts < restarts:
            folder, prompts = Path(name) / f"batch-{report.batches}", make_prompts(report.batches, items)
            folder.mkdir()
            call = {
                "url": url,
                "journal": server and server.url(),
                "folder": folder,
                "prompts": prompts,
            }

            def start(who, call=call) -> int:
                return fork(run_batch(**call, name=who, on_ambiguous="report"))

            names = [f"process-{number}" for number in range(PROCESSES)]
            children = [Child(who, start) for who in names]
            run_one_batch(children, rng, report, server, kills=kills, stops=stops, restarts=restarts)
            compare(folder, names, report)
            for _ in range(MAX_FINAL_RUNS):
                last = fork(run_batch(**call, name="results", on_ambiguous="resend"))
                os.waitpid(last, 0)
                results = json.loads((folder / "results.json").read_text())
                if not any(result["state"] == "ambiguous" for result in results):
                    break
            check_batch(url, folder, prompts, report)
        report.faults = control(url)["faults"]
    report.seconds = round(time.monotonic() - began, 1)
    return report


def main() -> int:
    """Run the program with the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--stops", type=int, default=60)
    parser.add_argument("--restarts", type=int, default=0, help="of the database")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--items", type=int, default=400, help="prompts per batch")
    parser.add_argument("--calm", action="store_true", help="the service injects no faults")
    parser.add_argument(
        "--apart",
        action="store_true",
        help="give each process its own journal, to show that the program finds that",
    )
    arguments = parser.parse_args()
    asyncio.run(anyio.lowlevel.checkpoint())  # imports what anyio needs with asyncio
    gc.freeze()  # a collection in a fork would copy the memory of all that is imported
    print(f"seed {arguments.seed}", flush=True)
    report = disturb_and_count(
        kills=arguments.kills,
        stops=arguments.stops,
        restarts=arguments.restarts,
        seed=arguments.seed,
        items=arguments.items,
        has_faults=not arguments.calm,
        is_shared=not arguments.apart,
    )
    print(json.dumps(asdict(report), indent=1))
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
