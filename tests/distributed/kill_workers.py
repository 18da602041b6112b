"""Kill and stop workers at random times while they make one batch, and count the jobs at the service.

    python tests/distributed/kill_workers.py --prompts 2000 --kills 60 --stops 60

A caller and several workers run as processes over a PostgreSQL server of their own, against
`tests/independent_service.py`. The program kills workers (SIGKILL) and starts new ones, and makes workers stand still
(SIGSTOP) for seconds. With `--restarts` it also restarts PostgreSQL, with `--caller-kills` it kills the caller and makes the
same call again, and with `--cuts` it drops all packets between one worker and the database for longer than a session
lives, or for good with `--cut-for-good`; that needs root, and Linux. The exit status is 1 if a job was lost or bought twice.
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
import postgres_server
from independent_service import video_bytes
from network_cut import Network, open_network

FAULT_PROBABILITIES = {
    "submit": {"drop": 0.02, "500": 0.02},
    "status": {"drop": 0.02, "503": 0.02},
    "list": {"drop": 0.02, "503": 0.02},
}
MAX_FINAL_CALLS = 5
"""Calls to the end, because a resent POST can be ambiguous again."""


@dataclass
class Report:
    """The counts of one run."""

    prompts: int = 0
    accepted: int = 0
    kills: int = 0
    stops: int = 0
    restarts: int = 0
    caller_kills: int = 0
    cuts: int = 0
    lost: list[str] = field(default_factory=list)
    """Ids of jobs that the service accepted and no result has."""
    bought_twice: list[str] = field(default_factory=list)
    not_bought: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Results without a whole video."""
    events: int = 0
    """Events that the last caller heard."""
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.bought_twice or self.not_bought or self.broken)


def control(url: str, **settings) -> dict:
    """Change settings of the service and return its counts."""
    body = json.dumps(settings).encode() if settings else None
    with urllib.request.urlopen(f"{url}/control", data=body, timeout=30) as reply:  # noqa: S310 - our own
        return json.load(reply)


def make_prompts(count: int) -> list[str]:
    """Different prompts, and four equal ones at the end."""
    return [f"prompt number {min(number, count - 4)} of the batch" for number in range(count)]


@contextmanager
def start_service(folder: Path, host: str) -> Iterator[int]:
    """Run the independent service in its own process; gives its port."""
    port_file = folder / "port"
    script = ROOT / "independent_service.py"
    with start([sys.executable, script, "--port-file", port_file, "--host", host]) as process:
        while not port_file.exists():
            time.sleep(0.01)
            if process.poll() is not None:
                raise RuntimeError(f"the service ended with {process.returncode}")
        yield int(port_file.read_text())


@contextmanager
def start(command: list, **options) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command, **options)  # noqa: S603 - our own
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def call(arguments: dict) -> None:
    """Make the call that is killed and repeated, and write its results to a file."""
    from kling_async.distributed import generate_many_on

    heard = 0

    def hear(_: object) -> None:
        nonlocal heard
        heard += 1

    folder = Path(arguments["folder"])
    batch = await generate_many_on(
        arguments["journal"],
        make_prompts(arguments["prompts"]),
        max_concurrency=arguments["max_concurrency"],
        shard_size=arguments["shard_size"],
        output=folder / "videos",
        on_ambiguous=arguments["on_ambiguous"],
        progress=False,
        on_event=hear,
    )
    results = [result.to_dict() for result in batch]
    temporary = folder / "results.new"
    temporary.write_text(json.dumps({"results": results, "events": heard}))
    temporary.replace(folder / "results.json")


