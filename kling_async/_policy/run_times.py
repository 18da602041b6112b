"""How long jobs run: a log-normal distribution, fitted to the jobs that ended and to those that have not.

A job in flight tells only that its run time is longer than its age. That counts too: while none of two hundred jobs has
ended, the usual run time is far longer than their age.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import attrs

_STANDARD = NormalDist()
MAX_Z = 3.0
"""A job further from the mean than so many deviations is stuck, and pulls no harder."""
_EXPECTED_SPREAD = 0.35
"""The standard deviation of log run times to expect; it counts as two jobs that ended. Measured: 0.3 and 0.4 make no
difference."""
_MEMORY = 500.0
"""At so many ended jobs the past counts half, so that a service that changes is believed."""


@attrs.define
class RunTimes:
    """The run times of one kind of job, as far as they are known."""

    expected: float
    """The usual run time to expect, in seconds. The expectation counts as one job that ended."""
    normal: NormalDist = attrs.field(init=False)
    """The distribution of the logarithm of the next job's run time."""
    ended: float = 0.0
    """How many jobs ended; old ones count less."""
    _sum: float = 0.0
    _squares: float = 0.0
    _spread: float = _EXPECTED_SPREAD

    def __attrs_post_init__(self) -> None:
        self.fit(())

    @property
    def median(self) -> float:
        """The usual run time, in seconds."""
        return math.exp(self.normal.mean)

    def add(self, seconds: float) -> None:
        """Count a job that ended after so many seconds."""
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
        logs = [(math.log(age), weight) for age, weight in unfinished if age > 0]
        expected, count = math.log(self.expected), 1 + self.ended
        total, squares = expected + self._sum, expected**2 + self._squares
        mean, spread = total / count, self._spread
        hazards: list[tuple[float, float, float]] = []
        for _ in range(6):  # steps to the likeliest mean, by Newton's method
            hazards = [(weight, *_hazard((log - mean) / spread)) for log, weight in logs]
            pull = total - count * mean + spread * sum(weight * hazard for weight, _, hazard in hazards)
            mean += pull / (
                count + sum(weight * hazard * max(hazard - z, 0.0) for weight, z, hazard in hazards)
            )
        unfinished_squares = sum(weight * (1 + z * hazard) for weight, z, hazard in hazards) * spread**2
        deviations = max(squares - 2 * mean * total + count * mean**2, 0.0) + unfinished_squares
        weights = 1 + count + sum(weight for _, weight in logs)
        self._spread = math.sqrt((2 * _EXPECTED_SPREAD**2 + deviations) / weights)
        # The mean itself is uncertain while few jobs have ended.
        self.normal = NormalDist(mean, self._spread * math.sqrt(1 + 1 / count))


def _hazard(z: float) -> tuple[float, float]:
    """At how many deviations a job counts as in flight, and how strongly it pulls the mean from there."""
    z = min(z, MAX_Z)
    return z, _STANDARD.pdf(z) / _STANDARD.cdf(-z)
