"""What to believe of run times while not one job has finished.

Many laws are held possible, each with a weight. Every unfinished job takes weight from the laws under which
it should be done by now. That matters most for a batch that starts at once: while the quickest of two hundred
jobs is not done, a single one is very unlikely to be, and need not be asked about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from operator import mul

import attrs

from kling_async._policy.lognormal import Tally, upper_tail, with_strays

_SPREADS = (0.25, 0.45)
_STEP = 0.3
_STEPS_BELOW, _STEPS_ABOVE = 18, 9
_LAWS = tuple((step, spread) for step in range(-_STEPS_BELOW, _STEPS_ABOVE + 1) for spread in _SPREADS)
"""The laws that are held possible: how many steps the mean log run time is from `home`, and the spread."""
_SCALE = 0.7
"""How far the truth is expected from `home`, in log seconds: for half of all kinds within a factor of 1.7."""
_FREEDOM = 3.0
"""Student's degrees of freedom: a kind that is a hundred times quicker or slower is rare, not impossible."""
_NEGLIGIBLE = 0.003
_MOST_TABLED = 1024


@attrs.frozen
class Guesses:
    """A mixture of log-normal laws."""

    home: float
    """The log run time that is expected; the laws stand around it."""
    weights: Sequence[float]
    """The weight of each law; they sum to 1."""

    def survival(self, log_age: float) -> float:
        """The share of jobs that runs longer than this, strays left out."""
        share: float = sum(map(mul, self.weights, _tails(log_age, self.home)))
        return share


def guess(unfinished: Tally, *, home: float) -> Guesses:
    """The laws that are still possible after these unfinished jobs.

    Args:
        unfinished: Log ages at which jobs were last seen unfinished.
        home: The log run time that is expected.
    """
    scores = [_plausible(step) for step, _ in _LAWS]
    for place, count in unfinished:
        for i, tail in enumerate(_tails(place, home)):
            scores[i] += count * math.log(with_strays(tail, place, home=home))
    best = max(scores)
    weights = [math.exp(score - best) for score in scores]
    kept = [weight if weight > _NEGLIGIBLE else 0.0 for weight in weights]
    total = sum(kept)
    return Guesses(home, [weight / total for weight in kept])


def _plausible(step: int) -> float:
    """Log-probability of a law so many steps from home, before anything was seen."""
    away = step * _STEP / _SCALE
    return -0.5 * (_FREEDOM + 1) * math.log1p(away * away / _FREEDOM)


@lru_cache(maxsize=_MOST_TABLED)
def _tails(log_age: float, home: float) -> tuple[float, ...]:
    """The share of jobs that runs longer than this by each law: the same few ages are looked up again and again."""
    return tuple(upper_tail((log_age - home - step * _STEP) / spread) for step, spread in _LAWS)