class Workers:
    """The worker processes of a run."""

    def __init__(self, count: int, commands: list[list[str]], environment: dict[str, str], log: Path) -> None:
        self._commands = commands
        self._environment = environment
        self._log = log.open("ab")
        self._stopped: dict[subprocess.Popen, float] = {}
        """By worker that stands still, when it continues."""
        self.processes = [self._start(place) for place in range(count)]

    def _start(self, place: int) -> subprocess.Popen:
        command = self._commands[place % len(self._commands)]
        return subprocess.Popen(  # noqa: S603 - our own
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=self._log
        )

    def kill(self, rng: random.Random) -> None:
        """Kill one worker, and start a new one in its place."""
        place = rng.randrange(len(self.processes))
        worker = self.processes[place]
        self._stopped.pop(worker, None)
        worker.kill()
        worker.wait()
        self.processes[place] = self._start(place)

    def stop(self, rng: random.Random, seconds: float) -> bool:
        """Make one worker stand still; False if all do already."""
        running = [worker for worker in self.processes if worker not in self._stopped]
        if not running:
            return False
        worker = rng.choice(running)
        worker.send_signal(signal.SIGSTOP)
        self._stopped[worker] = time.monotonic() + seconds
        return True

    def tend(self, *, is_over: bool = False) -> None:
        """Let workers continue whose time is over, and start those again that ended by themselves."""
        for worker, until in list(self._stopped.items()):
            if is_over or time.monotonic() > until:
                worker.send_signal(signal.SIGCONT)
                del self._stopped[worker]
        for place, worker in enumerate(self.processes):
            if worker.poll() is not None:
                self.processes[place] = self._start(place)

    def end(self) -> None:
        for worker in self.processes:
            worker.kill()
            worker.wait()
        self._log.close()


