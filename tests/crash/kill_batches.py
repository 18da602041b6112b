"""Kill a batch with SIGKILL at random times, run the same call again, and count the jobs at the service.

    python tests/crash/kill_batches.py --kills 200

A batch with a journal runs in its own process against `tests/independent_service.py`. The program kills the batch up to
30 times, each time after a random time. Then the batch runs to its end, and the program compares the jobs of the service
with the results of the batch. Then the next batch starts. The exit status is 1 if a job was lost or bought twice.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio.lowlevel

# A child is a fork of this process: modules imported here need no import in each child.
import kling_async._display.progress
import kling_async._engine.batch.batch
import kling_async._journal.sqlite.store
import kling_async._transport.open_transport  # noqa: F401
from kling_async import KlingClient, Limits, PollingPolicy

sys.path.append(str(Path(__file__).parents[1]))
from independent_service import video_bytes

FAULT_PROBABILITIES = {
    "submit": {"drop": 0.04, "500": 0.04, "half": 0.02, "refuse": 0.01},
    "status": {"drop": 0.03, "503": 0.05},
    "list": {"drop": 0.03, "503": 0.03},
    "media": {"cut:0.3": 0.1, "drop": 0.05, "503": 0.05},
}
SPEED = {"run_time": 0.2, "latency": 0.1, "media_time": 0.2, "media_bytes": 60_000}
KILL_DELAYS = ((0.0, 0.3), (0.0, 0.8), (0.5, 2.5))
"""Shortest and longest seconds before a kill; each pair has the same probability."""
KILLS_PER_BATCH = 30
MAX_FINAL_RUNS = 5
"""Runs to the end, because a resent POST can be ambiguous again."""


@dataclass
class KillReport:
    """The counts of all batches."""

    kills: int = 0
    batches: int = 0
    accepted: int = 0
    lost: list[str] = field(default_factory=list)
    """Ids of jobs that the service accepted and no result has."""
    bought_twice: list[str] = field(default_factory=list)
    """Prompts with more jobs than items."""
    not_bought: list[str] = field(default_factory=list)
    """Prompts with fewer jobs than items."""
    broken: list[str] = field(default_factory=list)
    """Videos that are missing or differ from those of the service."""
    interrupted: dict[str, int] = field(default_factory=dict)
    """Open calls at the times of the kills, by kind."""
    faults: dict[str, int] = field(default_factory=dict)
    """Faults of the service, besides the kills."""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.bought_twice or self.not_bought or self.broken)


@contextmanager
def start_service(folder: Path):
    """Run the independent service in its own process; gives its URL."""
    port_file = folder / "port"
    script = Path(__file__).parents[1] / "independent_service.py"
    process = subprocess.Popen([sys.executable, script, "--port-file", port_file])  # noqa: S603 - our own
    try:
        while not port_file.exists():
            time.sleep(0.01)
            if process.poll() is not None:
                raise RuntimeError(f"the service ended with {process.returncode}")
        yield f"http://127.0.0.1:{port_file.read_text()}"
    finally:
        process.kill()
        process.wait()


def control(url: str, **settings) -> dict:
    """Change settings of the service and return its counts."""
    body = json.dumps(settings).encode() if settings else None
    with urllib.request.urlopen(f"{url}/control", data=body, timeout=10) as reply:  # noqa: S310 - loopback
        return json.load(reply)


def make_prompts(batch: int, items: int) -> list[str]:
    """Different prompts, and four equal ones at the end."""
    return [f"batch {batch}, prompt {min(number, items - 4)}" for number in range(items)]


async def run_batch(
    url: str, folder: Path, prompts: list[str], *, has_journal: bool, on_ambiguous: str
) -> None:
    """Make the call that is killed and repeated, and write its results to a file."""
    polling = PollingPolicy(poll_interval=0.05, wait_timeout=60.0)
    limits = Limits(max_concurrent_submits=8, max_polls_per_second=200.0)
    async with KlingClient("any-key", base_url=url, timeout=5.0, polling=polling, limits=limits) as client:
        results = await client.generate_many(
            prompts,
            max_concurrency=40,
            output=folder / "videos",
            journal=folder / "run.db" if has_journal else None,
            on_ambiguous=on_ambiguous,
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
    temporary = folder / "results.new"
    temporary.write_text(json.dumps(records))
    temporary.replace(folder / "results.json")


def start_child(url: str, folder: Path, prompts: list[str], **options) -> int:
    """Run the batch in a forked process; returns the process id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(run_batch(url, folder, prompts, **options))
            status = 0
        except BaseException as error:  # noqa: BLE001 - a forked child cannot raise to a caller
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return child


