"""A log-normal law of run times, fitted to finished and to unfinished jobs.

A finished job is a sample; an unfinished one says only "longer than this" (right-censored). A few jobs
follow no law: refused after a second, stuck for ever. So the law is mixed with a small share of strays of
any age, which claim what the law cannot explain instead of bending it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

import attrs

STRAY_SHARE = 0.02
"""Share of jobs that are taken to follow no law."""
STRAY_SPREAD = 2.0
"""Standard deviation of the strays' log age: most lie within a fiftieth to fifty times the usual."""
USUAL_SPREAD = 0.45
"""Standard deviation of log run times to expect: half of all within 0.74 to 1.35 times the median."""

_CENTRE_DOUBT = 3.0
"""How unsure the expected centre is, as a standard deviation of log seconds: the first sample overrules it."""
_SPREAD_DOUBT = 0.5
"""How unsure the expected spread is, as a standard deviation of its logarithm: a handful overrules it."""
_NARROWEST = 0.03
"""The least spread to believe in, for ages are known to some hundredths."""
_ENOUGH = 1e-3
_ROUNDS = 20
_SQRT_2 = math.sqrt(2.0)
_SQRT_2PI = math.sqrt(2.0 * math.pi)
_LEAST = 1e-300

Tally: TypeAlias = Sequence[tuple[float, float]]
"""Pairs of (log age, number of jobs)."""


@attrs.frozen
class LogNormal:
    """What finished jobs say of a run time: its logarithm has this centre and this spread."""

    centre: float
    """Mean log run time; `exp(centre)` is the median in seconds."""
    spread: float
    """Standard deviation of the log run time."""
    doubt: float
    """Standard deviation of what is believed of `centre`: falls as jobs finish."""

    def survival(self, log_age: float) -> float:
        """The share of jobs that runs longer than this, strays left out."""
        return upper_tail((log_age - self.centre) / math.hypot(self.spread, self.doubt))


def upper_tail(z: float) -> float:
    """The chance that a standard normal value is above `z`."""
    return 0.5 * math.erfc(z / _SQRT_2)


def with_strays(survival: float, log_age: float, *, home: float) -> float:
    """The share of all jobs that runs longer than this, strays included; above zero at any age.

    Args:
        survival: The same share of those that follow the law.
        log_age: Logarithm of an age in seconds.
        home: Log age around which strays are spread.
    """
    stray = upper_tail((log_age - home) / STRAY_SPREAD)
    return (1 - STRAY_SHARE) * survival + STRAY_SHARE * stray + _LEAST


def fit(ended: Tally, unfinished: Tally, *, home: float, near: LogNormal | None = None) -> LogNormal:
    """The most plausible law after these jobs.

    Args:
        ended: Log run times of finished jobs, at least one.
        unfinished: Log ages at which jobs were last seen unfinished.
        home: Log run time that was expected before all of them; strays are spread around it.
        near: An earlier answer to search from.
    """
    climb = _Climb(ended=ended, unfinished=unfinished, home=home)
    samples = sum(count for _, count in ended)
    best = climb.top(near.centre, near.spread) if near else None
    if best is None or best.explained < 0.5 * samples:
        # The strays claim most of what was seen, so the law stands in the wrong place: start from the middle.
        other = climb.top(_median(ended), USUAL_SPREAD)
        best = other if best is None or other.score > best.score else best
    return LogNormal(best.centre, best.spread, best.doubt)


def _median(tally: Tally) -> float:
    places = sorted(tally)
    reached = list(accumulate(count for _, count in places))
    return places[bisect_left(reached, 0.5 * reached[-1])][0]


@attrs.frozen
class _Point:
    """The log-posterior at one law; slope and bend are by (centre, log spread), the strays' share held fixed."""

    centre: float
    spread: float
    score: float
    slope: tuple[float, float]
    bend: tuple[float, float, float]
    explained: float
    """How many of the finished jobs the law claims; the rest are strays."""

    @property
    def doubt(self) -> float:
        across, skew, along = self.bend
        determinant = across * along - skew * skew
        is_hilltop = along > 0 and determinant > 0
        return math.sqrt(along / determinant if is_hilltop else 1 / across)


