"""Processes, processors and versions: where a measure runs, and what it ran with.

The service gets the first processor and whatever is measured gets the last, so that neither steals
from the other. Children import this very folder, but the installed `kling_async` if there is one.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import IO, Any

from benchmarks.jobs import Workload

HERE = Path(__file__).parent
PEERS = [
    line.strip()
    for line in (HERE / "peers.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]
"""What `pip` installs to measure the peers, each with its version."""
OUR_STACK = ("kling_async", "aiohttp", "anyio", "attrs", "cattrs", "msgspec", "orjson")
_first = Lock()
"""Held while a thread asks for the folder of compiled modules, so that there is only one."""


def processors() -> tuple[int | None, int | None]:
    """The processor of the service and that of the client; None where they cannot be kept apart."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else (None, None)


def pin(process: subprocess.Popen[Any], processor: int | None) -> None:
    """Keep a process just started, and the threads that it will start, on one processor."""
    if processor is not None:
        os.sched_setaffinity(process.pid, {processor})


def start(
    module: str,
    *,
    processor: int | None,
    argument: str = "",
    stdin: int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[str]:
    """A new interpreter that runs `main()` of one of these modules, with `argument` as its argument."""
    program = f"from {module} import main; main()"
    return _start(program, argument, processor=processor, stdin=stdin, stderr=stderr)


def _start(
    program: str, *arguments: str, processor: int | None, stdin: int | None = None, stderr: int | None = None
) -> subprocess.Popen[str]:
    path = f"import sys; sys.path.append({str(HERE.parent)!r})"
    command = [sys.executable, "-c", f"{path}\n{program}", *arguments]
    with _first:
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": _bytecode_folder().name}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.Popen(
        command, text=True, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=environ
    )
    pin(process, processor)
    return process


def tell(what: str) -> None:
    """Say on standard error what is being measured, for runs of many minutes."""
    print(f"measuring {what} ...", file=sys.stderr, flush=True)


@cache
def _bytecode_folder() -> tempfile.TemporaryDirectory[str]:
    """Where children keep compiled modules: they start as an installed program does, whatever this process may write."""
    return tempfile.TemporaryDirectory(prefix="benchmarks-")


@dataclass
class RunningService:
    """The simulated service as the benchmark sees it."""

    url: str

    def reset(self, workload: Workload) -> None:
        """Forget all jobs and start a new run."""
        self._ask("reset", json.dumps(asdict(workload)).encode())

    def inject(self, **fault: Any) -> None:
        """Let answers fail so from now on; see `service.Fault`."""
        self._ask("fault", json.dumps(fault).encode())

    def report(self) -> dict[str, Any]:
        """Counts of requests by kind, and of jobs accepted and told."""
        report: dict[str, Any] = self._ask("report", None)
        return report

    def records(self) -> list[tuple[float, float, float | None]]:
        """When each job was accepted, finished and told, in seconds after the first was accepted."""
        return [tuple(row) for row in self._ask("records", None)]

    def ids(self) -> list[str]:
        """The id of every job that was accepted."""
        ids: list[str] = self._ask("ids", None)
        return ids

    def _ask(self, what: str, body: bytes | None) -> Any:
        request = urllib.request.Request(f"{self.url}/control/{what}", data=body)  # noqa: S310  # loopback
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310  # loopback
            return json.load(reply)


@contextmanager
def service() -> Iterator[RunningService]:
    """The simulated service, running in its own process until the block ends."""
    processor, _ = processors()
    process = start("benchmarks.service", processor=processor, stdin=subprocess.PIPE)
    with process:
        try:
            yield RunningService(f"http://127.0.0.1:{int(_first_line(process.stdout))}")
        finally:
            process.terminate()


def _first_line(stream: IO[str] | None) -> str:
    assert stream is not None
    line: str = stream.readline()
    return line


def in_fresh_process(module: str, argument: dict[str, Any]) -> dict[str, Any]:
    """What `main()` of a module prints as JSON, run by itself on the client's processor.

    Raises:
        ChildFailedError: it ended with another status than 0.
    """
    _, processor = processors()
    text = json.dumps(argument)
    return _read_result(start(module, processor=processor, argument=text, stderr=subprocess.PIPE), argument)


def in_bare_process(program: str) -> dict[str, Any]:
    """What a few lines print as JSON, run on the client's processor by an interpreter that has imported nothing else.

    Raises:
        ChildFailedError: it ended with another status than 0.
    """
    _, processor = processors()
    return _read_result(_start(program, processor=processor, stderr=subprocess.PIPE), program)


def _read_result(process: subprocess.Popen[str], what: object) -> dict[str, Any]:
    output, errors = process.communicate()
    if process.returncode:
        raise ChildFailedError(f"{what} ended with status {process.returncode}: {errors[-2000:]}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


class ChildFailedError(RuntimeError):
    """A measured process broke down; the text ends with what it said."""


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """The machine, the interpreter and the versions of everything that is measured."""
    peers = {line.partition("==")[0]: version_of(line.partition("==")[0]) for line in PEERS}
    service_processor, client_processor = processors()
    return {
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}, {_processor_name()}",
        "processors": os.cpu_count(),
        "service_on_processor": service_processor,
        "client_on_processor": client_processor,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version for name in OUR_STACK if (version := version_of(name))},
        "peers": {name: version for name, version in peers.items() if version},
        "peers_missing": sorted(name for name, version in peers.items() if version is None),
    }


def _processor_name() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
