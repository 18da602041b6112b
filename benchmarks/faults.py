"""What one logical call costs, and what becomes of its video, when the service fails after it accepted the job.

Every client speaks its own wire form to the same simulated service, which accepts each POST that it reads and counts
them. One request may take a second. What a client does by itself is what counts: it is called once, as its own
documentation shows, and nothing is caught around it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from benchmarks import clients, figures, machine
from benchmarks.jobs import Workload
from benchmarks.service import LATE

TIMEOUT = 1.0
"""Seconds for one request of any client."""
LONGEST_CALL = 75.0
"""Seconds after which a call that has not ended is cancelled. One client gives a POST 60 s, whatever it is told."""
RUN_TIME = 0.5
AT_ONCE = 8
"""Cases under way at the same time; they mostly wait."""

CASES: dict[str, dict[str, Any]] = {
    "answers 500": {"on": "submit", "how": "500"},
    "drops the reply": {"on": "submit", "how": "drop"},
    "stalls": {"on": "submit", "how": "stall"},
    "two polls fail": {"on": "poll", "how": "500", "times": 2},
    "12 polls answer 503": {"on": "poll", "how": "503", "times": 12},
    "a new status": {"on": "poll", "how": "word", "times": 2},
    "the caller cancels": {"on": "submit", "how": "late"},
}
"""The fault of the answers, by the name of the column."""
CANCELLED = "the caller cancels"
OURS = "kling_async"
NAMES = {
    "fal": "fal-client",
    "runwayml": "runwayml",
    "openai": "openai",
    "replicate": "replicate",
    "genblaze": "genblaze-gmicloud",
}
"""Each peer and its distribution."""
SAYS_FAILED = {"genblaze"}
"""Who gives back a result that says it failed, where others raise."""


async def ours(service: str, prompts: Sequence[str], *, timeout: float) -> int:  # noqa: ASYNC109 - the client's own
    """This project's `generate`; by default it would ask less often in an outage, and take minutes."""
    from kling_async import KlingClient, RetryPolicy, VideoRequest

    retry = RetryPolicy(max_delay=4.0)
    async with KlingClient("key", base_url=service, timeout=timeout, retry=retry) as client:
        (prompt,) = prompts
        return int((await client.generate(VideoRequest(prompt))).is_success)


def measure(quick: bool, *, subjects: Sequence[str] = ()) -> dict[str, Any]:  # noqa: FBT001  # every measure's form
    """Each case of each client, in a process of its own and with a service of its own."""
    installed = clients.choose([], [OURS])
    known = [name for name in [*NAMES, OURS] if name in installed]
    if unknown := sorted(set(subjects) - set(known)):
        raise ValueError(f"cannot measure {', '.join(unknown)}; known and installed are {', '.join(known)}")
    chosen = [name for name in known if name in (subjects or ([OURS] if quick else known))]
    cases = ["drops the reply", "two polls fail", CANCELLED] if quick else list(CASES)
    machine.tell(f"{', '.join(chosen)}: {len(cases)} cases")
    pairs = [(name, case) for case in cases for name in chosen]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        cells = dict(zip(pairs, pool.map(_cell, *zip(*pairs, strict=True)), strict=True))
    rows = [
        {
            "subject": name,
            "version": machine.version_of(NAMES.get(name, name)),
            "cells": {case: cells[name, case] for case in cases},
        }
        for name in chosen
    ]
    return {"measure": "faults", "environment": machine.environment(), "timeout": TIMEOUT, "rows": rows}


def _cell(name: str, case: str) -> dict[str, Any]:
    began = time.perf_counter()
    with machine.service() as service:
        service.reset(Workload(median=RUN_TIME, sigma=0.0))
        service.inject(**CASES[case])
        argument = {"service": service.url, "subject": name, "is_cancelled": case == CANCELLED}
        cell = machine.in_fresh_process("benchmarks.faults", argument)
        report, ids = service.report(), service.ids()
    told = " ".join(cell.pop("told"))
    return cell | {
        "posts": report["requests"]["submit"],
        "accepted": report["accepted"],
        "knows_id": any(request_id in told for request_id in ids),
        "wall": time.perf_counter() - began,
    }


def table(result: dict[str, Any]) -> str:
    """One line a client, one column a case."""
    cases = list(result["rows"][0]["cells"])
    rows: list[list[figures.Cell]] = [
        [
            f"{NAMES.get(row['subject'], row['subject'])} {row['version'] or ''}".strip(),
            *(_cell_text(case, row["cells"][case]) for case in cases),
        ]
        for row in result["rows"]
    ]
    note = "A number is the count of POSTs for one call, each of which the service accepted.\n"
    return f"{figures.table_of(['client', *cases], rows)}\n{note}"


def _cell_text(case: str, cell: dict[str, Any]) -> str:
    if case == CANCELLED:
        return "id kept" if cell["knows_id"] else "id lost"
    ends = {"video": "ok", "unfinished": "taken for done", "trying": "still waits"}
    fate = ends.get(cell["end"], "lost")
    if CASES[case]["on"] == "poll":
        return fate
    if cell["error"] == "AmbiguousSubmitError":
        fate = "ambiguous"
    return f"{cell['posts']}, {'reconciled' if fate == 'ok' else fate}"


def main() -> None:
    """Make one call with one client in this process, and print how it ended and what it told."""
    wanted = json.loads(sys.argv[1])
    told = _Told()
    logging.basicConfig(level=logging.INFO, handlers=[told])
    name, prompts = wanted["subject"], ["A paper boat on a still pond"]
    client: Callable[..., Awaitable[int]] = ours if name == OURS else clients.PEERS[name][0]
    call = partial(client, wanted["service"], prompts, timeout=TIMEOUT)
    service = machine.RunningService(wanted["service"])
    ended = asyncio.run(_run_call(call, told, is_cancelled=wanted["is_cancelled"], service=service))
    if ended["end"] == "unfinished" and name in SAYS_FAILED:
        ended["end"] = "error"
    print(json.dumps(ended))


class _Told(logging.Handler):
    """All that a caller can read: log records from INFO up, and what is added."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a record."""
        self.lines.append(record.getMessage())


async def _run_call(
    call: Callable[[], Awaitable[int]], told: _Told, *, is_cancelled: bool, service: machine.RunningService
) -> dict[str, Any]:
    task = asyncio.ensure_future(call())
    if is_cancelled:
        while not (await asyncio.to_thread(service.report))["accepted"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(LATE / 50)
    else:
        await asyncio.wait([task], timeout=LONGEST_CALL)
    is_left = task.cancel()
    await asyncio.wait([task])
    if is_left:
        return {"end": "cancelled" if is_cancelled else "trying", "error": None, "told": told.lines}
    if (raised := task.exception()) is not None:
        told.lines.append(f"{raised!r} {vars(raised)!r}")
        return {"end": "error", "error": type(raised).__name__, "told": told.lines}
    return {"end": "video" if task.result() else "unfinished", "error": None, "told": told.lines}
