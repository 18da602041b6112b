"""How long jobs take: a log-normal distribution, fitted to the jobs that ended and to those that have not.

A job that ended is a sample of the run time. A job in flight says only that its run time is longer than its age, which
still counts: while none of two hundred jobs has ended, the usual run time is far longer than their age.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import attrs

_PRIOR_WEIGHT = 1 / 3
"""The expected run time counts as a third of a job that ended. Measured: one whole job makes learning slower."""
_SPREADS = (0.12, 0.2, 0.3, 0.42, 0.6, 0.9)
"""The standard deviations of log run times that are tried."""
_LIKELY_SPREAD, _SPREAD_DEVIATION = 0.33, 1.0
"""Before any job ended: the likeliest of them, and how far off it may be (standard deviation of its logarithm)."""
_MAX_Z = 3.0
"""A job further from the mean than this many deviations is stuck, or was refused at once, and pulls no harder."""
_MEMORY = 500.0
"""At so many ended jobs the past counts half, so that a service that changes is believed."""
_NEWTON_STEPS = 6
_STANDARD = NormalDist()


@attrs.define
class RunTimes:
    """The run times of one kind of job, as far as they are known."""

    expected: float
    """Median seconds to expect before any job ended."""
    ended: float = 0.0
    """How many jobs ended; old ones count less."""
    normal: NormalDist = attrs.field(init=False)
    """The distribution of the logarithm of the next job's run time."""
    _sum: float = 0.0
    _squares: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.fit(())

    @property
    def median(self) -> float:
        """The usual run time, in seconds."""
        return math.exp(self.normal.mean)

    def add(self, seconds: float) -> None:
        """A job ended after so many seconds."""
        log = math.log(max(seconds, 0.01))
        if self.ended >= _MEMORY:
            self.ended, self._sum, self._squares = self.ended / 2, self._sum / 2, self._squares / 2
        self.ended += 1
        self._sum += log
        self._squares += log * log

    def fit(self, unfinished: Sequence[tuple[float, float]]) -> None:
        """Learn from the jobs that ended and from those that have not.

        Args:
            unfinished: Ages in seconds at which jobs were last seen in flight, each with the number of jobs it stands
                for.
        """
        logs = [(math.log(age), count) for age, count in unfinished if age > 0]
        fits = [(spread, *self._fit_mean(spread, logs)) for spread in _SPREADS]
        best = max(score for _, _, score in fits)
        weights = [math.exp(score - best) for _, _, score in fits]
        total = math.fsum(weights)
        mean = math.fsum(weight * fit[1] for weight, fit in zip(weights, fits, strict=True)) / total
        spread = math.fsum(weight * fit[0] for weight, fit in zip(weights, fits, strict=True)) / total
        # The mean itself is uncertain while few jobs have ended.
        self.normal = NormalDist(mean, spread * math.sqrt(1 + 1 / (_PRIOR_WEIGHT + self.ended)))

    def _fit_mean(self, spread: float, logs: Iterable[tuple[float, float]]) -> tuple[float, float]:
        """The likeliest mean for a spread, and the logarithm of its likelihood."""
        prior = math.log(self.expected)
        count = _PRIOR_WEIGHT + self.ended
        mean = (_PRIOR_WEIGHT * prior + self._sum) / count
        for _ in range(_NEWTON_STEPS):
            curvature = count / spread**2
            slope = (_PRIOR_WEIGHT * (prior - mean) + self._sum - self.ended * mean) / spread**2
            for log, weight in logs:
                z = min((log - mean) / spread, _MAX_Z)
                hazard = _hazard(z)
                slope += weight * hazard / spread
                curvature += weight * hazard * max(hazard - z, 0.05) / spread**2
            mean += slope / curvature
        squares = self._squares - 2 * mean * self._sum + self.ended * mean * mean
        score = -0.5 * (squares + _PRIOR_WEIGHT * (prior - mean) ** 2) / spread**2
        score -= self.ended * math.log(spread)
        score += math.fsum(
            weight * math.log(1.0 - _STANDARD.cdf(min((log - mean) / spread, _MAX_Z))) for log, weight in logs
        )
        score -= 0.5 * (math.log(spread / _LIKELY_SPREAD) / _SPREAD_DEVIATION) ** 2
        return mean, score


def _hazard(z: float) -> float:
    """The density of the standard normal distribution at z over its share above z."""
    return _STANDARD.pdf(z) / (1.0 - _STANDARD.cdf(z))