@attrs.frozen(kw_only=True)
class _Climb:
    """Climbs to the law with the highest posterior: Newton's steps, damped until each goes up."""

    ended: Tally
    unfinished: Tally
    home: float

    def top(self, centre: float, spread: float) -> _Point:
        here = self.look(centre, spread)
        damping = _ENOUGH
        for _ in range(_ROUNDS):
            move, widen = _step(here, damping)
            there = self.look(here.centre + move, max(_NARROWEST, here.spread * math.exp(widen)))
            gain = there.score - here.score
            if gain > 0:
                here, damping = there, damping * 0.1
            else:
                damping = max(damping * 10, 0.01)
            if abs(gain) < _ENOUGH:
                break
        return here

    def look(self, centre: float, spread: float) -> _Point:
        away = (centre - self.home) / _CENTRE_DOUBT
        wider = math.log(spread / USUAL_SPREAD) / _SPREAD_DOUBT
        believed = (
            -0.5 * (away * away + wider * wider),
            -away / _CENTRE_DOUBT,
            -wider / _SPREAD_DOUBT,
            1 / _CENTRE_DOUBT**2,
            0.0,
            1 / _SPREAD_DOUBT**2,
        )
        *told, explained = self._told_by_ended(centre, spread)
        parts = zip(believed, told, self._told_by_unfinished(centre, spread), strict=True)
        score, up, out, across, skew, along = map(sum, parts)
        return _Point(centre, spread, score, (up, out), (across, skew, along), explained)

    def _told_by_ended(self, centre: float, spread: float) -> tuple[float, ...]:
        score = up = out = weights = bend = 0.0
        for place, count in self.ended:
            z = (place - centre) / spread
            share, log_chance = self._claim_ended(place, z, spread)
            weight = count * share
            score += count * log_chance
            weights += weight
            up += weight * z
            out += weight * (z * z - 1)
            bend += weight * z * z
        return score, up / spread, out, weights / spread**2, 2 * up / spread, 2 * bend, weights

    def _told_by_unfinished(self, centre: float, spread: float) -> tuple[float, ...]:
        score = up = out = across = skew = along = 0.0
        for place, count in self.unfinished:
            z = (place - centre) / spread
            share, log_chance = self._claim_unfinished(place, z)
            score += count * log_chance
            if share <= 0:
                continue
            # The hazard of a standard normal value, and how fast that grows.
            hazard = math.exp(-0.5 * z * z) / (_SQRT_2PI * upper_tail(z))
            growth = hazard * (hazard - z)
            weight = count * share
            up += weight * hazard
            out += weight * hazard * z
            across += weight * growth
            skew += weight * (z * growth + hazard)
            along += weight * z * (z * growth + hazard)
        return score, up / spread, out, across / spread**2, skew / spread, along

    def _claim_ended(self, place: float, z: float, spread: float) -> tuple[float, float]:
        """The law's share in a job that ended here, and the log chance of such an end."""
        far = (place - self.home) / STRAY_SPREAD
        law = (1 - STRAY_SHARE) / (spread * _SQRT_2PI) * math.exp(-0.5 * z * z)
        both = law + STRAY_SHARE / (STRAY_SPREAD * _SQRT_2PI) * math.exp(-0.5 * far * far) + _LEAST
        return law / both, math.log(both)

    def _claim_unfinished(self, place: float, z: float) -> tuple[float, float]:
        """The same for a job that is older than this and has not ended."""
        law = (1 - STRAY_SHARE) * upper_tail(z)
        both = law + STRAY_SHARE * upper_tail((place - self.home) / STRAY_SPREAD) + _LEAST
        return law / both, math.log(both)


def _step(point: _Point, damping: float) -> tuple[float, float]:
    across, skew, along = point.bend
    up, out = point.slope
    across += damping * max(1.0, across)
    along = max(along, 1.0) * (1 + damping)
    determinant = across * along - skew * skew
    if determinant <= 0.05 * across * along:
        # Not near a hilltop: climb along each axis by itself.
        return _bounded(up / across), _bounded(out / along)
    return _bounded((along * up - skew * out) / determinant), _bounded(
        (across * out - skew * up) / determinant
    )


def _bounded(step: float) -> float:
    return max(-1.0, min(1.0, step))
