"""Calls and lag of the adaptive pace, simulated, beside fixed intervals and exponential backoff.

`python benchmarks/pace.py [--quick] [--json FILE]`, or `python -m benchmarks pace`. Each run starts knowing
nothing. The ratio compares calls with those of the best fixed interval of the same mean lag.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import figures, machine, simulation
from benchmarks.ablation import PARTS, leave_out
from benchmarks.simulation import Adaptive, Draw, Life, Report, log_normal
from kling_async._policy.pace import JobKind, Pace
from kling_async._policy.polling import PollingPolicy

Row = dict[str, Any]

MARKS = {(120.0, 0.2): 0.5, (60.0, 0.35): 0.75, (90.0, 0.6): 1.3}
"""Ratio to reach by (median, sigma) with 200 jobs."""
LIST_MARKS = {100: 2.6, 1000: 2.0}
"""Requests a job to reach by rows a call, submit included, at `LIST_LAG` seconds."""
LIST_LAG = 0.6
COLD_RUN, COLD_MARK, COLD_LAG = 240.0, 60.0, 5.0
"""Seconds that the only job of a client runs; calls and mean lag to reach."""
COLD_SEEDS = 40
MARKED_JOBS = 200
BUDGET = 10.0
SEEDS = {20: 12, 200: 6, 2000: 1}
QUICK_SEEDS = {20: 2, 200: 1}


def _wait_then_run(rng: random.Random) -> Life:
    return Life(wait=10 * math.exp(rng.gauss(0, 0.8)), run=log_normal(60, 0.35)(rng).run)


def _run_unshown(rng: random.Random) -> Life:
    return Life(run=log_normal(60, 0.35)(rng).run, shows_running=False)


def _now_and_then(draw: Draw, *, share: float, other: Draw) -> Draw:
    return lambda rng: draw(rng) if rng.random() >= share else other(rng)


OTHERS: dict[str, Draw] = {
    "60 s, after a queue of 10 s": _wait_then_run,
    "60 s, told waiting but runs": lambda rng: Life(wait=0.1, run=log_normal(60, 0.35)(rng).run),
    "60 s, never shown running": _run_unshown,
    "60 s, 1 % never ends": _now_and_then(
        log_normal(60, 0.35), share=0.01, other=lambda _: Life(run=math.inf)
    ),
    "60 s, 5 % refused at once": _now_and_then(
        log_normal(60, 0.35),
        share=0.05,
        other=lambda rng: Life(run=rng.uniform(0.5, 2), success=False),
    ),
    "30 s or 180 s": _now_and_then(log_normal(30, 0.2), share=0.5, other=log_normal(180, 0.2)),
    "2 s, sigma 0.35": log_normal(2, 0.35),
}
"""Services unlike those of the marks."""


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # every measure's form
    """All tables; the small run does the same with fewer jobs and seeds."""
    seeds = QUICK_SEEDS if quick else SEEDS
    return {
        "measure": "pace",
        "environment": machine.environment(),
        "singly": [row for key, mark in MARKS.items() for row in _measure_mark(key, mark, seeds)],
        "others": [_compare(name, draw, 200, 200, seeds[200]) for name, draw in OTHERS.items()],
        "cold": _measure_cold(),
        "parts": [_measure_part(part, key, seeds[MARKED_JOBS]) for key in MARKS for part in PARTS],
        "listed": [_measure_lists(rows, jobs, seeds[jobs]) for rows in LIST_MARKS for jobs in seeds],
        "budget": [
            row
            for jobs, in_flight in ((200, 200), (1000, 200), (1000, 1000))
            for row in _measure_budget(jobs, in_flight)
            if not quick or jobs == in_flight == MARKED_JOBS
        ],
        "cost_us": _cost(jobs=2_000 if quick else 50_000),
    }


def _measure_mark(key: tuple[float, float], mark: float, seeds: dict[int, int]) -> list[Row]:
    name = f"{key[0]:g} s, sigma {key[1]:g}"
    draw = log_normal(*key)
    rows = []
    for jobs, count in seeds.items():
        for in_flight in sorted({jobs, min(jobs, 50)}, reverse=True):
            row = _compare(name, draw, jobs, in_flight, count)
            rows.append({**row, "mark": mark if jobs == MARKED_JOBS else None})
    backoff = [simulation.back_off(_lives(draw, MARKED_JOBS, seed)) for seed in range(seeds[MARKED_JOBS])]
    fixed = [
        simulation.every_best(_lives(draw, MARKED_JOBS, seed), lag=report.mean_lag)
        for seed, report in enumerate(backoff)
    ]
    return [*rows, _row(name, "backoff to 30 s", backoff, in_flight=MARKED_JOBS, fixed=fixed)]


def _compare(name: str, draw: Draw, jobs: int, in_flight: int, seeds: int) -> Row:
    """The adaptive pace beside the best fixed one, over some seeds."""
    ours, fixed = [], []
    for seed in range(seeds):
        lives = _lives(draw, jobs, seed)
        report = Adaptive(lives, in_flight, random.Random(f"chance {seed}")).run()
        ours.append(report)
        fixed.append(simulation.every_best(lives, lag=report.mean_lag))
    return _row(name, "adaptive", ours, in_flight=in_flight, fixed=fixed)


def _measure_cold() -> Row:
    """One job alone, of a kind that was never met."""
    reports = [
        Adaptive([Life(run=COLD_RUN)], 1, random.Random(f"chance {seed}")).run() for seed in range(COLD_SEEDS)
    ]
    row = _row(f"{COLD_RUN:g} s, the first job", "adaptive", reports, in_flight=1)
    return {**row, "mark": COLD_MARK}


def _measure_part(part: str, key: tuple[float, float], seeds: int) -> Row:
    """The adaptive pace without one of its parts."""
    with leave_out(part):
        row = _compare(f"{key[0]:g} s, sigma {key[1]:g}", log_normal(*key), MARKED_JOBS, MARKED_JOBS, seeds)
    return {**row, "way": part}


def _measure_lists(rows: int, jobs: int, seeds: int) -> Row:
    lives = [_lives(log_normal(60, 0.35), jobs, seed) for seed in range(seeds)]
    reports = [simulation.scan_lists(some, rows_per_call=rows) for some in lives]
    row = _row("60 s, sigma 0.35", f"lists of {rows} rows", reports, in_flight=jobs)
    row["requests"] = row["calls"] + 1
    return {**row, "mark": LIST_MARKS[rows] if jobs == MARKED_JOBS else None}


def _measure_budget(jobs: int, in_flight: int) -> list[Row]:
    lives = _lives(log_normal(60, 0.35), jobs, 0)
    ways: dict[str, Callable[[], Report]] = {
        "adaptive": Adaptive(lives, in_flight, random.Random("chance"), budget=BUDGET).run,
        "in turn": lambda: simulation.in_turn(lives, in_flight=in_flight, budget=BUDGET),
    }
    return [_row("60 s, sigma 0.35", way, [run()], in_flight=in_flight) for way, run in ways.items()]


def _lives(draw: Draw, jobs: int, seed: int) -> list[Life]:
    rng = random.Random(f"{jobs} jobs {seed}")
    return [draw(rng) for _ in range(jobs)]


def _row(
    name: str, way: str, reports: Sequence[Report], *, in_flight: int, fixed: Sequence[Report] = ()
) -> Row:
    ratios = [ours.calls / other.calls for ours, other in zip(reports, fixed, strict=bool(fixed))]
    return {
        "service": name,
        "way": way,
        "jobs": reports[0].jobs,
        "in_flight": in_flight,
        "seeds": len(reports),
        "calls": fmean(report.calls_per_job for report in reports),
        "lag_mean": fmean(report.mean_lag for report in reports),
        "lag_p95": fmean(report.p95_lag for report in reports),
        "ratio": fmean(ratios) if ratios else None,
        "mark": None,
    }


def _cost(*, jobs: int, rounds: int = 5) -> dict[str, float]:
    """Microseconds of processor time to take in one answer and plan the next question, lessons included."""
    pace, policy = Pace(), PollingPolicy()
    rng = random.Random("chance")
    kind = JobKind("kling-v2-6", duration=5)
    ages = [pace.track(kind, now=0.0, jitter=rng.random(), running=True) for _ in range(jobs)]
    now = 0.0
    start = time.process_time()
    for _ in range(rounds):
        for age in ages:
            now += 50.0 / rounds / jobs
            pace.record_sighting(age, now=now, jitter=0.5, running=True)
            pace.next_poll(age, policy, now=now)
    return {"jobs": float(jobs), "per_answer": (time.process_time() - start) / (rounds * jobs) * 1e6}


def table(result: dict[str, Any]) -> str:
    """All tables below each other."""
    header = ["run times", "policy", "jobs", "in flight", "calls/job", "lag mean", "p95", "ratio", "mark"]
    singly = [
        _cells(row, figures.against(row["mark"], row["ratio"]))
        for row in (*result["singly"], *result["others"])
    ]
    listed = [
        [
            *_cells(row, "")[:4],
            row["requests"],
            row["lag_mean"],
            row["lag_p95"],
            _mark_of(row, row["requests"], lag=LIST_LAG),
        ]
        for row in result["listed"]
    ]
    cold = result["cold"]
    parts = [_cells(row, "")[:8] for row in result["parts"]]
    rationed = [_cells(row, "")[:7] for row in result["budget"]]
    cost = result["cost_us"]
    return "\n\n".join(
        [
            "One status call for one job; the ratio is to the best fixed interval of the same mean lag.\n"
            + figures.table_of(header, singly),
            "One job alone.\n"
            + figures.table_of(
                [*header[:7], "mark"],
                [[*_cells(cold, "")[:7], _mark_of(cold, cold["calls"], lag=COLD_LAG)]],
            ),
            "One part of the pace left out.\n" + figures.table_of(header[:8], parts),
            "One list for all jobs, submit included.\n"
            + figures.table_of([*header[:4], "requests/job", *header[5:7], "mark"], listed),
            f"A budget of {BUDGET:g} calls a second.\n" + figures.table_of(header[:7], rationed),
            f"Processor time per answer: {cost['per_answer']:.1f} µs with {cost['jobs']:.0f} jobs in flight.",
        ]
    )


def _cells(row: Row, mark: str) -> list[figures.Cell]:
    keys = ("service", "way", "jobs", "in_flight", "calls", "lag_mean", "lag_p95", "ratio")
    return [*(row[key] for key in keys), mark]


def _mark_of(row: Row, calls: float, *, lag: float) -> str:
    """Whether the calls and the mean lag reach their marks."""
    if row["mark"] is None:
        return ""
    return f"{figures.against(row['mark'], calls)}, {figures.against(lag, row['lag_mean'])}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write JSON if asked to."""
    parser = argparse.ArgumentParser(prog="pace", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small run, to see that all works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    wanted = parser.parse_args(arguments)
    result = measure(wanted.quick)
    print(table(result))
    if wanted.json:
        wanted.json.write_text(json.dumps(result, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
