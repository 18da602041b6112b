"""When to poll each job in flight: as seldom as does no harm, from the run times of the jobs that ended.

A job is polled again when its expected lag, the chance that it has ended since it was last seen in flight times half of
the seconds since then, reaches a share of the usual run time. So it is polled rarely while it is young, often around the
usual run time, and rarely again when it is late. A list scan shows many jobs at once, so its interval is a share of the
usual run time.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import attrs

from kling_async._policy.polling import PollingPolicy
from kling_async._policy.run_times import RunTimes

EXPECTED_FROM_TEXT = 200.0
"""Median seconds that a video from a prompt is expected to take.

Source: an average of 319 s in ComfyUI's nodes for Kling; about 240 s and 138 s told by two other gateways.
"""
EXPECTED_FROM_IMAGE = 120.0
"""The same for a video from an image. Source: an average of 164 s in ComfyUI's nodes for Kling."""
EXPECTED_QUEUE = 8.0
"""Median seconds that a job waits for a worker: a guess, for no measurement was published."""

_LAG_SHARE, _SCOUT_LAG_SHARE = 0.004, 0.0003
"""Poll when the expected lag reaches this share of the usual run time; the second for scouts, for the run time may be far
from the expected one. Measured: 0.006 instead of 0.004 saves a sixth of the calls for a fifth more lag."""
_CERTAIN = 1e-6
"""A job that is left in flight with so small a chance is stuck: the distribution says nothing more of it."""
_HALVINGS = 8
"""Steps in which an interval is found, to a few percent."""
_MIN_INTERVAL = 0.2
"""Seconds between two polls of one job at the least."""
_LATE_SHARE = 0.015
"""A job past the usual run time is polled after this share of its age at the earliest: late jobs can be very late."""
_START_SHARE = 0.1
"""A job that waits for a worker is polled after this share of the usual run time at the earliest: a start noticed late
does no harm."""
_SCOUTS, _SCOUT_GROWTH = 1, 1.5
"""Until a job of the kind has ended, one of its jobs is polled when its age has grown by this factor. Measured: a second
scout costs a tenth more calls with 20 jobs in flight, and saves no lag."""
_SCAN_SHARE, _FIRST_SCAN_SHARE = 0.014, 0.06
"""Scan a list after this share of the usual run time, half of which is the mean lag; before any job of the model has
ended, after the second share of the oldest age."""
_JITTER, _FIRST_JITTER = 0.15, 0.85
"""The share of an interval that a random number can take off, so that jobs of one age are not polled together; the
second for the first poll before any job has ended, for a few early polls tell something of all jobs."""
_MIN_LEARN_INTERVAL, _LEARN_SHARE = 0.25, 0.01
"""Fit the run times again after this many seconds, and this share of the usual run time, at the earliest."""
_FEW = 3
"""The first ends tell so much that each is learned from at once."""
_MUCH_SOONER = 0.9
"""All jobs are scheduled again when the usual run time shrinks to this share."""
_SAMPLE = 24
"""Jobs in flight that a fit looks at, at most."""


@attrs.frozen(cache_hash=True)
class JobKind:
    """Jobs that are expected to run about equally long."""

    model: str | None
    duration: int | None = None
    """Seconds of video."""
    sound: bool | None = None
    has_image: bool = False


@attrs.define(eq=False)
class KindPace:
    """What is known of one kind of job: how long its jobs wait for a worker, and how long they run then."""

    waiting: RunTimes
    """From the submit until the job is first seen running, or has ended."""
    running: RunTimes
    starts: int = 0
    """How many jobs were seen to start."""
    jumps: int = 0
    """How many jobs ended and were never seen running."""
    failures: int = 0
    """How many jobs failed while none had succeeded."""
    scouts: int = 0
    """How many jobs in flight are polled early."""
    learn_at: float = -math.inf
    """When the next fit is due."""
    jobs: list[PacedJob] = attrs.field(factory=list)
    """The jobs in flight, in any order; each knows its place."""

    def forget(self) -> None:
        """Begin again with the expectation: jobs failed sooner than jobs that succeed will end."""
        self.waiting, self.running = RunTimes(self.waiting.expected), RunTimes(self.running.expected)
        self.starts = self.jumps = self.failures = 0

    @property
    def has_ends(self) -> bool:
        """Whether a job of the kind has ended."""
        return self.running.ended + self.jumps > 0

    @property
    def usual(self) -> float:
        """The usual seconds from the last state before the end to the end."""
        return (
            self.running.median if self.starts >= self.jumps and self.running.ended else self.waiting.median
        )


