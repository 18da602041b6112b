"""What `import kling_async` adds to a program that has imported asyncio already."""

from __future__ import annotations

from typing import Any

from benchmarks import figures, machine

MARK_MS = 60.0
_PROGRAM = """
import asyncio, sys, time
before = len(sys.modules)
start = time.perf_counter()
import kling_async
print(f'{{"import_ms": {(time.perf_counter() - start) * 1e3}, "modules": {len(sys.modules) - before}}}')
"""


def measure(quick: bool) -> dict[str, Any]:  # noqa: FBT001  # every measure's form
    """Milliseconds over many fresh processes that find everything compiled, as after the first run of a program."""
    rounds = 3 if quick else 31
    machine.in_bare_process(_PROGRAM)
    samples = [machine.in_bare_process(_PROGRAM) for _ in range(rounds)]
    return {
        "measure": "imports",
        "environment": machine.environment(),
        "rounds": rounds,
        "import_ms": figures.spread([sample["import_ms"] for sample in samples]),
        "modules": samples[0]["modules"],
    }


def table(result: dict[str, Any]) -> str:
    """Median and spread, against the mark."""
    ms = result["import_ms"]
    header = ["statement", "median ms", "least", "most", "new modules", "mark"]
    mark = figures.against(MARK_MS, ms["median"])
    row: list[figures.Cell] = [
        "import kling_async",
        ms["median"],
        ms["least"],
        ms["greatest"],
        result["modules"],
        mark,
    ]
    return figures.table_of(header, [row])
