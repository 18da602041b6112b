"""A grid over ages, finer where jobs are young: what is learned of run times is kept by its bins."""

from __future__ import annotations

import math
from collections.abc import Sequence

_FIRST = 0.05
_DOUBLINGS = 21
_BINS_PER_DOUBLING = 10

BINS = _DOUBLINGS * _BINS_PER_DOUBLING
"""How many bins there are; the last one ends after 29 hours and takes all that is older."""
EDGES = (0.0, *(_FIRST * 2 ** (i / _BINS_PER_DOUBLING) for i in range(1, BINS + 1)))
"""Where bins begin and end, in seconds: bin `i` is from `EDGES[i]` to `EDGES[i + 1]`."""
WIDTHS = tuple(EDGES[i + 1] - EDGES[i] for i in range(BINS))
"""How long each bin is, in seconds."""
LOG_EDGES = (math.log(_FIRST), *(math.log(edge) for edge in EDGES[1:]))
"""Logarithms of the edges; the first bin counts from 0.05 s."""

_ORIGIN = math.log(_FIRST)
_PER_LOG = _BINS_PER_DOUBLING / math.log(2.0)
_LAST = math.nextafter(BINS, 0.0)

LOG_MIDDLES = tuple(edge + 0.5 / _PER_LOG for edge in LOG_EDGES[:-1])
"""Logarithms of the bins' middles."""


def bin_of(age: float) -> int:
    """The bin that an age falls into; what is no age (negative, NaN) is in the first."""
    return int(_position(age)) if age > _FIRST else 0


def read(table: Sequence[float], age: float) -> float:
    """A value between those that a table gives for the edges (`BINS + 1` of them); the first one below a first age."""
    if not age > _FIRST:
        return table[0]
    place = _position(age)
    i = int(place)
    return table[i] + (table[i + 1] - table[i]) * (place - i)


def _position(age: float) -> float:
    """Where an age stands on the grid, counted in bins from 0."""
    return min((math.log(age) - _ORIGIN) * _PER_LOG, _LAST)
