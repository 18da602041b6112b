"""What to believe of run times while not one job has finished.

Many laws are held possible, each with a weight. Every unfinished job takes weight from the laws under which
it should be done by now. That matters most for a batch that starts at once: while the quickest of two hundred
jobs is not done, a single one is very unlikely to be, and need not be asked about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from kling_async._policy.lognormal import Tally, upper_tail, with_strays

_SPREADS = (0.25, 0.45)
_STEP = 0.3
_STEPS_BELOW, _STEPS_ABOVE = 18, 9
_SCALE = 0.7
"""How far the truth is expected from `home`, in log seconds: for half of all kinds within a factor of 1.7."""
_FREEDOM = 3.0
"""Student's degrees of freedom: a kind that is a hundred times quicker or slower is rare, not impossible."""
_NEGLIGIBLE = 0.003
_SQRT_HALF = math.sqrt(0.5)


@attrs.frozen
class Guesses:
    """A mixture of log-normal laws."""

    laws: Sequence[tuple[float, float, float]]
    """Weight, mean log seconds and their spread, of each; the weights sum to 1."""

    def survival(self, log_age: float) -> float:
        """The share of jobs that runs longer than this, strays left out."""
        return 0.5 * sum(
            weight * math.erfc((log_age - centre) / spread * _SQRT_HALF)
            for weight, centre, spread in self.laws
        )


def guess(unfinished: Tally, *, home: float) -> Guesses:
    """The laws that are still possible after these unfinished jobs.

    Args:
        unfinished: Log ages at which jobs were last seen unfinished.
        home: The log run time that is expected.
    """
    scored = [
        (_plausible(step) + _log_chance(unfinished, centre, spread, home), centre, spread)
        for step in range(-_STEPS_BELOW, _STEPS_ABOVE + 1)
        for spread in _SPREADS
        for centre in (home + step * _STEP,)
    ]
    best = max(score for score, _, _ in scored)
    weighed = [(math.exp(score - best), centre, spread) for score, centre, spread in scored]
    kept = [law for law in weighed if law[0] > _NEGLIGIBLE]
    total = sum(weight for weight, _, _ in kept)
    return Guesses([(weight / total, centre, spread) for weight, centre, spread in kept])


def _plausible(step: int) -> float:
    """Log-probability of a law so many steps from home, before anything was seen."""
    away = step * _STEP / _SCALE
    return -0.5 * (_FREEDOM + 1) * math.log1p(away * away / _FREEDOM)


def _log_chance(unfinished: Tally, centre: float, spread: float, home: float) -> float:
    """Log-probability under a law that all these jobs are unfinished."""
    return sum(
        count * math.log(with_strays(upper_tail((place - centre) / spread), place, home=home))
        for place, count in unfinished
    )
