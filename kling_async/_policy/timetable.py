"""From hazards to waiting times: pure arithmetic over the grid of ages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from kling_async._policy.ages import BINS, EDGES, WIDTHS, bin_of

_TURNS = 0.25
"""Share of a tight budget that goes round all jobs in turn, at the most."""
_TAIL = 0.02
"""The slowest share of jobs, left out where a mean is taken: they may be stuck for ever."""


@attrs.frozen
class Pressure:
    """What a budget makes of the rate that a job is worth: `share` of it, and `base` on top."""

    share: float = 1.0
    base: float = 0.0
    """Calls a second that every job gets."""
    longest: float = math.inf
    """Seconds after which a job is asked about at the latest."""


def press(*, demand: float, budget: float, jobs: int, longest: float) -> Pressure:
    """How to spread a budget over jobs that are worth more calls than it allows.

    A part goes round all jobs in turn, so that none is forgotten; the rest goes where jobs are likely to end.

    Args:
        demand: Calls a second that all jobs together are worth.
        budget: Calls a second that may be made.
        jobs: How many there are.
        longest: Seconds after which a job is asked about at the latest, if the budget allows.
    """
    if demand <= budget:
        return Pressure(longest=longest)
    turns = min(jobs / longest, _TURNS * budget)
    # What jobs are worth is known roughly, and changes before a distant question comes. So they are put off half
    # as far as that calls for; those whose moments then meet are asked about one after the other.
    share = math.sqrt((budget - turns) / (demand - turns))
    base = turns / jobs
    return Pressure(share=share, base=base * (1 - share), longest=1 / base)


def median(hazards: Sequence[float]) -> float:
    """The age that half of the jobs reach."""
    return age_at(hazards, math.log(2.0))


def age_at(hazards: Sequence[float], chance: float, *, after: float = 0.0) -> float:
    """The age at which so much hazard has gathered from another age on; the last edge of the grid if it never has."""
    for i in range(bin_of(after), BINS):
        begin = max(after, EDGES[i])
        here = hazards[i] * (EDGES[i + 1] - begin)
        if here >= chance:
            return begin + chance / hazards[i]
        chance -= here
    return EDGES[-1]


def mean_root(hazards: Sequence[float]) -> float:
    """Mean of 1 / sqrt(hazard) over the ages at which jobs end, the slowest few left out."""
    total = 0.0
    alive = 1.0
    for i, hazard in enumerate(hazards):
        after = alive * math.exp(-hazard * WIDTHS[i])
        if after < alive:
            total += (alive - after) / math.sqrt(hazard)
        alive = after
        if alive < _TAIL:
            break
    return total


def timetable(rates: Sequence[float], pressure: Pressure) -> list[float]:
    """Seconds from each edge of the grid to the moment when one call is due.

    That is where the integral of the rate reaches 1, so that a rate that rises soon is met in time.

    Args:
        rates: Calls a second that a job is worth, by bin of age.
        pressure: What the budget makes of them.
    """
    longest = pressure.longest
    pressed = [pressure.share * rate + pressure.base for rate in rates]
    calls = [rate * WIDTHS[i] for i, rate in enumerate(pressed)]
    table = []
    ahead, gathered = 0, 0.0
    for i in range(BINS):
        while ahead < BINS - 1 and gathered + calls[ahead] < 1.0 and EDGES[ahead] - EDGES[i] < longest:
            gathered += calls[ahead]
            ahead += 1
        rest = (1.0 - gathered) / pressed[ahead] if pressed[ahead] > 0 else math.inf
        table.append(min(longest, EDGES[ahead] - EDGES[i] + rest))
        if ahead > i:
            gathered = max(0.0, gathered - calls[i])
        else:
            ahead, gathered = i + 1, 0.0
    return [*table, table[-1]]
