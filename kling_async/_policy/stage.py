"""The pace for jobs of one kind: what is known of their run times, turned into timetables.

Asking more often costs calls, asking less often costs lag. Whatever a call is worth, the least sum of both is
reached by asking at a rate proportional to the square root of the hazard. The factor follows from the mean lag
that is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from kling_async._policy.ages import EDGES, bin_of, read
from kling_async._policy.runtimes import RunTimes
from kling_async._policy.timetable import Pressure, mean_root, median, timetable

EXPECTED_FROM_TEXT = 200.0
"""Median seconds that a video from a prompt is expected to run.

Source: an average of 319 s in ComfyUI's nodes for Kling; about 240 s and 138 s told by two other gateways.
"""
EXPECTED_FROM_IMAGE = 120.0
"""The same for a video from an image. Source: an average of 164 s in ComfyUI's nodes for Kling."""
EXPECTED_WAIT = 8.0
"""Median seconds that a job waits for a worker: a guess, for no measure was ever published."""

_LAG = 0.0125
"""Mean lag in noticing an end, as a share of the usual run time."""
_START_LAG = 0.1
"""Mean lag in noticing a start, as a share of the usual run time: it only blurs what is learned."""
_JITTER = 0.2
"""Share of an interval that chance may take off, so that jobs of one age are not all asked about at once."""
_FIRST_JITTER = 0.85
"""The same for the first question while nothing has ended: a few early looks tell something of every job."""
_PATIENCE = 4.0
"""From this many times the usual age on, the lag that is allowed grows with the age: the job is late anyhow."""
_LESSON, _EARLY_LESSON = 0.08, 0.02
"""Share of the usual time after which unfinished jobs have taught something; the second while few have ended."""
_FEW = 20
_SHORTEST_PAUSE = 0.25
"""Seconds between two such lessons at the least: one takes half a millisecond, however short jobs are."""
_SURE = 4.0
"""So much hazard in all leaves no more than one job of fifty."""
_LAG_CHANGE = 0.1
"""Share by which the lag that is wanted must have changed for a new plan."""
_UNSETTLED = 64
"""So many ends settle what is known; until then each growth by half makes a new edition."""
_EDITION_GROWTH = 1.5


@attrs.frozen(cache_hash=True)
class JobKind:
    """Jobs that are expected to run about equally long."""

    model: str | None
    duration: int | None = None
    """Seconds of video."""
    sound: bool | None = None
    has_image: bool = False


@attrs.define(eq=False)
class Stage:
    """The pace for jobs in one state: waiting for a worker, or running."""

    times: RunTimes
    """What is known of the time that jobs spend in it."""
    longest: float
    """Seconds after which a job is asked about at the latest, if the budget allows."""
    usual: float = attrs.field(init=False)
    """Median seconds in the state."""
    rates: Sequence[float] = attrs.field(init=False, default=())
    """Calls a second that a job is worth, by bin of age."""
    lag: float = attrs.field(init=False, default=math.inf)
    """Mean seconds for which an end goes unnoticed, by the present plan."""
    _due_lesson: float = attrs.field(init=False, default=0.0)
    _next_edition: float = attrs.field(init=False, default=1.0)
    _ended: Sequence[float] = attrs.field(init=False, default=())
    """Seconds from each edge of the grid until a job of that age has as good as surely ended."""
    _free: Sequence[float] = attrs.field(init=False, default=())
    _pressed: Sequence[float] = attrs.field(init=False, default=())
    _pressure: Pressure | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.usual = median(self.times.hazards)

    def wants_lesson(self, now: float) -> bool:
        """Whether `learn` and `plan` would change much."""
        times = self.times
        return not self.rates or (times.has_changed and (now >= self._due_lesson or times.has_news))

    def learn(self, now: float) -> None:
        """Take in what was told of jobs; `plan` must follow."""
        self.times.learn()
        self.usual = median(self.times.hazards)
        pause = self.usual * (_EARLY_LESSON if self.times.samples < _FEW else _LESSON)
        self._due_lesson = now + max(pause, _SHORTEST_PAUSE)

    def plan(self, *, lag: float) -> None:
        """Set the pace so that a job's end is noticed `lag` seconds late on average, budget allowing."""
        self.lag = lag
        hazards = self.times.hazards
        # Half an interval is the mean lag, and chance takes some off the interval.
        pace = mean_root(hazards) * (1 - 0.5 * _JITTER) / (2 * lag)
        late = _PATIENCE * self.usual
        self.rates = [
            pace * math.sqrt(hazard) * min(1.0, late / EDGES[i + 1]) for i, hazard in enumerate(hazards)
        ]
        self._ended = timetable([hazard / _SURE for hazard in hazards], Pressure())
        self._free = self._timetable(Pressure(longest=self.longest))
        self._pressure = None

    def _timetable(self, pressure: Pressure) -> list[float]:
        """When to ask, from each edge of the grid.

        A rate that is high for an instant makes no whole call. But where all jobs end at one moment, nothing is gained
        by asking later than the lag that is wanted after it.
        """
        lag = self.lag / pressure.share
        calls = timetable(self.rates, pressure)
        return [min(call, ended + lag) for call, ended in zip(calls, self._ended, strict=True)]

    def free_interval(self, age: float) -> float:
        """Seconds until a job of this age is worth a call, whatever the budget."""
        return read(self._free, age)

    def interval(self, age: float, pressure: Pressure) -> float:
        """The same under a budget."""
        if pressure is not self._pressure:
            self._pressure = pressure
            self._pressed = self._timetable(pressure)
        return read(self._pressed, age)

    def rate(self, age: float) -> float:
        """Calls a second that a job of this age is worth."""
        return self.rates[bin_of(age)]

    def turns_page(self) -> bool:
        """Whether ends have so grown in number that what was planned before is worth planning anew."""
        samples = self.times.samples
        if not self._next_edition <= samples <= _UNSETTLED:
            return False
        self._next_edition = samples * _EDITION_GROWTH
        return True


