"""Numbers as text: tables in columns, and what a list of samples says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

Cell = str | float | None


def table_of(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Columns as wide as they must be, numbers to the right, an absent figure as a dash."""
    lines = [list(header), *([_cell_text(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    is_number = [any(isinstance(row[place], (int, float)) for row in rows) for place in range(len(header))]

    def align(line: Sequence[str]) -> str:
        cells = zip(line, widths, is_number, strict=True)
        return "  ".join(
            text.rjust(width) if right else text.ljust(width) for text, width, right in cells
        ).rstrip()

    return "\n".join([align(lines[0]), "  ".join("-" * width for width in widths), *map(align, lines[1:])])


def _cell_text(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    if isinstance(cell, float):
        return f"{cell:.{max(0, 3 - len(str(int(abs(cell)))))}f}"
    return str(cell)


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": median(samples), "least": min(samples), "greatest": max(samples)}


def quantile(samples: Sequence[float], part: float) -> float:
    """The sample below which that part of all lies (nearest rank); NaN of none."""
    if not samples:
        return math.nan
    return sorted(samples)[max(math.ceil(part * len(samples)) - 1, 0)]


def against(mark: float | None, value: float, *, at_least: bool = False) -> str:
    """`≤ 1.3 met` or `≤ 1.3 missed`; empty without a mark."""
    if mark is None:
        return ""
    is_met = value >= mark if at_least else value <= mark
    return f"{'≥' if at_least else '≤'} {mark:g} {'met' if is_met else 'missed'}"


def describe(environment: dict[str, Any]) -> str:
    """The machine and the versions, in the lines that stand below every table."""
    versions = environment["packages"] | environment["peers"]
    lines = [
        f"{environment['machine']}, {environment['processors']} processors; {environment['python']}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
    if environment["service_on_processor"] is None:
        lines.append("Service and client could not be kept on processors of their own.")
    if environment["peers_missing"]:
        lines.append(f"Peers not installed, so not measured: {', '.join(environment['peers_missing'])}.")
    return "\n".join(lines)