def kill_after(child: int, seconds: float) -> bool:
    """Kill a child after this time; False if the child ended before."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(0.01, left))
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise RuntimeError(f"the batch ended with {status}")
            return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def read_results(folder: Path) -> list[dict]:
    """The results of the last run that reached its end."""
    return json.loads((folder / "results.json").read_text())


def check_batch(url: str, folder: Path, prompts: list[str], report: KillReport) -> None:
    """Compare the jobs of the service with the results of the batch, and add the differences to the report."""
    results = read_results(folder)
    known = {result["request_id"] for result in results}
    wanted = Counter(prompts)
    jobs = [job for job in control(url)["jobs"] if job["prompt"] in wanted]
    bought = Counter(job["prompt"] for job in jobs)
    report.batches += 1
    report.accepted += len(jobs)
    report.lost += [job["request_id"] for job in jobs if job["request_id"] not in known]
    report.bought_twice += [prompt for prompt in wanted if bought[prompt] > wanted[prompt]]
    report.not_bought += [prompt for prompt in wanted if bought[prompt] < wanted[prompt]]
    sizes = {job["request_id"]: job["bytes"] for job in jobs}
    for result in results:
        path = result["path"] and Path(result["path"])
        whole = video_bytes(result["request_id"], sizes.get(result["request_id"], 0)) if path else None
        if not path or path.read_bytes() != whole:
            report.broken.append(f"{result['request_id']} {result['state']} {result['error']}")
    report.broken += [path.name for path in (folder / "videos").iterdir() if path.suffix == ".part"]


def kill_and_count(
    *, kills: int, seed: int, items: int, run_time: float, has_faults: bool, has_journal: bool
) -> KillReport:
    """Kill batches this many times, at times that depend on the seed, and count."""
    rng, report, began = random.Random(seed), KillReport(), time.monotonic()  # noqa: S311
    interrupted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name, start_service(Path(name)) as url:
        probabilities = FAULT_PROBABILITIES if has_faults else {}
        control(url, seed=seed, probabilities=probabilities, **SPEED | {"run_time": run_time})
        while report.kills < kills:
            folder, prompts = Path(name) / f"batch-{report.batches}", make_prompts(report.batches, items)
            folder.mkdir()
            options = {"has_journal": has_journal, "on_ambiguous": "report"}
            for _ in range(min(KILLS_PER_BATCH, kills - report.kills)):
                child = start_child(url, folder, prompts, **options)
                if not kill_after(child, rng.uniform(*rng.choice(KILL_DELAYS))):
                    break
                report.kills += 1
                interrupted += Counter(control(url)["in_flight"])
            options["on_ambiguous"] = "resend"
            for _ in range(MAX_FINAL_RUNS):
                if kill_after(start_child(url, folder, prompts, **options), 300.0):
                    raise RuntimeError("the batch did not end within 300 s")
                if not any(result["state"] == "ambiguous" for result in read_results(folder)):
                    break
            check_batch(url, folder, prompts, report)
        report.faults = control(url)["faults"]
    report.interrupted = dict(interrupted)
    report.seconds = round(time.monotonic() - began, 1)
    return report


def main() -> int:
    """Run the program with the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--items", type=int, default=150, help="prompts per batch")
    parser.add_argument("--run-time", type=float, default=SPEED["run_time"], help="seconds of a job")
    parser.add_argument("--calm", action="store_true", help="the service injects no faults")
    parser.add_argument(
        "--without-journal", action="store_true", help="show that the program finds lost jobs"
    )
    arguments = parser.parse_args()
    asyncio.run(anyio.lowlevel.checkpoint())  # imports what anyio needs with asyncio
    gc.freeze()  # a collection in a fork would copy the memory of all that is imported
    print(f"seed {arguments.seed}", flush=True)
    report = kill_and_count(
        kills=arguments.kills,
        seed=arguments.seed,
        items=arguments.items,
        run_time=arguments.run_time,
        has_faults=not arguments.calm,
        has_journal=not arguments.without_journal,
    )
    print(json.dumps(asdict(report), indent=1))
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
