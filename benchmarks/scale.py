"""What stays the same when jobs become many: CPU per job, memory per job in flight, memory of lazy input.

Three runs through `client.stream_many()`, each in a fresh process:

- *stream*: instant jobs, at most a thousand in flight at once;
- *flight*: no job finishes before all are accepted, so all are in flight at once;
- *lazy*: prompts from a generator, memory read while they run.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import figures, machine
from benchmarks.clients import HURRIED
from benchmarks.jobs import Workload, prompts

IN_FLIGHT_AT_ONCE = 1_000
CPU_MARK = 1.2
MEMORY_MARK_BYTES = 4_096
MARKED_JOBS = 100_000
LAZY_READINGS = 20


def measure(quick: bool, *, full: bool = False) -> dict[str, Any]:  # noqa: FBT001  # every measure's form
    """Figures of the three runs; `full` streams a million lazy prompts, which takes many minutes."""
    sizes = [50, 200] if quick else [1_000, 10_000, MARKED_JOBS]
    lazy_jobs = 1_000_000 if full else sizes[-1]
    with machine.service() as service:
        stream = [
            _run(service, jobs, Workload(rows_per_call=1_000), in_flight=IN_FLIGHT_AT_ONCE) for jobs in sizes
        ]
        flight = [
            _run(service, jobs, Workload(rows_per_call=1_000, hold_until_jobs=jobs), in_flight=jobs)
            for jobs in sizes
        ]
        lazy = _run(service, lazy_jobs, Workload(rows_per_call=1_000), in_flight=IN_FLIGHT_AT_ONCE)
    return {
        "measure": "scale",
        "environment": machine.environment(),
        "stream": stream,
        "flight": flight,
        "lazy": lazy,
    }


def _run(service: machine.RunningService, jobs: int, workload: Workload, *, in_flight: int) -> dict[str, Any]:
    machine.tell(f"{jobs:,} jobs, {in_flight:,} in flight at once")
    argument = {"service": service.url, "jobs": jobs, "workload": vars(workload), "in_flight": in_flight}
    result = machine.in_fresh_process("benchmarks.scale", argument)
    requests = service.report()["requests"]
    result |= {
        "jobs": jobs,
        "requests_per_job": (requests["submit"] + requests["get"] + requests["list"]) / jobs,
    }
    return result


def main() -> None:
    """Run one batch in this very process and print its figures as JSON."""
    wanted = json.loads(sys.argv[1])
    service = machine.RunningService(wanted["service"])
    service.reset(Workload())
    asyncio.run(_stream(service.url, 1, in_flight=1, poll_interval=HURRIED))
    service.reset(Workload(**wanted["workload"]))
    print(json.dumps(asyncio.run(_stream(service.url, wanted["jobs"], in_flight=wanted["in_flight"]))))


async def _stream(
    service: str, jobs: int, *, in_flight: int, poll_interval: float | None = None
) -> dict[str, Any]:
    """One batch of lazily made prompts, its results dropped as they come."""
    from kling_async import KlingClient, Limits, PollingPolicy

    polling = PollingPolicy(poll_interval=poll_interval)
    limits = Limits(max_concurrent_submits=100, max_polls_per_second=math.inf)
    start_bytes, wall, cpu = resident_bytes(), time.perf_counter(), time.process_time()
    succeeded = 0
    readings: list[int] = []
    async with KlingClient("key", base_url=service, limits=limits, polling=polling) as client:
        batch = client.stream_many(prompts(jobs), max_concurrency=in_flight, progress=False)
        async with batch as results:
            async for result in results:
                succeeded += result.ok
                if succeeded % max(jobs // LAZY_READINGS, 1) == 0:
                    readings.append(resident_bytes() - start_bytes)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "succeeded": succeeded,
        "cpu_per_job": cpu / jobs,
        "wall": wall,
        "peak_bytes": peak_resident_bytes() - start_bytes,
        "readings_bytes": readings,
    }


def resident_bytes() -> int:
    """What the process holds in memory now; where the system does not tell, the most it ever held."""
    described = Path("/proc/self/statm")
    if described.exists():
        import resource

        return int(described.read_text().split()[1]) * resource.getpagesize()
    return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """The most memory that the process ever held; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def table(result: dict[str, Any]) -> str:
    """CPU and memory by number of jobs, and memory along the lazy run."""
    header = [
        "run",
        "jobs",
        "CPU ms/job",
        "/ fewest",
        "peak MiB",
        "bytes/job",
        "requests/job",
        "wall s",
        "marks",
    ]
    rows = [_row(run, row, result[run][0]) for run in ("stream", "flight") for row in result[run]]
    rows.append(_row("lazy", result["lazy"], result["stream"][0]))
    readings = " ".join(f"{reading / 2**20:.1f}" for reading in result["lazy"]["readings_bytes"])
    return f"{figures.table_of(header, rows)}\nMiB more than at the start, along the lazy run: {readings}"


def _row(run: str, row: dict[str, Any], fewest: dict[str, Any]) -> list[figures.Cell]:
    ratio = row["cpu_per_job"] / fewest["cpu_per_job"]
    bytes_per_job = row["peak_bytes"] / row["jobs"] if run == "flight" else None
    marks = ""
    if row["jobs"] == MARKED_JOBS and run == "stream":
        marks = f"CPU {figures.against(CPU_MARK, ratio)}"
    elif row["jobs"] == MARKED_JOBS and bytes_per_job is not None:
        marks = f"memory {figures.against(MEMORY_MARK_BYTES, bytes_per_job)}"
    mib = row["peak_bytes"] / 2**20
    figures_of_row = [
        row["cpu_per_job"] * 1e3,
        ratio,
        mib,
        bytes_per_job,
        row["requests_per_job"],
        row["wall"],
    ]
    return [run, row["jobs"], *figures_of_row, marks]
