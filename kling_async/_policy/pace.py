"""When to poll each job in flight: as seldom as does no harm, from the run times of the jobs that ended.

A job is polled again when its expected lag reaches a share of the usual run time. The expected lag is the chance that it
has ended since it was last seen in flight, times half of the seconds since then. So it is polled rarely while it is young,
often around the usual run time, and rarely again when it is late. A list scan shows many jobs at once, so its interval is
a share of the usual run time. `Pace.next_poll` and `Pace.scan_interval` are the two rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import attrs

from kling_async._policy.polling import PollingPolicy
from kling_async._policy.run_times import MAX_Z, RunTimes
from kling_async.catalog import PICTURE_KEYS

_EXPECTED_RUN = 200.0
"""Seconds that a job is expected to run while none of its kind has ended.

Source: averages of 319 s from text and 164 s from an image in ComfyUI's nodes for Kling; about 240 s and 138 s told by two
other gateways.
"""
_LAG_SHARE, _SCOUT_LAG_SHARE = 0.0036, 0.0003
"""Poll when the expected lag reaches this share of the usual run time; the second for the scout, while the run time is only
expected. Measured: 0.0044 instead of 0.0036 saves a tenth of the calls for a tenth more lag."""
_MIN_INTERVAL = 0.2
"""Seconds between two polls of one job, and between two scans of a list, at the least."""
_FINE, _COARSE = 0.014, 0.1
"""Intervals between two looks, as shares of the usual run time or of a job's age. The fine share is for times at which ends
are likely: list scans (half of the share is their mean lag), fits, and late jobs. The coarse share is for times before: jobs
that wait in the service's queue, and the first scans."""
_JITTER, _FIRST_JITTER = 0.15, 1.0
"""The share of an interval that a random number can take off, so that jobs of one age are not polled together; the second
for the first poll before any job has ended, for a few early polls tell something of all jobs."""
_LEAST_AGE = 1e-3
"""An age of zero seconds has no logarithm."""
_SAMPLE = 24
"""Jobs in flight that a fit looks at, about."""


@attrs.frozen(cache_hash=True)
class JobKind:
    """Jobs that are expected to run about equally long."""

    model: str | None
    duration: int | None = None
    """Seconds of video."""
    sound: bool | None = None
    has_image: bool = False


def job_kind(model: str | None, payload: Mapping[str, Any]) -> JobKind:
    """The jobs that are expected to run as long as this one.

    It reads the payload, because a journal and the service know no request. A model that names these parameters
    otherwise has one kind for all its jobs: their polls are then less well timed, and nothing else changes.
    """
    duration, sound = str(payload.get("duration"))[:4], payload.get("sound") == "on"
    return _job_kind(model, duration, sound=sound, has_image=not PICTURE_KEYS.isdisjoint(payload))


@lru_cache(maxsize=256)
def _job_kind(model: str | None, duration: str, *, sound: bool, has_image: bool) -> JobKind:
    """One value for all jobs of a kind: a batch looks the kind up for each job."""
    seconds = int(duration) if duration.isdecimal() else None
    return JobKind(model=model, duration=seconds, sound=sound, has_image=has_image)


