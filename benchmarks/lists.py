"""Lists that misbehave: calls and lag while a model's list is refused, stale, partial, huge or wrong, on a virtual clock.

Two hundred jobs of a minute for each kind of list, with eight draws of the run times, and then ten thousand jobs in a day
whose list behaves otherwise every twenty minutes. The simulated service and its clock are those of the tests.
"""

from __future__ import annotations

import importlib
import itertools
import math
import random
import sys
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
JOBS, DRAWS = 200, 8
DAY_JOBS, QUICK_DAY_JOBS = 10_000, 200


def _virtual_service() -> Any:
    """The simulated service, which lies in the folder of the tests."""
    folder = str(machine.HERE.parent / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("virtual_service")


virtual = _virtual_service()


def minutes(number: int, *, seed: int = 0) -> float:
    """The run time of a job: the median is a minute, sigma 0.35, and each seed is a draw."""
    return 60.0 * math.exp(random.Random(number + 1_000_000 * seed).gauss(0, 0.35))


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
    behave: Behave,
    *,
    jobs: int,
    at_once: int,
    seed: int = 0,
    rows: int = 100,
    slowness: float = 1.0,
    polls_per_second: float = 50.0,
) -> Report:
    """What a batch cost of which each job ended well.

    Args:
        behave: What the list answers.
        jobs: How many jobs.
        at_once: How many are in flight at once.
        seed: The draw of the run times.
        rows: What a call gives at most of a list that is as it should be.
        slowness: So many minutes is the usual run time.
        polls_per_second: The limit of the client.
    """

    def script(request: Any, service: Any) -> Any:
        return behave(service) if service.kind(request) == "list" else None

    def run_time(number: int) -> float:
        return slowness * minutes(number, seed=seed)

    service = virtual.Service(run_time=run_time, rows=rows, before=[script])
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
    rows = [_measure_draws(name, behave, quick=quick) for name, behave in LISTS.items()]
    rows.insert(1, _measure_draws("honest, 1,000 rows a call", LISTS["honest"], quick=quick, rows=1_000))
    rows.append(_row("another every 20 min", [run_day(QUICK_DAY_JOBS if quick else DAY_JOBS)]))
    return {"measure": "lists", "environment": machine.environment(), "rows": rows}


def _measure_draws(name: str, behave: Behave, *, quick: bool, rows: int = 100) -> Row:
    seeds = range(1 if quick else DRAWS)
    return _row(name, [run_jobs(behave, jobs=JOBS, at_once=JOBS, seed=seed, rows=rows) for seed in seeds])


def _row(name: str, reports: Sequence[Report]) -> Row:
    lags = [lag for report in reports for lag in report.lags]
    return {
        "list": name,
        "jobs": len(lags),
        "hours": max(report.hours for report in reports),
        "list_calls": sum(report.calls["list"] for report in reports) / len(lags),
        "status_calls": sum(report.calls["status"] for report in reports) / len(lags),
        "requests": fmean(report.requests for report in reports),
        "lag_mean": fmean(lags),
        "lag_p95": quantile(lags, 0.95),
        "lag_max": max(lags),
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
