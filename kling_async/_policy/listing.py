"""When to go through a model's list, and whether that is cheaper than to ask after each job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from kling_async._policy.stage import Stage

_ROW_COST = 0.005
"""What one row of a list costs, in status calls: microseconds to decode it, where a call takes hundreds."""
_ROW_BURDEN = 0.14
"""What it weighs in the pace of lists: it costs the service more than us, and soon enough is enough."""
_STRIDE = 1.25
"""How much longer each step into the future is than the one before."""

Crowd: TypeAlias = Sequence[tuple[Stage, float, float]]
"""Jobs in flight: the state they are in, about their age when last seen, and how many they are."""


def list_cost(*, calls: float, rows: float) -> float:
    """What going through a list costs, in status calls; a list that costs less than it saves pays."""
    return calls + _ROW_COST * rows


def list_burden(*, calls: float, rows: float) -> float:
    """What going through a list weighs, in status calls, when the next one is put off."""
    return calls + _ROW_BURDEN * rows


def stands_for(crowd: Crowd, *, longest: float) -> float:
    """How many status calls it saves to be shown all these jobs at once; few, if only few are likely to end.

    Status calls at the rates r notice ends as late as lists at the rate sqrt(sum(r²) / cost), and are dearer if
    the cost of a list is below sum(r)² / sum(r²).

    Args:
        crowd: The jobs.
        longest: Seconds after which a job is asked about at the latest.
    """
    singly = together = 0.0
    for stage, age, count in crowd:
        rate = max(stage.rate(age), 1 / longest)
        singly += count * rate
        together += count * rate * rate
    return singly * singly / together if together else 0.0


def list_delay(crowd: Crowd, *, burden: float, shortest: float, longest: float) -> float:
    """Seconds from the list that last showed these jobs to the next one.

    Args:
        crowd: The jobs it showed unfinished.
        burden: What going through the list weighs, in status calls.
        shortest: The least to wait, in seconds.
        longest: The most, in seconds.
    """
    gathered, elapsed, step = 0.0, 0.0, shortest
    while elapsed < longest:
        middle = elapsed + 0.5 * step
        worth = sum(count * stage.rate(age + middle) ** 2 for stage, age, count in crowd)
        lists = math.sqrt(worth / burden) * step
        if gathered + lists >= 1:
            return max(shortest, min(longest, elapsed + step * (1 - gathered) / lists))
        gathered += lists
        elapsed += step
        step *= _STRIDE
    return max(shortest, longest)
