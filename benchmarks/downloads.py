"""Sixty-four videos of 16 MiB from loopback, against `curl --parallel`.

Both write into the same folder and take turns; each round starts with an empty folder. Ours makes sure that each
file is on the disk before it is done, which curl leaves to the system; what that would cost curl is shown too.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import figures, machine
from benchmarks.clients import HURRIED
from benchmarks.jobs import Workload, prompts
from benchmarks.scale import peak_resident_bytes, resident_bytes
from benchmarks.service import MEDIA_SIZE_BYTES

MARK = 0.75


def measure(quick: bool, *, folder: str | None = None) -> dict[str, Any]:  # noqa: FBT001  # every measure's form
    """Bytes a second of ours and of curl; `folder` is where files go (a temporary one if not given)."""
    files, rounds = (4, 1) if quick else (64, 5)
    ours, curl = [], []
    with machine.service() as service:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(dir=folder) as target:
                ours.append(
                    machine.in_fresh_process("benchmarks.downloads", _argument(service, target, files))
                )
            if shutil.which("curl"):
                with tempfile.TemporaryDirectory(dir=folder) as target:
                    curl.append(_by_curl(service, target, files))
    return {
        "measure": "downloads",
        "environment": machine.environment(),
        "files": files,
        "size_bytes": MEDIA_SIZE_BYTES,
        "ours": ours,
        "curl": curl,
        "curl_version": _curl_version() if curl else None,
    }


def _argument(service: machine.RunningService, target: str, files: int) -> dict[str, Any]:
    return {"service": service.url, "target": target, "files": files}


def main() -> None:
    """Download in this very process and print the figures as JSON."""
    wanted = json.loads(sys.argv[1])
    service = machine.RunningService(wanted["service"])
    service.reset(Workload(media_url=f"{service.url}/media/{{id}}.mp4"))
    print(json.dumps(asyncio.run(_by_ours(service.url, Path(wanted["target"]), wanted["files"]))))


async def _by_ours(service: str, target: Path, files: int) -> dict[str, Any]:
    from kling_async import KlingClient, PollingPolicy

    polling = PollingPolicy(poll_interval=HURRIED)
    async with KlingClient("key", base_url=service, polling=polling) as client:
        batch = await client.generate_many(prompts(files + 1), max_concurrency=files + 1, progress=False)
        warm_up, *jobs = [result.job_or_raise() for result in batch]
        (await client.download(warm_up, target / "warm-up.mp4")).unlink()
        start_bytes, start, cpu = resident_bytes(), time.perf_counter(), time.process_time()
        paths = await asyncio.gather(
            *(client.download(job, target / f"{number}.mp4") for number, job in enumerate(jobs))
        )
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    received = sum(path.stat().st_size for path in paths)
    return {
        "wall": wall,
        "cpu": cpu,
        "received_bytes": received,
        "grown_bytes": peak_resident_bytes() - start_bytes,
    }


def _by_curl(service: machine.RunningService, target: str, count: int) -> dict[str, Any]:
    _, processor = machine.processors()
    urls = [f"{service.url}/media/{number}.mp4" for number in range(count)]
    command = ["curl", "--no-progress-meter", "--fail", "--parallel", "--remote-name-all", *urls]
    start, cpu = time.perf_counter(), _children_cpu()
    with subprocess.Popen(command, cwd=target) as process:
        machine.pin(process, processor)
    wall, cpu = time.perf_counter() - start, _children_cpu() - cpu
    files = list(Path(target).iterdir())
    for path in files:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    synced_wall = time.perf_counter() - start
    received = sum(path.stat().st_size for path in files)
    return {"wall": wall, "cpu": cpu, "synced_wall": synced_wall, "received_bytes": received}


def _children_cpu() -> float:
    """Processor seconds of the children that have ended; the service has not."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _curl_version() -> str:
    shown = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True)  # noqa: S607
    return " ".join(shown.stdout.split()[:2])


def table(result: dict[str, Any]) -> str:
    """Throughput and processor seconds of both, the ratio, and how much memory ours took."""
    header = ["client", "files", "MiB/s", "least", "most", "/ curl", "CPU s", "memory grew MiB", "mark"]
    files, ours, curl = result["files"], result["ours"], result["curl"]
    speed, theirs = _speeds(ours), _speeds(curl)
    grown = max(run["grown_bytes"] for run in ours) / 2**20
    ratio = speed["median"] / theirs["median"] if curl else None
    mark = "" if ratio is None else figures.against(MARK, ratio, at_least=True)
    rows: list[list[figures.Cell]] = [["ours", files, *speed.values(), ratio, _cpu(ours), grown, mark]]
    if not curl:
        return f"{figures.table_of(header, rows)}\ncurl is not installed here, so there is nothing to compare with."
    synced = _speeds(curl, wall="synced_wall")
    of_curl = synced["median"] / theirs["median"]
    rows.append([result["curl_version"], files, *theirs.values(), 1.0, _cpu(curl), None, ""])
    rows.append(["the same, synced", files, *synced.values(), of_curl, None, None, ""])
    return figures.table_of(header, rows)


def _cpu(runs: list[dict[str, Any]]) -> float:
    return figures.spread([run["cpu"] for run in runs])["median"]


def _speeds(runs: list[dict[str, Any]], *, wall: str = "wall") -> dict[str, float]:
    return figures.spread([run["received_bytes"] / run[wall] / 2**20 for run in runs]) if runs else {}
