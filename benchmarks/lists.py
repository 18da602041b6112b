"""Lists that misbehave: calls and lag while a model's list is refused, stale, partial, huge or wrong, on a virtual clock.

Two hundred jobs of a minute for each kind of list, and then ten thousand jobs in a day whose list behaves otherwise every
twenty minutes. The simulated service and its clock are those of the tests.
"""

from __future__ import annotations

import importlib
import itertools
import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import anyio
import attrs

from benchmarks import figures, machine
from benchmarks.figures import quantile
from kling_async import Limits, PollingPolicy
from kling_async.events import Event, Finished

Row = dict[str, Any]
Behave = Callable[[Any], Any]
"""The reply of a list to the service that it belongs to; None leaves the reply to the service."""

PERIOD = 1200.0
"""Seconds for which the list of a long run behaves in one way."""
JOBS = 200


def _virtual_service() -> Any:
    """The simulated service, which lies in the folder of the tests."""
    folder = str(machine.HERE.parent / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("virtual_service")


virtual = _virtual_service()


def minutes(number: int) -> float:
    """Run times with a median of a minute, sigma 0.35, the same ones each time."""
    return 60.0 * math.exp(random.Random(number).gauss(0, 0.35))


def _newest(service: Any, count: int = 300) -> list[Any]:
    return list(itertools.islice(reversed(service.queue.jobs), count))


def _page(service: Any, jobs: list[Any], *, at: float | None = None, **more: Any) -> Any:
    """A page that shows jobs as they are, or as they were at some time, or when they were accepted."""
    when = service.now if at is None else at
    rows = [service.record(job, at=max(when, job.accepted_at)) for job in jobs]
    return virtual.reply(200, {"requests": rows, "has_more": False, **more})


def _show_all_as_queued(service: Any) -> Any:
    rows = [{**service.record(job, at=job.accepted_at), "status": "queued"} for job in _newest(service)]
    return virtual.reply(200, {"requests": rows, "has_more": False})


LISTS: dict[str, Behave] = {
    "honest": lambda _: None,
    "refused": lambda _: virtual.reply(404, {"error": "no such call"}),
    "fails": lambda _: virtual.reply(500, b"<html>"),
    "garbage": lambda _: virtual.reply(200, b"garbage"),
    "partial": lambda service: _page(service, _newest(service)[::3]),
    "huge": lambda service: _page(service, _newest(service, 100), has_more=True, total=10**9),
    "all queued": _show_all_as_queued,
    "stale from the beginning": lambda service: _page(service, _newest(service), at=0.0),
    "stale after 45 s": lambda service: _page(service, _newest(service), at=min(service.now, 45.0)),
    "fresh once a minute": lambda service: _page(service, _newest(service), at=service.now // 60 * 60),
}
"""What a list answers."""


@attrs.frozen
class Report:
    """What a batch cost, and how late the client was."""

    calls: Mapping[str, int]
    """By kind: `submit`, `status` and `list`."""
    lags: Sequence[float]
    """Seconds from each job's end to the moment when the client had it."""
    hours: float
    """Until the last job was known to have ended."""

    @property
    def requests(self) -> float:
        """How many there were, for each job."""
        return sum(self.calls.values()) / len(self.lags)


def run_jobs(
    behave: Behave, *, jobs: int, at_once: int, slowness: float = 1.0, polls_per_second: float = 50.0
) -> Report:
    """What a batch cost of which each job ended well.

    Args:
        behave: What the list answers.
        jobs: How many jobs.
        at_once: How many are in flight at once.
        slowness: So many minutes is the usual run time.
        polls_per_second: The limit of the client.
    """

    def script(request: Any, service: Any) -> Any:
        return behave(service) if service.kind(request) == "list" else None

    service = virtual.Service(run_time=lambda number: slowness * minutes(number), before=[script])
    ends: dict[str | None, float] = {}

    def note_end(event: Event) -> None:
        if isinstance(event, Finished) and event.error is None:
            ends[event.request_id] = event.at - virtual.EPOCH

    async def run() -> None:
        await virtual.run(
            service,
            virtual.prompts(jobs),
            at_once=at_once,
            notify=note_end,
            limits=Limits(max_concurrent_submits=100, max_polls_per_second=polls_per_second),
            polling=PollingPolicy(wait_timeout=None),
        )

    anyio.run(run, backend_options={"loop_factory": virtual.VirtualLoop})
    lags = [ends[job.request_id] - job.final_at for job in service.queue.jobs]
    return Report(service.calls, lags, max(ends.values()) / 3600)


def run_day(jobs: int) -> Report:
    """What a batch cost in hours in which the list behaves otherwise every twenty minutes; a day for 10,000 jobs."""
    kinds = list(LISTS.values())

    def behave(service: Any) -> Any:
        return kinds[int(service.now // PERIOD) % len(kinds)](service)

    return run_jobs(behave, jobs=jobs, at_once=100, slowness=14.0, polls_per_second=10.0)


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # every measure's form
    """Requests, lag and hours for each kind of list, and for a long run."""
    rows = [_measure(name, run_jobs, behave, jobs=JOBS, at_once=JOBS) for name, behave in LISTS.items()]
    jobs = 200 if quick else 10_000
    rows.append(_measure("another every 20 min", run_day, jobs))
    return {"measure": "lists", "environment": machine.environment(), "rows": rows}


def _measure(name: str, run: Callable[..., Report], *arguments: Any, **options: Any) -> Row:
    start = time.process_time()
    report = run(*arguments, **options)
    jobs = len(report.lags)
    return {
        "list": name,
        "jobs": jobs,
        "hours": report.hours,
        "list_calls": report.calls["list"] / jobs,
        "status_calls": report.calls["status"] / jobs,
        "requests": report.requests,
        "lag_mean": fmean(report.lags),
        "lag_p95": quantile(report.lags, 0.95),
        "lag_max": max(report.lags),
        "cpu_per_job": (time.process_time() - start) / jobs,
    }


def table(result: dict[str, Any]) -> str:
    """One line a kind of list."""
    keys = (
        "list",
        "jobs",
        "hours",
        "requests",
        "list_calls",
        "status_calls",
        "lag_mean",
        "lag_p95",
        "lag_max",
    )
    header = ["list", "jobs", "hours", "requests/job", "lists", "statuses", "lag mean", "p95", "longest"]
    return figures.table_of(header, [[row[key] for key in keys] for row in result["rows"]])
