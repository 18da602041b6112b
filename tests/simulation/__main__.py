"""Run many worlds, or one again: `python -m simulation --seeds 100000`, `python -m simulation --from 17 --trace`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from .worlds import simulate_all

_MAX_SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate worlds, and print the broken ones and the counts of all; returns 1 if a world broke a rule."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="number of worlds (1)")
    parser.add_argument(
        "--from", type=int, default=0, metavar="SEED", dest="first", help="the first seed (0)"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that share them (2)")
    parser.add_argument(
        "--shared", action="store_true", help="worlds in which processes share one journal at the same time"
    )
    parser.add_argument("--trace", action="store_true", help="print every step")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.seeds)
    began, counts, broken = time.perf_counter(), Counter[str](), 0
    workers = 1 if options.trace else options.workers
    for verdict in simulate_all(seeds, workers=workers, is_shared=options.shared):
        counts += verdict.counts
        broken += bool(verdict.violations)
        if options.trace:
            print("\n".join(verdict.lines()))
        if verdict.violations and broken <= _MAX_SHOWN:
            print(verdict.summary(), flush=True)
    output = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
    print(
        f"{len(seeds):,} worlds in {time.perf_counter() - began:,.0f} s, {broken:,} of them broken: {output}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
