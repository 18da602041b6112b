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
import gc
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio.lowlevel
import psycopg

# A worker and a call are forks of this process: modules imported here need no import in each of them.
import kling_async._display.progress
import kling_async._engine.batch.batch
import kling_async._journal.postgres.store
import kling_async._transport.open_transport  # noqa: F401
from kling_async.cli.app import run as run_command
from kling_async.distributed import generate_many_on

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
COUNT_SHARDS = """
    SELECT count(*) FROM procrastinate_jobs AS job
    JOIN pg_locks AS lock ON lock.locktype = 'advisory' AND (lock.classid::bigint << 32 | lock.objid::bigint)
        = hashtextextended('kling_async public shard ' || job.id, 0)
    JOIN pg_stat_activity AS session ON session.pid = lock.pid
    WHERE job.status = 'doing' AND session.client_addr <<= %s::inet
"""
"""Counts the shards that the workers of a network run."""
CUT_TIME = 45.0
"""Seconds of a cut, which are more than a session lives."""
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
    cut_shards: int = 0
    """Shards of a worker at the times of its cuts."""
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


def fork(work: Callable[[], object]) -> int:
    """Run a function in a forked process, whose exit status it returns; gives the process id."""
    child = os.fork()
    if child:
        return child
    status: object = 1
    try:
        status = work()
    except BaseException:  # noqa: BLE001 - a forked child cannot raise to a caller
        traceback.print_exc()
    finally:
        os._exit(status if isinstance(status, int) else 0)


def kill(process: int) -> None:
    """Kill a process, also one that stands still."""
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def exit_status(process: int) -> int | None:
    """The exit status of a process; None while it runs."""
    ended, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


class Workers:
    """The worker processes of a run."""

    def __init__(self, count: int, commands: list[Callable[[], object]], log: Path) -> None:
        self._count = count
        self._commands = commands
        """What a worker runs, here or inside the network that can be cut."""
        self._log = log.open("ab")
        self._processes: dict[int, int] = {}
        """By place, the worker there."""
        self._stopped: dict[int, float] = {}
        """By worker that stands still, when it continues."""
        self.is_cut = False
        """Whether the workers inside the network cannot reach the database, so that it is of no use to start one."""
        self._start_missing()

    def _start_missing(self) -> None:
        for place in range(self._count):
            inside = place % len(self._commands)
            if place not in self._processes and not (inside and self.is_cut):
                self._processes[place] = fork(lambda inside=inside: self._work(self._commands[inside]))

    def _work(self, command: Callable[[], object]) -> object:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(self._log.fileno(), 2)
        return command()

    def kill(self, rng: random.Random) -> None:
        """Kill one worker, and start a new one in its place."""
        place = rng.choice(sorted(self._processes))
        worker = self._processes.pop(place)
        self._stopped.pop(worker, None)
        kill(worker)
        self._start_missing()

    def stop(self, rng: random.Random, seconds: float) -> bool:
        """Make one worker stand still; False if all do already."""
        running = [worker for worker in self._processes.values() if worker not in self._stopped]
        if not running:
            return False
        worker = rng.choice(running)
        os.kill(worker, signal.SIGSTOP)
        self._stopped[worker] = time.monotonic() + seconds
        return True

    def tend(self, *, is_over: bool = False) -> None:
        """Let workers continue whose time is over, and start those again that ended by themselves."""
        for worker, until in list(self._stopped.items()):
            if is_over or time.monotonic() > until:
                os.kill(worker, signal.SIGCONT)
                del self._stopped[worker]
        for place, worker in list(self._processes.items()):
            if exit_status(worker) is not None:
                del self._processes[place]
        self._start_missing()

    def end(self) -> None:
        for worker in self._processes.values():
            kill(worker)
        self._log.close()


