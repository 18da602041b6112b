"""One client, measured in a process of its own: CPU, wall time and successes of one crowd of jobs."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks import clients, machine
from benchmarks.jobs import Workload, prompts


def measure(
    service: machine.RunningService,
    subject: str,
    workload: Workload,
    *,
    jobs: int,
    options: dict[str, Any] | None = None,
    warm_up: bool = True,
) -> dict[str, Any]:
    """CPU and wall seconds of one client for that many jobs at once, beside what the service saw of it.

    `warm_up` has the client make one job first, so that `cpu` holds no imports. Without it `cpu_process` is
    what the whole process cost, from the start of the interpreter.
    """
    argument = {
        "service": service.url,
        "subject": subject,
        "workload": vars(workload),
        "jobs": jobs,
        "options": options or {},
        "warm_up": warm_up,
    }
    result = machine.in_fresh_process("benchmarks.child", argument)
    result |= service.report()
    counts = result["requests"]
    result["requests_per_job"] = sum(counts[kind] for kind in ("submit", "get", "list", "other")) / jobs
    result["cpu_per_job"] = result["cpu"] / jobs
    return result


def main() -> None:
    """Measure what the argument asks for and print the figures as JSON."""
    wanted = json.loads(sys.argv[1])
    subject, options = wanted["subject"], wanted["options"]
    service = machine.RunningService(wanted["service"])
    crowd = list(prompts(wanted["jobs"]))
    if wanted["warm_up"]:
        service.reset(Workload())
        hurried = _client(subject, {**options, "poll_interval": clients.HURRIED})
        asyncio.run(_one_run(hurried, service.url, crowd[:1]))
    service.reset(Workload(**wanted["workload"]))
    wall, cpu = time.perf_counter(), time.process_time()
    succeeded = asyncio.run(_one_run(_client(subject, options), service.url, crowd))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    figures = {"succeeded": succeeded, "cpu": cpu, "cpu_process": time.process_time(), "wall": wall}
    print(json.dumps(figures))


def _client(subject: str, options: dict[str, Any]) -> clients.Client:
    if subject == "floor":
        return clients.floor
    if subject == "ours":
        return partial(clients.ours, **options)
    return clients.PEERS[subject][0]


async def _one_run(client: clients.Client, service: str, crowd: Sequence[str]) -> int:
    return await client(service, crowd)
