"""Simulates many worlds, in several processes if there are enough of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from .shared_world import simulate_shared
from .world import Verdict, simulate

_CHUNK = 50


def simulate_all(seeds: Sequence[int], *, workers: int, is_shared: bool = False) -> Iterator[Verdict]:
    """The verdict of each world, in the order of the seeds; with a shared journal if so wanted."""
    silence_logs()
    simulate_one = simulate_shared if is_shared else simulate
    if workers == 1 or len(seeds) <= _CHUNK:
        yield from map(simulate_one, seeds)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), silence_logs) as pool:
        yield from pool.map(partial(_without_trace, simulate_one), seeds, chunksize=_CHUNK)


def silence_logs() -> None:
    """Turn the client's log off: in these worlds calls fail on purpose."""
    logging.getLogger("kling_async").setLevel(logging.CRITICAL + 1)


def _without_trace(simulate_one: Callable[[int], Verdict], seed: int) -> Verdict:
    """The verdict of a world without its trace, which is too large to send between processes."""
    verdict = simulate_one(seed)
    verdict.trace.clear()
    return verdict