class Run:
    """One batch with all that happens to it."""

    def __init__(self, wanted: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self.wanted = wanted
        self.folder = folder
        self.rng = random.Random(wanted.seed)  # noqa: S311
        self.report = Report(prompts=wanted.prompts)
        self.network: Network | None = stack.enter_context(open_network()) if wanted.cuts else None
        host = "0.0.0.0" if self.network else "127.0.0.1"  # noqa: S104 - the hosts of the other namespace
        port = stack.enter_context(start_service(folder, host))
        self.service = f"http://127.0.0.1:{port}"
        self.server = stack.enter_context(open_database(self.network))
        self.journal = self.server.url()
        environment = {**os.environ, "GMI_API_KEY": "any-key"}
        commands = [worker_command(self.journal, self.service)]
        if self.network is not None:
            journal = self.journal.replace("127.0.0.1", self.network.database)
            commands.append([*self.network.prefix, *worker_command(journal, self.service)])
            forwarder = [sys.executable, ROOT / "network_cut.py", self.network.service, str(port)]
            stack.enter_context(start([*self.network.prefix, *forwarder]))
        self.workers = Workers(wanted.workers, commands, environment, folder / "workers.log")
        stack.callback(self.workers.end)
        control(
            self.service,
            seed=wanted.seed,
            probabilities=FAULT_PROBABILITIES if wanted.faults else {},
            run_time=wanted.run_time,
            latency=0.1,
            media_bytes=20_000,
        )

    def start_call(self, on_ambiguous: str) -> subprocess.Popen:
        arguments = {
            "folder": str(self.folder),
            "journal": self.journal,
            "prompts": self.wanted.prompts,
            "max_concurrency": self.wanted.max_concurrency,
            "shard_size": self.wanted.shard_size,
            "on_ambiguous": on_ambiguous,
        }
        return subprocess.Popen([sys.executable, __file__, "--call", json.dumps(arguments)])  # noqa: S603

    def trouble(self) -> None:
        """Let the batch run to its end while workers, the caller and the database are hit."""
        caller = self.start_call("report")
        try:
            while caller.poll() is None:
                time.sleep(self.rng.uniform(*self.wanted.pause))
                self._hit_one()
                if self._is_due(self.wanted.caller_kills, self.report.caller_kills):
                    caller.kill()
                    caller.wait()
                    self.report.caller_kills += 1
                    caller = self.start_call("report")
                self.workers.tend()
        finally:
            caller.kill()
            caller.wait()

    def _hit_one(self) -> None:
        report, wanted = self.report, self.wanted
        if self._is_due(wanted.restarts, report.restarts):
            self.server.stop(self.rng.choice([signal.SIGINT, signal.SIGQUIT]))
            time.sleep(self.rng.uniform(0, 3))
            self.server.start()
            report.restarts += 1
        if self.network is not None and self._is_due(wanted.cuts, report.cuts):
            self.network.cut(None if wanted.cut_for_good else 45.0)
            report.cuts += 1
        kinds = ["kill"] * (report.kills < wanted.kills) + ["stop"] * (report.stops < wanted.stops)
        match self.rng.choice(kinds) if kinds else None:
            case "kill":
                self.workers.kill(self.rng)
                report.kills += 1
            case "stop":
                report.stops += self.workers.stop(self.rng, self.rng.choice([1.5, 3.0, 8.0]))

    def _is_due(self, count: int, done: int) -> bool:
        """Whether the next of so many events is due, which come at equal distances of the submits."""
        return done < count and self._count_accepted() >= self.wanted.prompts * (done + 1) // (count + 1)

    def _count_accepted(self) -> int:
        return len(control(self.service)["jobs"])

    def finish(self) -> None:
        """Make the call again without any trouble, until no submit is ambiguous."""
        self.workers.tend(is_over=True)
        control(self.service, probabilities={})
        for _ in range(MAX_FINAL_CALLS):
            caller = self.start_call("resend")
            deadline = time.monotonic() + 600
            while caller.poll() is None:
                if time.monotonic() > deadline:
                    caller.kill()
                    raise RuntimeError("the batch did not end within 600 s")
                time.sleep(0.2)
                self.workers.tend()
            if caller.returncode:
                raise RuntimeError(f"the call ended with {caller.returncode}")
            if all(result["state"] == "succeeded" for result in self._results()["results"]):
                return

    def count(self) -> None:
        """Compare the jobs of the service with the results of the call."""
        read = self._results()
        results = read["results"]
        counts = control(self.service)
        wanted, jobs = Counter(make_prompts(self.wanted.prompts)), counts["jobs"]
        bought = Counter(job["prompt"] for job in jobs)
        known = {result["request_id"] for result in results}
        sizes = {job["request_id"]: job["bytes"] for job in jobs}
        report = self.report
        report.accepted = len(jobs)
        report.lost = [job["request_id"] for job in jobs if job["request_id"] not in known]
        report.bought_twice = [prompt for prompt in wanted if bought[prompt] > wanted[prompt]]
        report.not_bought = [prompt for prompt in wanted if bought[prompt] < wanted[prompt]]
        for result in results:
            request_id, path = result["request_id"], result["path"]
            if not path or Path(path).read_bytes() != video_bytes(request_id, sizes.get(request_id, 0)):
                report.broken.append(f"{request_id} {result['state']} {result['error']}")
        report.events = read["events"]
        report.faults = counts["faults"]

    def _results(self) -> dict:
        return json.loads((self.folder / "results.json").read_text())


def worker_command(journal: str, service: str) -> list[str]:
    program = [sys.executable, "-m", "kling_async", "worker"]
    return [*program, "--journal", journal, "--base-url", service, "--grace", "5"]


@contextmanager
def open_database(network: Network | None) -> Iterator[postgres_server.Server]:
    programs = postgres_server.find_programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed")
    if network is not None:
        postgres_server._SETTINGS["listen_addresses"] += f",{network.database}"
    with postgres_server.run_server(programs) as server:
        if network is not None:
            with (server.folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {network.range} scram-sha-256\n")
            server.stop()
            server.start()
        yield server


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--call", help=argparse.SUPPRESS)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--stops", type=int, default=60)
    parser.add_argument("--restarts", type=int, default=0, help="of PostgreSQL")
    parser.add_argument("--caller-kills", type=int, default=0)
    parser.add_argument("--cuts", type=int, default=0, help="of the network between a worker and PostgreSQL")
    parser.add_argument("--cut-for-good", action="store_true", help="the network is not joined again")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--calm", dest="faults", action="store_false", help="the service injects no faults")
    parser.add_argument("--max-concurrency", type=int, default=20)
    parser.add_argument("--shard-size", type=int, default=50)
    parser.add_argument("--run-time", type=float, default=3.0, help="seconds of a job")
    parser.add_argument("--pause", type=float, nargs=2, default=(0.5, 2.0), help="seconds between two hits")
    parser.add_argument("--keep-log", type=Path, help="copy the log of the workers to this file")
    return parser.parse_args()


def main() -> int:
    """Run the program with the arguments of the command line."""
    wanted = read_arguments()
    if wanted.call:
        asyncio.run(call(json.loads(wanted.call)))
        return 0
    print(f"seed {wanted.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        run = Run(wanted, Path(name), stack)
        try:
            run.trouble()
            run.finish()
            run.count()
        finally:
            if wanted.keep_log:
                wanted.keep_log.write_bytes((Path(name) / "workers.log").read_bytes())
    run.report.seconds = round(time.monotonic() - began, 1)
    print(json.dumps(asdict(run.report), indent=1))
    return 0 if run.report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
