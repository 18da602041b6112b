"""Draw `polling-clients.svg` and `polling-intervals.svg`: requests a job against the lag.

Run it from anywhere: `python docs/images/make_polling.py`. It takes a minute, most of it for the simulation.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import simulation  # noqa: E402  # found at the root of the project
from benchmarks.simulation import Adaptive, Life, log_normal  # noqa: E402
from kling_async._policy import pace  # noqa: E402

Points = Sequence[tuple[str, float, float]]
"""A name, the mean lag in seconds, and the requests a job."""

FOLDER = Path(__file__).parent
PAGE = ROOT / "docs" / "explanation" / "performance.md"
SEEDS = 6
LAG_SHARES = (0.0009, 0.0018, 0.0036, 0.0072, 0.0144, 0.0288)
FIXED = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 64, 20, 20, 52
CROWDED = 13
"""Two names that are nearer than so many units overlap."""
OURS, OTHERS = "#1f77b4", "#7f7f7f"


def read_clients() -> Points:
    """The table of clients in performance.md."""
    rows = PAGE.read_text(encoding="utf-8").partition("| client |")[2].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[: rows.index("")]]
    return [
        (name.replace("a list of at most ", "lists of "), float(lag.removesuffix(" s")), float(requests))
        for name, requests, lag, *_ in cells
    ]


def simulate_paces() -> tuple[Points, Points]:
    """The pace at several shares, and fixed intervals, for 200 jobs of a minute by status calls."""
    draws = [[log_normal(60, 0.35)(rng) for _ in range(200)] for rng in map(random.Random, range(SEEDS))]
    fixed = [
        _average(f"every {seconds:g} s", [simulation.every(lives, seconds) for lives in draws])
        for seconds in FIXED
    ]
    usual, ours = pace._LAG_SHARE, []  # noqa: SLF001  # what the picture varies
    for share in LAG_SHARES:
        pace._LAG_SHARE = share  # noqa: SLF001
        reports = [_poll(lives, seed) for seed, lives in enumerate(draws)]
        ours.append(_average(f"{share:.2%}" + (", as it is" if share == usual else ""), reports))
    pace._LAG_SHARE = usual  # noqa: SLF001
    return ours, fixed


def _poll(lives: Sequence[Life], seed: int) -> simulation.Report:
    return Adaptive(lives, len(lives), random.Random(seed)).run()  # noqa: S311 - jitter, no secret


def _average(name: str, reports: Sequence[simulation.Report]) -> tuple[str, float, float]:
    requests = 1 + fmean(report.calls_per_job for report in reports)
    return name, fmean(report.mean_lag for report in reports), requests


def draw(file: str, title: str, groups: Sequence[tuple[str, Points, bool]]) -> None:
    """Both axes are logarithmic; a group of points is a colour, and perhaps a line."""
    points = [point for _, group, _ in groups for point in group]
    lags, requests = _decades([lag for _, lag, _ in points]), _decades([count for *_, count in points])

    def x_of(lag: float) -> float:
        return LEFT + _share(lag, lags) * (WIDTH - LEFT - RIGHT)

    def y_of(count: float) -> float:
        return HEIGHT - BOTTOM - _share(count, requests) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}</title>",
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for lag in _ticks(lags):
        x = x_of(lag)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{lag:g}</text>')
    for count in _ticks(requests):
        y = y_of(count)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{count:g}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 12}" text-anchor="middle">mean lag in seconds</text>'
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">requests a job</text>'
    )
    for color, group, has_line in groups:
        if has_line:
            path = "L".join(f"{x_of(lag):.1f} {y_of(count):.1f}" for _, lag, count in group)
            parts.append(f'<path d="M{path}" fill="none" stroke="{color}"/>')
        for name, lag, count in group:
            x, y = x_of(lag), y_of(count)
            is_crowded = any(0 < y_of(below) - y < CROWDED for *_, below in group)
            is_left = color == OURS or x > WIDTH - 170
            anchor, shift = ("end", -8) if is_left else ("start", 8)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
            parts.append(
                f'<text x="{x + shift:.1f}" y="{y - 6 if is_crowded else y + 4:.1f}" fill="{color}" '
                f'text-anchor="{anchor}">{name}</text>'
            )
    parts.append("</svg>")
    (FOLDER / file).write_text("\n".join(parts) + "\n", encoding="utf-8")


def _decades(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / 1.5, max(values) * 1.5


def _share(value: float, ends: tuple[float, float]) -> float:
    return math.log(value / ends[0]) / math.log(ends[1] / ends[0])


def _ticks(ends: tuple[float, float]) -> list[float]:
    steps = [step * 10.0**power for power in range(-2, 4) for step in (1, 2, 5)]
    return [step for step in steps if ends[0] <= step <= ends[1]]


def main() -> None:
    """Draw both pictures."""
    clients = read_clients()
    ours = [point for point in clients if point[0].startswith("kling_async")]
    others = [point for point in clients if point not in ours]
    draw(
        "polling-clients.svg",
        "Requests a job against the mean lag, by client",
        [(OTHERS, others, False), (OURS, ours, False)],
    )
    by_share, fixed = simulate_paces()
    draw(
        "polling-intervals.svg",
        "Requests a job against the mean lag, by status calls alone",
        [(OTHERS, fixed, True), (OURS, by_share, True)],
    )


if __name__ == "__main__":
    main()
