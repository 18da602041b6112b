"""How long jobs stay in one state: learned from those that left it and from those that have not."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import pairwise

from kling_async._policy.ages import BINS, EDGES, LOG_EDGES, LOG_MIDDLES, WIDTHS, bin_of
from kling_async._policy.guesses import Guesses, guess
from kling_async._policy.lognormal import LogNormal, fit, with_strays
from kling_async._policy.timetable import age_at

_GROWTH = 1.3
"""Learn anew when finished jobs have grown by this factor: a hundred thousand of them cost some sixty lessons."""
_LAW_WEIGHT = 6.0
"""How many finished jobs a bin must count to weigh as much as the law."""
_MEMORY = 2000
"""At so many finished jobs the past is worth half, so that a service that has changed is believed."""


class RunTimes:
    """Learns how long jobs of one kind stay in one state, and tells their hazard.

    It knows no single job: the caller remembers when it last saw one, and says so. A law (see `lognormal`)
    gives the shape; where jobs have been watched, their own count by age corrects it. Counting costs the same
    for ten jobs as for a hundred thousand; `learn` takes about half a millisecond.

    Args:
        expected: Median seconds to expect before any job has finished; off by a factor of ten does little harm.
    """

    __slots__ = (
        "_ended",
        "_failed",
        "_given_up",
        "_home",
        "_law",
        "_learned_from",
        "has_changed",
        "hazards",
        "samples",
        "unfinished",
    )

    samples: float
    """How many finished jobs count; old ones count less."""
    has_changed: bool
    """Whether anything was told since `learn`."""
    hazards: Sequence[float]
    """Chance per second that a job ends now, if it has not yet; by bin of age."""
    unfinished: list[int]
    """How many jobs were last seen in this state, by bin of age."""

    def __init__(self, *, expected: float) -> None:
        self._home = math.log(expected)
        self._law: LogNormal | Guesses
        self.unfinished = [0] * BINS
        self._given_up = [0.0] * BINS
        self._ended = [0.0] * BINS
        self._failed = [0.0] * BINS
        self.samples = 0.0
        self._learned_from = 0.0
        self.learn()

    @property
    def has_news(self) -> bool:
        """Whether enough jobs have finished since `learn` to make it worth while."""
        return self.samples > self._learned_from * _GROWTH

    def hazard(self, age: float) -> float:
        """Chance per second that a job of this age ends now, if it has not yet."""
        return self.hazards[bin_of(age)]

    def likely(self, *, after: float, before: float) -> float:
        """About the age at which a job left the state that was seen in it at one age and out of it at another: the median."""
        first, last = bin_of(after), bin_of(before)
        spans = pairwise([after, *EDGES[first + 1 : last + 1], before])
        hazards = self.hazards[first : last + 1]
        chance = math.fsum(
            hazard * (end - begin) for hazard, (begin, end) in zip(hazards, spans, strict=True)
        )
        half = -math.log(0.5 + 0.5 * math.exp(-chance))
        if half <= 0:
            return 0.5 * (after + before)
        return min(max(after, age_at(self.hazards, half, after=after)), before)

    def began(self) -> None:
        """A job entered the state, at age 0."""
        self.unfinished[0] += 1
        self.has_changed = True

    def seen(self, age: float, *, before: float) -> None:
        """A job that had been seen at the age `before` is still in the state at `age`."""
        self.unfinished[bin_of(before)] -= 1
        self.unfinished[bin_of(age)] += 1
        self.has_changed = True

    def finished(
        self, age: float, *, before: float, success: bool = True, exact: float | None = None
    ) -> None:
        """A job left the state.

        Args:
            age: Seconds in the state when it was found out of it.
            before: The same when it was last seen in it.
            success: Whether it left as jobs do. Others are refused at any age, and are kept out of the law.
            exact: The seconds that it spent in the state, if the service tells.
        """
        self.unfinished[bin_of(before)] -= 1
        left = bin_of(0.5 * (before + age) if exact is None else exact)
        self._ended[left] += 1
        self.has_changed = True
        if not success:
            self._failed[left] += 1
            return
        self.samples += 1
        if self.samples >= _MEMORY:
            self._fade()

    def gave_up(self, *, before: float) -> None:
        """Nobody asks after a job any more; it was seen unfinished at `before`."""
        self.unfinished[bin_of(before)] -= 1
        self._given_up[bin_of(before)] += 1
        self.has_changed = True

    def learn(self) -> None:
        """Take in all that was told since the last time."""
        others = zip(self.unfinished, self._given_up, self._failed, strict=True)
        unfinished = [(LOG_EDGES[i], count) for i, count in enumerate(map(sum, others)) if i and count]
        if self.samples:
            successes = map(operator.sub, self._ended, self._failed)
            ended = [(LOG_MIDDLES[i], count) for i, count in enumerate(successes) if count]
            near = self._law if isinstance(self._law, LogNormal) else None
            self._law = fit(ended, unfinished, home=self._home, near=near)
        else:
            self._law = guess(unfinished, home=self._home)
        self._learned_from = self.samples
        self.has_changed = False
        self.hazards = self._corrected(self._by_law())

    def _by_law(self) -> list[float]:
        """What the law alone says of the chance to end in each bin: its cumulative hazard there."""
        left = [-math.log(with_strays(self._law.survival(edge), edge, home=self._home)) for edge in LOG_EDGES]
        left[0] = 0.0
        return [max(0.0, left[i + 1] - left[i]) for i in range(BINS)]

    def _corrected(self, chances: list[float]) -> list[float]:
        """Hazards by bin: the law's, times what was seen over what it expected, where enough was seen."""
        expected = [0.0] * BINS
        older = 0.0
        for i in reversed(range(BINS)):
            within = self._ended[i] + self._given_up[i] + self.unfinished[i]
            expected[i] = chances[i] * (older + 0.5 * within)
            older += within
        seen = _smoothed(self._ended)
        foreseen = _smoothed(expected)
        return [
            (seen[i] + _LAW_WEIGHT) / (foreseen[i] + _LAW_WEIGHT) * chances[i] / WIDTHS[i]
            for i in range(BINS)
        ]

    def _fade(self) -> None:
        self._ended = [0.5 * count for count in self._ended]
        self._failed = [0.5 * count for count in self._failed]
        self._given_up = [0.5 * count for count in self._given_up]
        self.samples *= 0.5
        self._learned_from *= 0.5


def _smoothed(counts: list[float]) -> list[float]:
    """Each bin's count with a share of its neighbours' (twice the mean of a triangle three bins wide)."""
    padded = [counts[0], *counts, counts[-1]]
    return [0.5 * (padded[i] + padded[i + 2]) + padded[i + 1] for i in range(len(counts))]
