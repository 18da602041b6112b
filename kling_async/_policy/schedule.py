"""When to ask after each of many jobs in flight: as seldom as does no harm, as often as the caller allows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from kling_async._policy.ages import EDGES
from kling_async._policy.listing import Crowd, list_burden, list_cost, list_delay, stands_for
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.stage import Course, JobKind, Stage, new_course
from kling_async._policy.timetable import Pressure, press

_SHORTEST = 0.2
"""Seconds between two questions about one job, at the least."""
_SCOUTS, _FEW_ENDS, _EARLY, _YOUNG = 2, 20, 0.5, 8.0
"""Until so many ends of a kind were seen, its first jobs are asked about after half their age while they are young:
some ten calls more for jobs of minutes, and if they end within a second, refused or made for a test, all others are
asked about soon.
"""
_UNKNOWN = 0.4
"""Until one has ended, jobs are listed again after this share of their age at the latest, if a list weighs as much as a
call for each, and less by the square root if it weighs less: of many jobs the first ends long before the usual time.
"""
_LOAD_CHANGE = 1.1
"""Spread the budget anew when the demand has changed by this factor."""
_LAST, _MOST_LAST, _LAST_INTERVAL = 0.01, 4, 0.008
"""The last few of a crowd, as this share of it and this number, are asked about after this share of their age at the
latest, times the square root of how many they are: whoever waits for all of them waits for these.
"""
_BORROW_FROM = 5
"""So many ends seen of another kind of a model are worth more than a general guess."""


@attrs.define(eq=False)
class Track:
    """What is remembered of one job in flight; only the schedule looks inside."""

    course: Course
    stage: Stage
    since: float
    """When it entered its state."""
    asked: float
    """When it was last shown in it."""
    chance: float
    demand: float = 0.0
    """Calls a second that it was last worth."""
    is_scout: bool = False
    """Whether it is asked about early, to learn something of all jobs of its kind."""


@attrs.define(eq=False)
class PollSchedule:
    """Says when to ask after jobs, and learns from the answers.

    All moments are seconds by one clock of the caller's that never goes back, and chances are its dice, from 0
    to 1. The schedule spreads the budget over jobs but does not enforce it.
    """

    policy: PollingPolicy
    max_polls_per_second: float = attrs.field(default=math.inf, kw_only=True)
    """The budget for all jobs together."""
    edition: int = attrs.field(init=False, default=0)
    """Grows when jobs may be due sooner than `due` said before."""
    _courses: dict[JobKind, Course] = attrs.field(init=False, factory=dict)
    _tracked: int = attrs.field(init=False, default=0)
    _most: int = attrs.field(init=False, default=0)
    """The most jobs that were in flight since there were none."""
    _demand: float = attrs.field(init=False, default=0.0)
    _pressed_at: float = attrs.field(init=False, default=0.0)
    _pressure: Pressure = attrs.field(init=False)
    _shortest: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pressure = Pressure(longest=self.policy.max_poll_interval)
        self._shortest = min(_SHORTEST, self.policy.max_poll_interval)

    def begin(
        self, kind: JobKind, *, now: float, chance: float, running: bool = False, age: float = 0.0
    ) -> Track:
        """Follow a job from now on.

        Args:
            kind: What it is.
            now: The present.
            chance: Dice.
            running: Whether the service shows it running; else it waits.
            age: Seconds that it has been in this state already.
        """
        course = self._courses.get(kind) or self._meet(kind, now)
        stage = course.running if running else course.waiting
        stage.times.began()
        track = Track(course, stage, since=now - max(0.0, age), asked=now, chance=chance)
        if age > 0:
            stage.times.seen(age, before=0.0)
        self._tracked += 1
        self._most = max(self._most, self._tracked)
        return track

    def due(self, track: Track, *, now: float) -> float:
        """When to ask after a job next.

        It may be called at any time, and the answer moves as knowledge grows. Call it again when a job's time
        has come: if others have shown meanwhile that it is too early, the answer lies ahead.
        """
        if self.policy.poll_interval is not None:
            return track.asked + self.policy.poll_interval
        stage = track.stage
        if track.course.wants_lesson(stage, now):
            track.course.keep_up(now)
        age = track.asked - track.since
        latest, interval = self._latest(stage, age), stage.free_interval(age)
        if (rate := 1 / max(self._shortest, min(latest, interval))) != track.demand:
            self._change_demand(track, rate)
        if self._pressure.share < 1:
            interval = stage.interval(age, self._pressure)
        if (track.is_scout or self._makes_a_scout(track, now)) and self.is_scouting(track):
            interval = min(interval, max(self._shortest, _EARLY * age))
        interval *= 1 - track.course.jitter(age) * track.chance
        return track.asked + max(self._shortest, min(latest, interval))

    def _latest(self, stage: Stage, age: float) -> float:
        """Seconds until a job is asked about at the latest: no limit, but for the last few that take longer than usual."""
        if self._tracked > min(_MOST_LAST, _LAST * self._most) or age <= stage.usual:
            return math.inf
        return _LAST_INTERVAL * age * math.sqrt(self._tracked)

    def is_scouting(self, track: Track) -> bool:
        """Whether a job is asked about early, so that something is learned of all jobs of its kind."""
        is_young = track.asked - track.since < _YOUNG
        return is_young and track.is_scout and track.stage.times.samples < _FEW_ENDS

    def _makes_a_scout(self, track: Track, now: float) -> bool:
        """Have a young job asked about early where few of its kind are: one of the first, or in place of one that ended."""
        course = track.course
        if course.scouts >= _SCOUTS or now - track.since >= _YOUNG or track.stage.times.samples >= _FEW_ENDS:
            return False
        course.scouts += 1
        track.is_scout = True
        return True

    def seen(
        self, track: Track, *, now: float, chance: float, running: bool, age: float | None = None
    ) -> None:
        """The service shows a job unfinished.

        Args:
            track: The job.
            now: When it was shown.
            chance: Dice.
            running: Whether it is shown running; else it waits.
            age: Seconds that it has been running, where the service tells.
        """
        stage = track.stage
        if running and stage is track.course.waiting:
            shown, elapsed = track.asked - track.since, now - track.since
            if age is None:
                waited = stage.times.likely(after=shown, before=elapsed)
            else:
                waited = elapsed - max(0.0, age)
            self._leave(track, now=now, exact=max(0.0, waited))
            track.course.starts += 1
            track.stage = stage = track.course.running
            track.since = track.asked = track.since + waited
            stage.times.began()
        stage.times.seen(now - track.since, before=track.asked - track.since)
        track.asked, track.chance = now, chance

    def finished(self, track: Track, *, now: float, success: bool = True, exact: float | None = None) -> None:
        """The service shows a job final; its track is done with.

        Args:
            track: The job.
            now: When it was shown.
            success: Whether there is a video; a job that was refused says nothing of how long others run.
            exact: Seconds that it spent in the state it was last shown in, where the service tells.
        """
        if success and track.stage is track.course.waiting:
            track.course.jumps += 1
        self._leave(track, now=now, success=success, exact=exact)
        self._drop(track)

    def gave_up(self, track: Track) -> None:
        """Nobody waits for a job any more; its track is done with."""
        track.stage.times.gave_up(before=track.asked - track.since)
        self._drop(track)

    def list_delay(
        self, model: str | None, *, now: float, calls: float, rows: float, jobs: int | None = None
    ) -> float:
        """Seconds from the last time through a model's list to the next.

        Args:
            model: The model that is listed.
            now: The present.
            calls: How many calls it takes to be shown its jobs in flight.
            rows: How many rows they return, finished jobs and strangers' included.
            jobs: How many jobs it is gone through for, where others are asked about elsewhere; None for all.
        """
        if self.policy.poll_interval is not None:
            return self.policy.poll_interval
        crowd, burden = self._crowd(model, now, jobs), list_burden(calls=calls, rows=rows)
        return list_delay(
            crowd,
            burden=burden,
            shortest=max(self._shortest, calls / self.max_polls_per_second),
            longest=min([self.policy.max_poll_interval, *self._bounds(crowd, burden)]),
        )

    def list_pays(
        self, model: str | None, *, now: float, calls: float, rows: float, jobs: int | None = None
    ) -> bool:
        """Whether going through a model's list is cheaper than status calls that tell as soon; see `list_delay`."""
        crowd = self._crowd(model, now, jobs)
        return list_cost(calls=calls, rows=rows) < stands_for(crowd, longest=self.policy.max_poll_interval)

    def _meet(self, kind: JobKind, now: float) -> Course:
        siblings = (
            course
            for known, course in self._courses.items()
            if known.model == kind.model
            and known.has_image == kind.has_image
            and course.waiting.times.samples + course.running.times.samples >= _BORROW_FROM
        )
        if sibling := next(siblings, None):
            sibling.keep_up(now)
        course = new_course(kind, longest=self.policy.max_poll_interval, sibling=sibling)
        self._courses[kind] = course
        return course

    def _bounds(self, crowd: Crowd, burden: float) -> Iterator[float]:
        """Seconds until a list of these jobs is due at the latest."""
        yield from (self._latest(stage, age) for stage, age, _ in crowd)
        oldest = max((age for stage, age, _ in crowd if not stage.times.samples), default=0.0)
        if oldest >= _YOUNG:
            yield _UNKNOWN * oldest * math.sqrt(burden / sum(count for _, _, count in crowd))

    def _crowd(self, model: str | None, now: float, jobs: int | None) -> Crowd:
        """The jobs of a model, or as many of them as are meant."""
        crowd: list[tuple[Stage, float, float]] = []
        for kind, course in self._courses.items():
            if kind.model != model:
                continue
            course.keep_up(now)
            for stage in (course.waiting, course.running):
                crowd += [(stage, EDGES[i], count) for i, count in enumerate(stage.times.unfinished) if count]
        total = sum(count for _, _, count in crowd)
        if jobs is None or jobs >= total:
            return crowd
        return [(stage, age, count * jobs / total) for stage, age, count in crowd]

    def _leave(self, track: Track, *, now: float, success: bool = True, exact: float | None = None) -> None:
        stage = track.stage
        before = track.asked - track.since
        stage.times.finished(now - track.since, before=before, success=success, exact=exact)
        if stage.turns_page():
            self.edition += 1

    def _drop(self, track: Track) -> None:
        self._tracked -= 1
        if self._tracked == 0:
            self._most = 0
        if track.is_scout:
            track.course.scouts -= 1
            self.edition += self.is_scouting(track)
        self._change_demand(track, 0.0)

    def _change_demand(self, track: Track, rate: float) -> None:
        """Spread the budget anew if what all jobs together are worth has changed much."""
        self._demand += rate - track.demand
        track.demand = rate
        if (
            self._pressed_at <= self._demand * _LOAD_CHANGE
            and self._demand <= self._pressed_at * _LOAD_CHANGE
        ):
            return
        self._pressed_at = self._demand
        pressure = press(
            demand=self._demand,
            budget=self.max_polls_per_second,
            jobs=self._tracked,
            longest=self.policy.max_poll_interval,
        )
        if pressure != self._pressure:
            self._pressure = pressure