@attrs.define(eq=False)
class Course:
    """The way of one kind of jobs: a job may be shown waiting, then running; or waiting until it is done."""

    kind: JobKind
    waiting: Stage
    running: Stage
    starts: int = 0
    """How many were seen to start."""
    jumps: int = 0
    """How many were done and never seen to start."""
    scouts: int = 0
    """How many of those in flight are asked about early."""

    def jitter(self, age: float) -> float:
        """Share of the interval from this age that chance may take off."""
        has_ends = self.jumps or self.running.times.samples
        return _JITTER if age > 0 or has_ends else _FIRST_JITTER

    def wants_lesson(self, stage: Stage, now: float) -> bool:
        """Whether `keep_up` would change much for jobs in this stage; those that wait will run next."""
        return self.running.wants_lesson(now) or (stage is self.waiting and stage.wants_lesson(now))

    def keep_up(self, now: float) -> None:
        """Learn from what was told, and set the pace anew, where that would change much."""
        if self.running.wants_lesson(now):
            self.running.learn(now)
            self.running.plan(lag=_LAG * self.running.usual)
        has_lesson = self.waiting.wants_lesson(now)
        if has_lesson:
            self.waiting.learn(now)
        lag = self._waiting_lag()
        if has_lesson or abs(lag - self.waiting.lag) > _LAG_CHANGE * self.waiting.lag:
            self.waiting.plan(lag=lag)

    def _waiting_lag(self) -> float:
        """Leaving the first state may be an end, to be noticed soon, or a mere start, by how often each was met."""
        jumping = (self.jumps + 1) / (self.jumps + self.starts + 2)
        end = _LAG * (self.waiting.usual + (1 - jumping) * self.running.usual)
        start = _START_LAG * self.running.usual
        return 1 / math.sqrt(jumping / end**2 + (1 - jumping) / start**2)


def new_course(kind: JobKind, *, longest: float, sibling: Course | None = None) -> Course:
    """What to believe of a kind before its first job.

    Args:
        kind: The jobs.
        longest: Seconds after which a job is asked about at the latest.
        sibling: What is known of another kind of the same model.
    """
    run = EXPECTED_FROM_IMAGE if kind.has_image else EXPECTED_FROM_TEXT
    wait = EXPECTED_WAIT
    if sibling:
        run, wait = sibling.running.usual, sibling.waiting.usual
    return Course(
        kind,
        waiting=Stage(RunTimes(expected=wait), longest),
        running=Stage(RunTimes(expected=run), longest),
    )
