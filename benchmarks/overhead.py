"""CPU per job of pure overhead, against the least that a program can do with aiohttp.

Jobs are done at once, so what is left is the client itself. Every run is a fresh process; the floor is
run again in each round beside each subject, and ratios are taken within a round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import child, clients, figures, machine
from benchmarks.jobs import Workload

OURS: dict[str, dict[str, Any]] = {
    "ours-never": {"use_lists": "never", "rationed": False},
    "ours-auto": {"use_lists": "auto", "rationed": False},
    "ours-journal": {"use_lists": "auto", "rationed": False, "journal": True},
}
MARKS = {"ours-never": 1.3, "ours-auto": 0.8, "ours-journal": 1.2}
"""At `MARKED_JOBS` jobs."""
MARKED_JOBS = 2_000
PEER_JOBS = 500


def measure(quick: bool, *, subjects: Sequence[str] = ()) -> dict[str, Any]:  # noqa: FBT001  # every measure's form
    """CPU of each subject and its ratio to the floor; `subjects` names some of ours and of the peers."""
    sizes, rounds = ([40], 1) if quick else ([PEER_JOBS, MARKED_JOBS], 7)
    chosen = clients.choose(subjects, OURS) if subjects or not quick else list(OURS)
    ours = [name for name in chosen if name in OURS]
    peers = [name for name in chosen if name not in OURS]
    rows = []
    with machine.service() as service:
        for jobs in sizes:
            rows += _side_by_side(service, ["floor", *ours], jobs=jobs, rounds=rounds)
        if peers:
            jobs = sizes[0]
            rows += [
                row
                for name in peers
                for row in _side_by_side(service, ["floor", name], jobs=jobs, rounds=1)
                if row["subject"] != "floor"
            ]
    return {"measure": "overhead", "environment": machine.environment(), "rows": rows}


def _side_by_side(
    service: machine.RunningService, subjects: Sequence[str], *, jobs: int, rounds: int
) -> list[dict[str, Any]]:
    machine.tell(f"{', '.join(subjects)}: {jobs} jobs, {rounds} rounds")
    net: dict[str, list[float]] = {name: [] for name in subjects}
    whole: dict[str, list[float]] = {name: [] for name in subjects}
    last: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name in subjects:
            last[name] = _run(service, name, jobs=jobs, warm_up=True)
            net[name].append(last[name]["cpu"] / jobs)
            whole[name].append(_run(service, name, jobs=jobs, warm_up=False)["cpu_process"] / jobs)
    return [
        {
            "subject": name,
            "jobs": jobs,
            "succeeded": last[name]["succeeded"],
            "requests_per_job": last[name]["requests_per_job"],
            "cpu_per_job": figures.spread(net[name]),
            "ratio": figures.spread(_ratios(net, name)),
            "best_ratio": min(net[name]) / min(net["floor"]),
            "process_cpu_per_job": figures.spread(whole[name]),
            "process_ratio": figures.spread(_ratios(whole, name)),
            "wall": last[name]["wall"],
        }
        for name in subjects
    ]


def _ratios(samples: dict[str, list[float]], name: str) -> list[float]:
    return [mine / least for mine, least in zip(samples[name], samples["floor"], strict=True)]


def _run(service: machine.RunningService, name: str, *, jobs: int, warm_up: bool) -> dict[str, Any]:
    options = dict(OURS.get(name, {}))
    subject = "ours" if name in OURS else name
    with tempfile.TemporaryDirectory() as folder:
        if options.get("journal"):
            options["journal"] = str(Path(folder) / "run.db")
        return child.measure(service, subject, Workload(), jobs=jobs, options=options, warm_up=warm_up)


def table(result: dict[str, Any]) -> str:
    """One line a subject and size: milliseconds of CPU a job, and the ratio to the floor."""
    header = [
        "client",
        "jobs",
        "CPU ms/job",
        "/ floor",
        "in rounds",
        "best / best",
        "process ms/job",
        "process / floor",
        "requests/job",
        "wall s",
        "mark",
    ]
    rows: list[list[figures.Cell]] = []
    for row in result["rows"]:
        ratio = row["ratio"]
        mark = MARKS.get(row["subject"]) if row["jobs"] == MARKED_JOBS else None
        rows.append(
            [
                row["subject"],
                row["jobs"],
                row["cpu_per_job"]["median"] * 1e3,
                ratio["median"],
                f"{ratio['least']:.2f} to {ratio['greatest']:.2f}",
                row["best_ratio"],
                row["process_cpu_per_job"]["median"] * 1e3,
                row["process_ratio"]["median"],
                row["requests_per_job"],
                row["wall"],
                figures.against(mark, ratio["median"]),
            ]
        )
    note = "`best`: the least CPU of all rounds, which other work on the machine blurs least.\n"
    note += "`process`: the same for whole processes, interpreter start and imports included."
    return f"{figures.table_of(header, rows)}\n{note}"
