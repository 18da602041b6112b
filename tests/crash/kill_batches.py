"""Kill -9 at any instant, run the same call again, and count at the service.

    python tests/crash/kill_batches.py --kills 200

A batch with a journal runs in a process of its own against `tests/independent_service.py`. It is killed after a random
time, up to 30 times; then it may finish, and what the service accepted is compared with what the caller has. Then
the next batch begins. Exit status 1 if a job was lost or bought twice.
"""

from __future__ import annotations

import argparse
import asyncio
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

# A child is forked: what it would import when it opens is imported once, and a kill costs no start of an interpreter.
import kling_async._transport.over_aiohttp  # noqa: F401
from kling_async import KlingClient, Limits, PollingPolicy

sys.path.append(str(Path(__file__).parents[1]))
from independent_service import content_of

CHANCES = {
    "submit": {"drop": 0.04, "500": 0.04, "half": 0.02, "refuse": 0.01},
    "status": {"drop": 0.03, "503": 0.05},
    "list": {"drop": 0.03, "503": 0.03},
    "media": {"cut:0.3": 0.1, "drop": 0.05, "503": 0.05},
}
SPEED = {"run_time": 0.2, "latency": 0.1, "media_time": 0.2, "media_bytes": 60_000}
LIVES = ((0.0, 0.3), (0.0, 0.8), (0.5, 2.5))
"""Seconds after which a batch is killed, at least and at most; each is as likely as the others."""
KILLS_A_BATCH = 30
MOST_ENDS = 5
"""How often a batch is run to its end: the POST that is sent again may have a fate as unknown as the first one's."""


@dataclass
class Tally:
    """What came of it."""

    kills: int = 0
    batches: int = 0
    accepted: int = 0
    lost: list[str] = field(default_factory=list)
    """Jobs that the service accepted and the caller does not know."""
    twice: list[str] = field(default_factory=list)
    """Prompts that were bought more than once."""
    never: list[str] = field(default_factory=list)
    """Prompts that were not bought in the end."""
    broken: list[str] = field(default_factory=list)
    """Videos that are missing, or are not what the service has."""
    interrupted: dict[str, int] = field(default_factory=dict)
    """Calls that were being answered when their caller was killed, by kind."""
    faults: dict[str, int] = field(default_factory=dict)
    """Faults of the service on top of the kills."""
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.twice or self.never or self.broken)


@contextmanager
def service(folder: Path):
    """A foreign service in a process of its own; gives its address."""
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


def control(url: str, **orders) -> dict:
    """What the service has seen, after it took these orders."""
    body = json.dumps(orders).encode() if orders else None
    with urllib.request.urlopen(f"{url}/control", data=body, timeout=10) as reply:  # noqa: S310 - loopback
        return json.load(reply)


def prompts_of(batch: int, items: int) -> list[str]:
    """Different prompts, and a few that are the same."""
    return [f"batch {batch}, prompt {min(number, items - 4)}" for number in range(items)]


async def run_batch(
    url: str, folder: Path, prompts: list[str], *, has_journal: bool, on_ambiguous: str
) -> None:
    """The call that is killed and made again. What it gives goes to a file."""
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
    told = [
        {
            "request_id": result.job and result.job.request_id,
            "path": result.path and str(result.path),
            "state": result.state,
            "error": str(result.error or ""),
        }
        for result in results
    ]
    fresh = folder / "results.new"
    fresh.write_text(json.dumps(told))
    fresh.replace(folder / "results.json")


def in_child(url: str, folder: Path, prompts: list[str], **options) -> int:
    """Run the batch in a forked process; its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(run_batch(url, folder, prompts, **options))
            status = 0
        except BaseException as error:  # noqa: BLE001 - a child has no caller to raise to
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    return child


def killed_after(child: int, seconds: float) -> bool:
    """Kill a child after some time; False if it ended by itself before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise RuntimeError(f"the batch ended with {status}")
            return False
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def results_in(folder: Path) -> list[dict]:
    """What the last run that came to its end gave."""
    return json.loads((folder / "results.json").read_text())


def examine(url: str, folder: Path, prompts: list[str], tally: Tally) -> None:
    """Compare what the service accepted with what the caller has."""
    results = results_in(folder)
    known = {result["request_id"] for result in results}
    wanted = Counter(prompts)
    jobs = [job for job in control(url)["jobs"] if job["prompt"] in wanted]
    bought = Counter(job["prompt"] for job in jobs)
    tally.batches += 1
    tally.accepted += len(jobs)
    tally.lost += [job["request_id"] for job in jobs if job["request_id"] not in known]
    tally.twice += [prompt for prompt in wanted if bought[prompt] > wanted[prompt]]
    tally.never += [prompt for prompt in wanted if bought[prompt] < wanted[prompt]]
    sizes = {job["request_id"]: job["bytes"] for job in jobs}
    for result in results:
        path = result["path"] and Path(result["path"])
        whole = content_of(result["request_id"], sizes.get(result["request_id"], 0)) if path else None
        if not path or path.read_bytes() != whole:
            tally.broken.append(f"{result['request_id']} {result['state']} {result['error']}")
    tally.broken += [path.name for path in (folder / "videos").iterdir() if path.suffix == ".part"]


def kill_and_count(*, kills: int, seed: int, items: int, is_calm: bool, has_journal: bool) -> Tally:
    """Kill that often, at instants that follow from the seed, and count."""
    dice, tally, began = random.Random(seed), Tally(), time.monotonic()  # noqa: S311
    interrupted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name, service(Path(name)) as url:
        control(url, seed=seed, chances={} if is_calm else CHANCES, **SPEED)
        while tally.kills < kills:
            folder, prompts = Path(name) / f"batch-{tally.batches}", prompts_of(tally.batches, items)
            folder.mkdir()
            options = {"has_journal": has_journal, "on_ambiguous": "report"}
            for _ in range(min(KILLS_A_BATCH, kills - tally.kills)):
                child = in_child(url, folder, prompts, **options)
                if not killed_after(child, dice.uniform(*dice.choice(LIVES))):
                    break
                tally.kills += 1
                interrupted += Counter(control(url)["in_flight"])
            options["on_ambiguous"] = "resend"
            for _ in range(MOST_ENDS):
                if killed_after(in_child(url, folder, prompts, **options), 300.0):
                    raise RuntimeError("the batch does not end")
                if not any(result["state"] == "ambiguous" for result in results_in(folder)):
                    break
            examine(url, folder, prompts, tally)
        tally.faults = control(url)["faults"]
    tally.interrupted = dict(interrupted)
    tally.seconds = round(time.monotonic() - began, 1)
    return tally


def main() -> int:
    """Kill as often as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--items", type=int, default=150, help="prompts of a batch")
    parser.add_argument("--calm", action="store_true", help="the service makes no faults of its own")
    parser.add_argument("--without-journal", action="store_true", help="show that it can fail")
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}", flush=True)
    tally = kill_and_count(
        kills=wanted.kills,
        seed=wanted.seed,
        items=wanted.items,
        is_calm=wanted.calm,
        has_journal=not wanted.without_journal,
    )
    print(json.dumps(asdict(tally), indent=1))
    return 0 if tally.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