class Run:
    """One batch with all that happens to it."""

    def __init__(self, wanted: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self.wanted = wanted
        self.folder = folder
        self.rng = random.Random(wanted.seed)  # noqa: S311
        self.report = Report(prompts=wanted.prompts)
        self.network: Network | None = stack.enter_context(open_network()) if wanted.cuts else None
        self.joins_at = math.inf
        """When the network is whole again."""
        host = "0.0.0.0" if self.network else "127.0.0.1"  # noqa: S104 - the hosts of the other namespace
        port = stack.enter_context(start_service(folder, host))
        self.service = f"http://127.0.0.1:{port}"
        self.server = stack.enter_context(open_database(self.network))
        self.journal = self.server.url()
        commands = [lambda: run_command(worker_arguments(self.journal, self.service))]
        if self.network is not None:
            journal = self.journal.replace("127.0.0.1", self.network.database)
            inside = [*self.network.prefix, sys.executable, "-m", "kling_async"]
            inside += worker_arguments(journal, self.service)
            commands.append(lambda: os.execvp(inside[0], inside))  # noqa: S606 - our own
            forwarder = [sys.executable, ROOT / "network_cut.py", self.network.service, str(port)]
            stack.enter_context(start([*self.network.prefix, *forwarder]))
        self.workers = Workers(wanted.workers, commands, folder / "workers.log")
        stack.callback(self.workers.end)
        control(
            self.service,
            seed=wanted.seed,
            probabilities=FAULT_PROBABILITIES if wanted.faults else {},
            run_time=wanted.run_time,
            latency=0.1,
            media_bytes=20_000,
        )

    def start_call(self, on_ambiguous: str) -> int:
        arguments = {
            "folder": str(self.folder),
            "journal": self.journal,
            "prompts": self.wanted.prompts,
            "max_concurrency": self.wanted.max_concurrency,
            "shard_size": self.wanted.shard_size,
            "on_ambiguous": on_ambiguous,
        }
        return fork(lambda: asyncio.run(call(arguments)))

    def trouble(self) -> None:
        """Let the batch run to its end while workers, the caller and the database are hit."""
        caller = self.start_call("report")
        try:
            while exit_status(caller) is None:
                time.sleep(self.rng.uniform(*self.wanted.pause))
                self._hit_one()
                if self._is_due(self.wanted.caller_kills, self.report.caller_kills):
                    kill(caller)
                    self.report.caller_kills += 1
                    caller = self.start_call("report")
                self._tend()
        except BaseException:
            kill(caller)
            raise

    def _hit_one(self) -> None:
        report, wanted = self.report, self.wanted
        if self._is_due(wanted.restarts, report.restarts):
            self.server.stop(self.rng.choice([signal.SIGINT, signal.SIGQUIT]))
            time.sleep(self.rng.uniform(0, 3))
            self.server.start()
            report.restarts += 1
        is_due = not self.workers.is_cut and self._is_due(wanted.cuts, report.cuts)
        if self.network is not None and is_due:
            self._cut(self.network)
        kinds = ["kill"] * (report.kills < wanted.kills) + ["stop"] * (report.stops < wanted.stops)
        match self.rng.choice(kinds) if kinds else None:
            case "kill":
                self.workers.kill(self.rng)
                report.kills += 1
            case "stop":
                report.stops += self.workers.stop(self.rng, self.rng.choice([1.5, 3.0, 8.0]))

    def _cut(self, network: Network) -> None:
        """Cut the network, as soon as the worker inside runs a shard."""
        with psycopg.connect(self.journal) as connection:
            ((shards,),) = connection.execute(COUNT_SHARDS, [network.range])
        if not shards:
            return
        network.cut()
        self.workers.is_cut = True
        self.joins_at = math.inf if self.wanted.cut_for_good else time.monotonic() + CUT_TIME
        self.report.cuts += 1
        self.report.cut_shards += shards

    def _tend(self, *, is_over: bool = False) -> None:
        """End what has lasted for its time, and start workers again that have ended."""
        if self.network is not None and time.monotonic() >= self.joins_at:
            self.network.join()
            self.workers.is_cut = False
            self.joins_at = math.inf
        self.workers.tend(is_over=is_over)

    def _is_due(self, count: int, done: int) -> bool:
        """Whether the next of so many events is due, which come at equal distances of the submits."""
        return done < count and self._count_accepted() >= self.wanted.prompts * (done + 1) // (count + 1)

    def _count_accepted(self) -> int:
        return len(control(self.service)["jobs"])

    def finish(self) -> None:
        """Make the call again without any trouble, until no submit is ambiguous."""
        self._tend(is_over=True)
        control(self.service, probabilities={})
        for _ in range(MAX_FINAL_CALLS):
            caller = self.start_call("resend")
            deadline = time.monotonic() + 600
            while (status := exit_status(caller)) is None:
                if time.monotonic() > deadline:
                    kill(caller)
                    raise RuntimeError("the batch did not end within 600 s")
                time.sleep(0.2)
                self._tend()
            if status:
                raise RuntimeError(f"the call ended with {status}")
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


def worker_arguments(journal: str, service: str) -> list[str]:
    """The arguments of `kling-async`."""
    return ["worker", "--journal", journal, "--base-url", service, "--grace", "5"]


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
                rules.write(f"host all all {network.range} md5\n")
            server.stop()
            server.start()
        yield server


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    os.environ["GMI_API_KEY"] = "any-key"
    asyncio.run(anyio.lowlevel.checkpoint())  # imports what anyio needs with asyncio
    gc.freeze()  # a collection in a fork would copy the memory of all that is imported
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
