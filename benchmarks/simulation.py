"""Jobs on a simulated clock, and ways to poll them: no network, no waiting, repeatable from a seed."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import attrs

from benchmarks.figures import quantile
from kling_async._policy.pace import JobKind, Pace, PacedJob
from kling_async._policy.polling import PollingPolicy

DEADLINE = 3600.0
"""Seconds after which a job is given up."""
_KIND = JobKind("kling-v2-6", duration=5)
_POLICY = PollingPolicy()
_EARLY_ENOUGH = 0.02
"""Ask now, if the schedule would have a job wait for so small a part of its interval."""


@attrs.frozen(kw_only=True)
class Life:
    """What will happen to one simulated job."""

    wait: float = 0.0
    """Seconds that it waits for a worker."""
    run: float
    """Seconds that it runs then; infinite if it is stuck."""
    success: bool = True
    """Whether it makes a video."""
    shows_running: bool = True
    """Whether the service shows when it runs, or shows it waiting until it is done."""

    @property
    def total(self) -> float:
        """Seconds from its start to its end."""
        return self.wait + self.run


Draw: TypeAlias = Callable[[random.Random], Life]
"""A kind of service: gives the life of the next job."""


def log_normal(median: float, sigma: float) -> Draw:
    """Jobs that run at once, for a log-normal time."""
    return lambda rng: Life(run=median * math.exp(rng.gauss(0.0, sigma)))


@attrs.define
class Report:
    """What a way of polling cost, and how late it was."""

    jobs: int
    calls: int = 0
    """Status calls, or list calls; without the one that submits."""
    lags: list[float] = attrs.field(factory=list)
    """Seconds from each job's end to the moment it was noticed."""

    @property
    def calls_per_job(self) -> float:
        """What it cost."""
        return self.calls / self.jobs

    @property
    def mean_lag(self) -> float:
        """How late it was, in seconds."""
        return math.fsum(self.lags) / len(self.lags)

    @property
    def p95_lag(self) -> float:
        """The lag in seconds that one job in twenty exceeds."""
        return quantile(self.lags, 0.95)


@attrs.define(eq=False)
class _Asked:
    """A simulated job in flight."""

    life: Life
    began: float
    age: PacedJob

    @property
    def ends(self) -> float:
        return self.began + self.life.total

    def is_running(self, now: float) -> bool:
        return self.life.shows_running and now >= self.began + self.life.wait


@attrs.define(eq=False)
class Adaptive:
    """Our pace with one status call for one job: what the engine does, on a simulated clock.

    A call takes no time, and no two of them are nearer than the budget allows.
    """

    lives: Sequence[Life]
    in_flight: int
    """How many jobs are in flight at once."""
    rng: random.Random
    budget: float = math.inf
    """Calls a second."""
    _pace: Pace = attrs.field(init=False, factory=Pace)
    _heap: list[tuple[float, int, _Asked]] = attrs.field(init=False, factory=list)
    _entries: Iterator[int] = attrs.field(init=False, factory=itertools.count)

    def run(self) -> Report:
        """Poll until every job is done or given up."""
        report = Report(len(self.lives))
        todo = iter(self.lives)
        for life in itertools.islice(todo, self.in_flight):
            self._begin(life, 0.0)
        now = turn = 0.0
        while self._heap:
            due, _, job = heapq.heappop(self._heap)
            now = max(due, turn, now)
            if not self._is_time(job, now):
                continue
            turn = now + 1 / self.budget
            report.calls += 1
            if self._ask(job, now, report):
                for life in itertools.islice(todo, 1):
                    self._begin(life, now)
        return report

    def _begin(self, life: Life, now: float) -> None:
        is_running = life.shows_running and not life.wait
        age = self._pace.track(_KIND, now=now, running=is_running, jitter=self.rng.random())
        self._plan(_Asked(life, now, age), now)

    def _due(self, job: _Asked, now: float) -> float:
        return self._pace.next_poll(job.age, _POLICY, now=now)

    def _is_time(self, job: _Asked, now: float) -> bool:
        due = self._due(job, now)
        if due - now <= _EARLY_ENOUGH * (due - job.age.seen_at):
            return True
        heapq.heappush(self._heap, (due, next(self._entries), job))
        return False

    def _ask(self, job: _Asked, now: float, report: Report) -> bool:
        """Poll a job; whether that was the last time."""
        if now >= job.ends:
            report.lags.append(now - job.ends)
            if self._pace.record_end(job.age, now=now, success=job.life.success):
                self._replan(now)
            return True
        if now >= job.began + DEADLINE:
            self._pace.forget(job.age)
            return True
        self._pace.record_sighting(job.age, now=now, running=job.is_running(now), jitter=self.rng.random())
        self._plan(job, now)
        return False

    def _plan(self, job: _Asked, now: float) -> None:
        heapq.heappush(self._heap, (max(now, self._due(job, now)), next(self._entries), job))

    def _replan(self, now: float) -> None:
        jobs = [job for _, _, job in self._heap]
        self._heap.clear()
        for job in jobs:
            self._plan(job, now)


def scan_lists(lives: Sequence[Life], *, rows_per_call: int) -> Report:
    """Our pace with a list that shows all jobs, which start at once and stay on it when they are done."""
    report = Report(len(lives))
    pace = Pace()
    jobs = [_Asked(life, 0.0, pace.track(_KIND, now=0.0, jitter=0.5, running=True)) for life in lives]
    calls = math.ceil(len(jobs) / rows_per_call)
    now = 0.0
    while jobs:
        now += pace.scan_interval(_KIND.model, _POLICY, cost=calls, now=now)
        report.calls += calls
        left = []
        for job in jobs:
            if job.ends <= now:
                report.lags.append(now - job.ends)
                pace.record_end(job.age, now=now, success=True)
            else:
                pace.record_sighting(job.age, now=now, jitter=0.5, running=True)
                left.append(job)
        jobs = left
    return report


def in_turn(lives: Sequence[Life], *, in_flight: int, budget: float) -> Report:
    """Poll one job after the other, as fast as the budget allows."""
    report = Report(len(lives))
    todo = iter(lives)
    jobs = [(life, 0.0) for life in itertools.islice(todo, in_flight)]
    while jobs:
        left = []
        for life, began in jobs:
            report.calls += 1
            now = report.calls / budget
            if now < began + life.total:
                left.append((life, began))
                continue
            report.lags.append(now - began - life.total)
            left += [(following, now) for following in itertools.islice(todo, 1)]
        jobs = left
    return report


def every(lives: Sequence[Life], interval: float) -> Report:
    """Poll each job every so many seconds."""
    report = Report(len(lives))
    for life in lives:
        asked = math.ceil(min(life.total, DEADLINE) / interval)
        report.calls += asked
        if life.total < DEADLINE:
            report.lags.append(asked * interval - life.total)
    return report


def every_best(lives: Sequence[Life], *, lag: float) -> Report:
    """Poll each job at the fixed interval that needs the fewest calls to be no later than `lag` on average."""
    tried = [every(lives, lag * (1.3 + 0.02 * step)) for step in range(60)]
    return min((report for report in tried if report.mean_lag <= lag), key=lambda report: report.calls)


def back_off(lives: Sequence[Life]) -> Report:
    """Poll each job after 1 s, then half as long again each time, to 30 s."""
    report = Report(len(lives))
    for life in lives:
        now, delay = 0.0, 1.0
        while now < min(life.total, DEADLINE):
            now += delay
            delay = min(30.0, 1.5 * delay)
            report.calls += 1
        if life.total < DEADLINE:
            report.lags.append(now - life.total)
    return report
