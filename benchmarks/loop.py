"""How long other tasks of the event loop wait at most, while many items are read, resumed or listed.

A task that gives way at once measures each turn of the loop: its time, and the CPU of the loop's thread, which a busy
machine does not lengthen. A full garbage collection of Python holds every thread, the longer the more objects the program
has. Its time is shown by itself, and is not in the CPU of a turn.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import figures, machine
from benchmarks.jobs import Workload, prompts

if TYPE_CHECKING:
    from kling_async import KlingClient

MARK_MS = 50
NEW_ITEMS, FINISHED_ITEMS = 50_000, 30_000
CASES = {
    "prompts": "new prompts at once, 1,000 in flight",
    "resume": "finished items again, all at once",
    "resume entries": "the same, from the journal's entries",
    "register": "finished items registered again",
    "preview": "a preview of finished items",
    "entries": "the journal's entries with async for",
}


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # every measure's form
    """The longest turn of the loop in each case."""
    new, finished = (200, 100) if quick else (NEW_ITEMS, FINISHED_ITEMS)
    machine.tell(f"{new:,} new and {finished:,} finished items")
    with machine.service() as service:
        argument = {"service": service.url, "new": new, "finished": finished}
        rows = machine.in_fresh_process("benchmarks.loop", argument)["rows"]
    return {"measure": "loop", "environment": machine.environment(), "rows": rows}


def main() -> None:
    """Run all cases in this very process and print their figures as JSON."""
    wanted = json.loads(sys.argv[1])
    service = machine.RunningService(wanted["service"])
    service.reset(Workload(rows_per_call=1_000))
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(_run(service.url, wanted["new"], wanted["finished"], Path(folder) / "run.db"))
    print(json.dumps({"rows": rows}))


async def _run(service: str, new: int, finished: int, journal: Path) -> list[dict[str, Any]]:
    from kling_async import Journal

    rows: list[dict[str, Any]] = []
    made, crowd = list(prompts(finished)), list(prompts(new))
    async with _open_client(service) as client:  # makes the journal, and imports all modules
        await client.generate_many(made, max_concurrency=1_000, journal=journal, progress=False)
    async with _open_client(service) as client, _measure("prompts", new, rows):
        await client.generate_many(crowd, max_concurrency=1_000, progress=False)
    async with _open_client(service) as client, _measure("resume", finished, rows):
        batch = await client.generate_many(made, max_concurrency=finished, journal=journal, progress=False)
    rows[-1]["succeeded"] = len(batch.succeeded)
    entries = await asyncio.to_thread(lambda: list(Journal(journal).entries()))
    async with _open_client(service) as client, _measure("resume entries", finished, rows):
        await client.generate_many(entries, max_concurrency=finished, journal=journal, progress=False)
    del batch, entries
    async with _measure("register", finished, rows):
        await Journal(journal).register(made)
    async with _measure("preview", finished, rows):
        await Journal(journal).preview(made)
    async with _measure("entries", finished, rows):
        async for _ in Journal(journal).entries():
            pass
    return rows


def _open_client(service: str) -> KlingClient:
    """A client of its own for each case: a client keeps its last batch, and to free that takes a while."""
    from kling_async import KlingClient, Limits

    limits = Limits(max_concurrent_submits=100, max_polls_per_second=math.inf)
    return KlingClient("key", base_url=service, limits=limits)


@asynccontextmanager
async def _measure(case: str, items: int, rows: list[dict[str, Any]]) -> AsyncIterator[None]:
    """Add the longest turn of the loop in the block."""
    collections = _Collections()
    gc.callbacks.append(collections)
    began = time.perf_counter()
    watch = asyncio.create_task(_watch(collections))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        watch.cancel()
        gc.callbacks.remove(collections)
    longest, longest_cpu = await watch
    row = {"longest": longest, "longest_cpu": longest_cpu, "collection": collections.longest}
    rows.append({"case": case, "items": items, "wall": time.perf_counter() - began, **row})


async def _watch(collections: _Collections) -> tuple[float, float]:
    """The seconds of the longest turn until this task is cancelled, and the most CPU of a turn without collections."""
    longest = longest_cpu = 0.0
    began, cpu_began = time.perf_counter(), time.thread_time() - collections.cpu
    try:
        while True:
            await asyncio.sleep(0)
            now, cpu = time.perf_counter(), time.thread_time() - collections.cpu
            longest, longest_cpu = max(longest, now - began), max(longest_cpu, cpu - cpu_began)
            began, cpu_began = now, cpu
    except asyncio.CancelledError:
        return longest, longest_cpu


class _Collections:
    """The seconds of the longest garbage collection, and the CPU of all in the thread of the loop; a callback of `gc`."""

    def __init__(self) -> None:
        self.cpu = self.longest = self._began = self._cpu_began = 0.0
        self._thread = threading.get_ident()

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        if phase == "start":
            self._began, self._cpu_began = now, cpu
            return
        self.longest = max(self.longest, now - self._began)
        if threading.get_ident() == self._thread:
            self.cpu += cpu - self._cpu_began


def table(result: dict[str, Any]) -> str:
    """One line a case: milliseconds of the longest turn, with and without garbage collections."""
    header = ["case", "", "items", "ms/item", "longest ms", "longest collection ms", "CPU ms", "mark"]
    rows: list[list[figures.Cell]] = []
    for row in result["rows"]:
        cpu_ms = row["longest_cpu"] * 1e3
        is_marked = row["items"] in {NEW_ITEMS, FINISHED_ITEMS}
        rows.append(
            [
                row["case"],
                CASES[row["case"]],
                row["items"],
                row["wall"] / row["items"] * 1e3,
                row["longest"] * 1e3,
                row["collection"] * 1e3,
                cpu_ms,
                figures.against(MARK_MS, cpu_ms) if is_marked else "",
            ]
        )
    return figures.table_of(header, rows)
