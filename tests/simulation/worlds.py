"""Simulates many worlds, in several processes if there are enough of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from .world import Verdict, simulate

_CHUNK = 50


def simulate_all(seeds: Sequence[int], *, workers: int) -> Iterator[Verdict]:
    """The verdict of each world, in the order of the seeds."""
    silence_logs()
    if workers == 1 or len(seeds) <= _CHUNK:
        yield from map(simulate, seeds)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), silence_logs) as pool:
        yield from pool.map(_without_trace, seeds, chunksize=_CHUNK)


def silence_logs() -> None:
    """Turn the client's log off: in these worlds calls fail on purpose."""
    logging.getLogger("kling_async").setLevel(logging.CRITICAL + 1)


def _without_trace(seed: int) -> Verdict:
    """The verdict of a world without its trace, which is too large to send between processes."""
    verdict = simulate(seed)
    verdict.trace.clear()
    return verdict
