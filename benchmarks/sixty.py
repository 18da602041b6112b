"""Jobs of about a minute, two hundred at once: how many requests, and how late each client hears.

Every client has a service to itself and its processor to itself, so the clients run one after another; the whole table
takes about twenty-five minutes. `--seeds 8` runs each client with eight draws of the run times, all at once: for clients
that need little of the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from benchmarks import child, clients, figures, machine
from benchmarks.jobs import Workload

OURS: dict[str, tuple[str, int]] = {
    "ours-100-rows": ("auto", 100),
    "ours-1000-rows": ("auto", 1_000),
    "ours-never": ("never", 100),
}
"""Each way of ours: the policy for lists, and what one list call gives at most."""
MARKS = {"ours-100-rows": 2.6, "ours-1000-rows": 2.0}
"""Requests a job."""
LAG_MARK = 0.6
MAKESPAN_MARK = 1.02


def measure(quick: bool, *, subjects: Sequence[str] = (), seeds: int = 1) -> dict[str, Any]:  # noqa: FBT001  # every measure's form
    """Requests, lag, CPU and makespan of each subject.

    Args:
        quick: A small run.
        subjects: Some of ours and of the peers; all that there are by default.
        seeds: How many draws of the run times each is measured with.
    """
    jobs, median = (40, 3.0) if quick else (200, 60.0)
    if quick and not subjects:
        subjects = ["ours-100-rows", "httpx"]
    rows: list[dict[str, Any]] = []
    for name in clients.choose(subjects, OURS):
        machine.tell(f"{name}, {jobs} jobs")
        draws = [
            Workload(median=median, rows_per_call=OURS.get(name, ("", 100))[1], seed=seed)
            for seed in range(1, seeds + 1)
        ]
        with ThreadPoolExecutor(seeds) as pool:
            rows += pool.map(partial(_one_crowd, name, jobs), draws)
    return {"measure": "sixty", "environment": machine.environment(), "median": median, "rows": rows}


def _one_crowd(name: str, jobs: int, workload: Workload) -> dict[str, Any]:
    is_ours = name in OURS
    options = {"use_lists": OURS[name][0]} if is_ours else {}
    with machine.service() as service:
        result = child.measure(
            service, "ours" if is_ours else name, workload, jobs=jobs, options=options, warm_up=is_ours
        )
        records = service.records()
    lags = [told - finish for _, finish, told in records if told is not None]
    last_end = max(finish for _, finish, _ in records)
    return {
        "subject": name,
        "seed": workload.seed,
        "jobs": jobs,
        "succeeded": result["succeeded"],
        "requests": result["requests"],
        "requests_per_job": result["requests_per_job"],
        "lag_mean": sum(lags) / len(lags),
        "lag_p95": figures.quantile(lags, 0.95),
        "cpu_per_job": result["cpu_per_job"],
        "makespan_ratio": result["wall"] / last_end,
        "wall": result["wall"],
    }


def table(result: dict[str, Any]) -> str:
    """One line a client."""
    header = [
        "client",
        "seed",
        "requests/job",
        "lag mean",
        "lag p95",
        "CPU ms/job",
        "makespan",
        "succeeded",
        "marks",
    ]
    is_marked = result["median"] == 60.0  # noqa: PLR2004  # the marks are for minutes, not for the quick run
    rows: list[list[figures.Cell]] = []
    for row in result["rows"]:
        figures_of_row = [row["requests_per_job"], row["lag_mean"], row["lag_p95"], row["cpu_per_job"] * 1e3]
        marks = _marks(row) if is_marked and row["subject"] in MARKS else ""
        rows.append(
            [row["subject"], row["seed"], *figures_of_row, row["makespan_ratio"], row["succeeded"], marks]
        )
    return figures.table_of(header, rows)


def _marks(row: dict[str, Any]) -> str:
    return "; ".join(
        [
            f"requests {figures.against(MARKS[row['subject']], row['requests_per_job'])}",
            f"lag {figures.against(LAG_MARK, row['lag_mean'])}",
            f"makespan {figures.against(MAKESPAN_MARK, row['makespan_ratio'])}",
        ]
    )