@attrs.define(eq=False)
class PacedJob:
    """One job in flight, as the pace sees it."""

    kind: KindPace
    is_running: bool
    since: float
    """When it entered its state, by a monotonic clock."""
    seen: float
    """When it was last seen in it."""
    jitter: float
    """A random number from 0 to 1, new at each sight."""
    place: int
    """Its place among the jobs in flight of its kind; negative once it is forgotten."""
    is_scout: bool = False

    @property
    def times(self) -> RunTimes:
        """The times that jobs spend in its state."""
        return self.kind.running if self.is_running else self.kind.waiting


class Pace:
    """The run times of all kinds of jobs that a client has met, and the polls that follow from them."""

    def __init__(self) -> None:
        self.revision = 0
        """Grows when a fit may call for earlier polls."""
        self._kinds: dict[JobKind, KindPace] = {}

    def track(self, kind: JobKind, *, now: float, running: bool, jitter: float) -> PacedJob:
        """Follow a job from now on.

        Args:
            kind: What it is.
            now: When it entered its state.
            running: Whether the service shows it running; else it waits for a worker.
            jitter: A random number from 0 to 1.
        """
        pace = self._kinds.get(kind)
        if pace is None:
            pace = self._kinds[kind] = self._first_of(kind)
        job = PacedJob(pace, running, since=now, seen=now, jitter=jitter, place=len(pace.jobs))
        pace.jobs.append(job)
        return job

    def record_sighting(self, job: PacedJob, *, now: float, running: bool, jitter: float) -> None:
        """A job was seen in flight."""
        if running and not job.is_running:
            # It started between the last two sights: in the middle, for all that is known.
            started = 0.5 * (job.seen + now)
            job.kind.waiting.add(started - job.since)
            job.kind.starts += 1
            job.is_running, job.since = True, started
        job.seen, job.jitter = now, jitter

    def record_end(self, job: PacedJob, *, now: float, success: bool) -> None:
        """A job was seen final; the pace forgets it."""
        kind, seconds = job.kind, 0.5 * (job.seen + now) - job.since
        self.revision += not kind.has_ends
        self.forget(job)
        if success or not kind.has_ends or kind.failures:
            if success and kind.failures:
                kind.forget()
            kind.failures += not success
            job.times.add(seconds)
            kind.jumps += not job.is_running
            if job.times.ended <= _FEW:
                kind.learn_at = now

    def forget(self, job: PacedJob) -> None:
        """No wait for a job is left; the pace forgets it."""
        if job.place < 0:
            return
        jobs, last = job.kind.jobs, job.kind.jobs[-1]
        jobs[job.place], last.place = last, job.place
        jobs.pop()
        job.place = -1
        job.kind.scouts -= job.is_scout
        job.is_scout = False

    def next_poll(self, job: PacedJob, policy: PollingPolicy, *, now: float) -> float:
        """When to poll a job next, if no list scan shows it before."""
        if policy.poll_interval is not None:
            return job.seen + policy.poll_interval
        kind = job.kind
        self._learn(kind, now)
        seen = job.seen - job.since
        is_scout = self._is_scout(job)
        interval = _interval(job.times.normal, seen, _SCOUT_LAG_SHARE if is_scout else _LAG_SHARE)
        if not job.is_running and kind.starts >= kind.jumps:
            interval = max(interval, _START_SHARE * kind.running.median)
        if is_scout:
            interval = min(interval, max(_MIN_INTERVAL, (_SCOUT_GROWTH - 1) * seen))
        share = _FIRST_JITTER if seen <= 0 and not kind.has_ends else _JITTER
        interval *= 1 - share * job.jitter
        return job.seen + min(max(interval, _MIN_INTERVAL), policy.max_poll_interval)

    def scan_interval(self, model: str | None, *, now: float) -> float:
        """Seconds from one scan of a model's list to the next."""
        shares = []
        for kind in [pace for known, pace in self._kinds.items() if known.model == model and pace.jobs]:
            self._learn(kind, now)
            ages = sorted(now - job.since for job in _sample(kind))
            if kind.has_ends:
                shares.append(_SCAN_SHARE * max(kind.usual, ages[len(ages) // 2]))
            else:
                shares.append(_FIRST_SCAN_SHARE * ages[-1])
        return max(_MIN_INTERVAL, min(shares, default=_MIN_INTERVAL))

    def polls_per_second(self, model: str | None, policy: PollingPolicy, *, now: float) -> float:
        """How many status calls a second the jobs of a model in flight are worth together."""
        total = 0.0
        for kind in [pace for known, pace in self._kinds.items() if known.model == model and pace.jobs]:
            sample = _sample(kind)[::3]
            rates = [
                1 / max(self.next_poll(job, policy, now=now) - job.seen, _MIN_INTERVAL) for job in sample
            ]
            total += math.fsum(rates) * len(kind.jobs) / len(sample)
        return total

    def _is_scout(self, job: PacedJob) -> bool:
        """Whether a job is polled early, so that something is learned of all jobs of its kind."""
        kind = job.kind
        if kind.has_ends:
            return False
        if not job.is_scout and kind.scouts < _SCOUTS:
            job.is_scout = True
            kind.scouts += 1
        return job.is_scout

    def _learn(self, kind: KindPace, now: float) -> None:
        if now < kind.learn_at:
            return
        before = kind.usual
        sample = _sample(kind)
        weight = len(kind.jobs) / len(sample) if sample else 0.0
        for times, running in ((kind.waiting, False), (kind.running, True)):
            times.fit([(job.seen - job.since, weight) for job in sample if job.is_running is running])
        kind.learn_at = now + max(_MIN_LEARN_INTERVAL, _LEARN_SHARE * kind.usual)
        if kind.usual < _MUCH_SOONER * before:
            self.revision += 1

    def _first_of(self, kind: JobKind) -> KindPace:
        """The expectation of a kind that was never met: what another kind of the model took, else what is published."""
        for known, pace in self._kinds.items():
            if known.model == kind.model and known.has_image == kind.has_image and pace.has_ends:
                return KindPace(RunTimes(pace.waiting.median), RunTimes(pace.running.median))
        run = EXPECTED_FROM_IMAGE if kind.has_image else EXPECTED_FROM_TEXT
        return KindPace(RunTimes(EXPECTED_QUEUE), RunTimes(run))


def _sample(kind: KindPace) -> list[PacedJob]:
    """Some of the jobs in flight."""
    return kind.jobs[:: max(1, len(kind.jobs) // _SAMPLE)]


def _interval(normal: NormalDist, seen: float, share: float) -> float:
    """Seconds after which the expected lag of a job that was seen in flight at an age is a share of the usual run time.

    The expected lag is the chance that the job has ended by then, times half of the seconds.
    """
    usual = math.exp(normal.mean)
    late = _LATE_SHARE * seen if seen > usual else 0.0
    left = 1.0 - normal.cdf(math.log(max(seen, 1e-3)))
    if left < _CERTAIN:
        return late
    low, high = _MIN_INTERVAL, seen + usual
    for _ in range(_HALVINGS):
        interval = math.sqrt(low * high)
        ended = 1.0 - (1.0 - normal.cdf(math.log(seen + interval))) / left
        if ended * interval / 2 < share * usual:
            low = interval
        else:
            high = interval
    return max(low, late)
