"""Many worlds, shared among processes where there are enough of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from .world import Verdict, simulate

_CHUNK = 50


def verdicts(seeds: Sequence[int], *, workers: int) -> Iterator[Verdict]:
    """What came of each world, in order."""
    hush()
    if workers == 1 or len(seeds) <= _CHUNK:
        yield from map(simulate, seeds)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), hush) as pool:
        yield from pool.map(_without_trace, seeds, chunksize=_CHUNK)


def hush() -> None:
    """Log nothing of worlds that go wrong on purpose."""
    logging.getLogger("kling_async").setLevel(logging.CRITICAL + 1)


def _without_trace(seed: int) -> Verdict:
    """The same, small enough to be sent to another process a hundred thousand times."""
    verdict = simulate(seed)
    verdict.trace.clear()
    return verdict