@attrs.define(eq=False)
class KindPace:
    """What is known of one kind of job."""

    run_times: RunTimes
    """Of each job, the time from the last change of state that was seen before its end, to its end."""
    starts: int = 0
    """How many jobs were seen to start, minus how many succeeded and were never seen to run."""
    has_successes: bool = False
    fit_at: float = -math.inf
    """When the next fit is due."""
    jobs: list[PacedJob] = attrs.field(factory=list)
    """The jobs in flight, in any order; each knows its place."""

    @property
    def shows_starts(self) -> bool:
        """Whether the service shows when most of the jobs start to run."""
        return self.starts > 0

    def sample(self) -> list[PacedJob]:
        """Some of the jobs in flight."""
        return self.jobs[:: max(1, len(self.jobs) // _SAMPLE)]

    def fit(self, now: float) -> None:
        """Learn the run times from time to time."""
        if now < self.fit_at:
            return
        sample = self.sample()
        weight = len(self.jobs) / max(1, len(sample))
        counted = [job for job in sample if job.is_running or not self.shows_starts]
        self.run_times.fit([(job.seen_at - job.began_at, weight) for job in counted])
        self.fit_at = now + max(_MIN_INTERVAL, _FINE * self.run_times.median)


@attrs.define(eq=False)
class PacedJob:
    """One job in flight, as the pace sees it."""

    kind_pace: KindPace
    is_running: bool
    """Whether the service shows it running; else it waits in the queue."""
    began_at: float
    """When it entered that state, by a monotonic clock."""
    seen_at: float
    """When a status call or a list last showed it in that state."""
    polled_at: float
    """When a status call last saw it in that state."""
    jitter: float
    """A random number from 0 to 1, new at each sight."""
    place: int
    """Its place among the jobs in flight of its kind; negative once it is forgotten."""

    @property
    def is_scout(self) -> bool:
        """Whether it is polled early, while no job of its kind has ended, to tell something of all of them."""
        return self.place == 0 and not self.kind_pace.run_times.ended


class Pace:
    """The run times of all kinds of jobs that a client has met, and the polls that follow from them."""

    def __init__(self) -> None:
        self._kinds: dict[JobKind, KindPace] = {}

    def track(self, kind: JobKind, *, now: float, running: bool, jitter: float) -> PacedJob:
        """Follow a job that entered its state now, running or waiting in the queue."""
        kind_pace = self._kinds.get(kind)
        if kind_pace is None:
            kind_pace = self._kinds[kind] = KindPace(RunTimes(_EXPECTED_RUN))
        job = PacedJob(kind_pace, running, now, now, now, jitter, place=len(kind_pace.jobs))
        kind_pace.jobs.append(job)
        return job

    def record_sighting(
        self, job: PacedJob, *, now: float, running: bool, jitter: float, by_list: bool = False
    ) -> None:
        """Take in that a job was seen in flight."""
        if running and not job.is_running:
            # It started between the last two sights: in the middle, for all that is known.
            job.is_running, job.began_at = True, 0.5 * (job.seen_at + now)
            job.kind_pace.starts += 1
        job.seen_at, job.jitter = now, jitter
        if not by_list:
            job.polled_at = now

    def record_end(self, job: PacedJob, *, now: float, success: bool) -> bool:
        """Record that a job was seen final, and forget the job.

        Returns whether it is the first end of its kind that counts: then all jobs of the kind may be polled at other times.

        Jobs that fail end sooner than those that succeed: their run times count only until one has succeeded.
        """
        kind_pace = job.kind_pace
        self.forget(job)
        if success and not kind_pace.has_successes:
            kind_pace.has_successes, kind_pace.run_times = True, RunTimes(kind_pace.run_times.expected)
        elif kind_pace.has_successes and not success:
            return False
        kind_pace.run_times.add(0.5 * (job.seen_at + now) - job.began_at)
        kind_pace.starts -= success and not job.is_running
        if kind_pace.run_times.ended > 1:
            return False
        kind_pace.fit_at = now
        return True

    def forget(self, job: PacedJob) -> None:
        """Forget a job that has ended, or that no wait is left for."""
        if job.place >= 0:
            jobs, last = job.kind_pace.jobs, job.kind_pace.jobs[-1]
            jobs[job.place], last.place = last, job.place
            jobs.pop()
            job.place = -1

    def forget_lists(self, model: str | None) -> None:
        """Take back what the list of a model has shown of the jobs in flight, for it was stale."""
        for kind_pace in self._in_flight(model):
            for job in kind_pace.jobs:
                job.seen_at = job.polled_at

    def next_poll(
        self, job: PacedJob, policy: PollingPolicy, *, now: float, next_shown_at: float = -math.inf
    ) -> float:
        """When to poll a job next.

        Args:
            job: The job.
            policy: What the caller set.
            now: The present.
            next_shown_at: When the next list scan will have shown the job.
        """
        interval = policy.poll_interval
        if interval is None:
            interval = self._poll_interval(job, job.seen_at - job.began_at, now)
            interval = min(max(interval, _MIN_INTERVAL), policy.max_poll_interval)
        return max(job.seen_at + interval, next_shown_at)

    def _poll_interval(self, job: PacedJob, age: float, now: float) -> float:
        """Seconds to the next poll of a job that was seen in flight at an age."""
        kind_pace = job.kind_pace
        kind_pace.fit(now)
        normal = kind_pace.run_times.normal
        if job.is_scout:
            interval = min(age, _find_interval(normal.mean, normal.stdev, age, _SCOUT_LAG_SHARE))
        else:
            interval = _find_interval(normal.mean, normal.stdev, age, _LAG_SHARE)
        if kind_pace.shows_starts and not job.is_running:
            interval = max(interval, _COARSE * kind_pace.run_times.median)
        is_first = age <= 0 and not kind_pace.run_times.ended
        return interval * (1 - job.jitter * (_FIRST_JITTER if is_first else _JITTER))

    def scan_interval(self, model: str | None, policy: PollingPolicy, *, cost: float, now: float) -> float:
        """Seconds from one scan of a model's list to the next; no more calls than the status calls would be.

        Args:
            model: The model.
            policy: What the caller set.
            cost: What a scan costs, in status calls.
            now: The present.
        """
        if policy.poll_interval is not None:
            return policy.poll_interval
        intervals = []
        for kind_pace in self._in_flight(model):
            jobs = sorted(kind_pace.sample(), key=lambda job: job.began_at)
            oldest, middle = jobs[0], jobs[len(jobs) // 2]
            interval = _COARSE * (now - oldest.began_at)
            if kind_pace.run_times.ended:
                by_polls = self._poll_interval(middle, middle.seen_at - middle.began_at, now) / len(
                    kind_pace.jobs
                )
                usual = max(kind_pace.run_times.median, now - middle.began_at)
                interval = max(_FINE * usual, cost * by_polls)
            intervals.append(interval)
        return max(_MIN_INTERVAL, min(policy.max_poll_interval, min(intervals, default=0.0)))

    def _in_flight(self, model: str | None) -> list[KindPace]:
        return [
            kind_pace for kind, kind_pace in self._kinds.items() if kind.model == model and kind_pace.jobs
        ]


@lru_cache(maxsize=16)
def _find_interval(mean: float, deviation: float, age: float, share: float) -> float:
    """Seconds until the expected lag of a job that was seen in flight at an age is a share of the usual run time.

    The results are kept because the jobs of a batch are submitted together, and so are polled first at one age.

    Args:
        mean: The mean of the logarithms of the run times.
        deviation: Their standard deviation.
        age: The age of the job, in seconds.
        share: The share of the usual run time.
    """
    age, usual, scale = max(age, _LEAST_AGE), math.exp(mean), math.sqrt(2) * deviation

    def left(seconds: float) -> float:
        """Twice the share of jobs that are still in flight at an age; `NormalDist.cdf` takes three times as long."""
        return math.erfc((math.log(seconds) - mean) / scale)

    late, left_now = _FINE * age, left(age)
    if left_now < math.erfc(MAX_Z / math.sqrt(2)):
        return late
    low, high = _MIN_INTERVAL, age + usual
    for _ in range(8):  # halvings, to a few percent
        interval = math.sqrt(low * high)
        if (1 - left(age + interval) / left_now) * interval / 2 < share * usual:
            low = interval
        else:
            high = interval
    return max(low, late)
