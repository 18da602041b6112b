"""Every job in flight: one agenda, one task group, no task or timer for a sleeping job."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque

import anyio
from anyio.abc import TaskGroup

from kling_async._engine.api import ApiCaller
from kling_async._engine.emitter import Emitter
from kling_async._engine.poll.due_queue import DueQueue
from kling_async._engine.poll.list_scan import ListScanner
from kling_async._engine.poll.tracked_job import TrackedJob
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import TokenBucket
from kling_async._policy.retry import backoff
from kling_async._policy.schedule import PollSchedule
from kling_async._policy.stage import JobKind
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import STATUS
from kling_async.errors import (
    AuthenticationError,
    BadRequestError,
    InvalidRequestError,
    KlingError,
    NotFoundError,
    PermissionDeniedError,
    WaitTimeoutError,
)
from kling_async.events import PollFailed, StatusChanged
from kling_async.jobs import Job, JobStatus

_log = logging.getLogger("kling_async")

_POLLS_AT_ONCE = 64
_MOST_HANDED_OUT = 2 * _POLLS_AT_ONCE
"""Jobs that are asked about or next in turn: as many again as are asked about, so that nobody waits for the watcher."""
_REFUSALS = (BadRequestError, AuthenticationError, PermissionDeniedError, NotFoundError, InvalidRequestError)
_UNSEEN_GRACE = 3
"""How often a job that was never seen may be refused before it is believed: a new id may take a moment to show."""
_TURNS_IN_A_ROW = 256
"""Jobs after which others get a turn at the latest, for many may be due and need no call."""
_SLACK = 0.02
"""Seconds by which a job may be asked about too early, so that one waking of the watcher serves many."""
_BETWEEN_REPLANS = 0.05
"""Seconds from planning all jobs anew to the next time: the first ends come in a burst, and each teaches something."""
_LONGEST_BLIND = 1.0
"""Seconds for which the watcher may wait for its turn without looking for deadlines that have come."""


class JobPoller:
    """Asks after jobs when the schedule says so, until each is final or its deadline has come.

    Args:
        caller: Sends the calls.
        policy: How long a wait can last, and whether lists are used.
        schedule: Shared by all watchers of a client, as is what it learns.
        rate: Shared likewise.
        emit: Tells of every change.
        peers: All that run in this event loop, so that what one learns serves the others at once.
    """

    def __init__(
        self,
        caller: ApiCaller,
        policy: PollingPolicy,
        schedule: PollSchedule,
        rate: TokenBucket,
        emit: Emitter,
        *,
        peers: set[JobPoller],
    ) -> None:
        self.caller = caller
        self.schedule = schedule
        self.emit = emit
        self.watching: dict[str, TrackedJob] = {}
        self.alive: Counter[str | None] = Counter()
        self._rate = rate
        self._peers = peers
        self._sweeps = ListScanner(caller, schedule, self, policy.use_lists)
        self._agenda = DueQueue()
        self._edition = schedule.edition
        self._replanned_at = -math.inf
        self._ready: deque[TrackedJob] = deque()
        self._idle: list[anyio.Event] = []
        self._odd_words: set[str] = set()
        self._pollers = 0
        self._handed_out = 0
        self._looked_at = 0.0
        self._landed = anyio.Event()
        self._wake = anyio.Event()
        wait, stall = policy.wait_timeout, policy.stall_timeout
        self._patience = math.inf if wait is None else wait
        self._stall = math.inf if stall is None else stall
        fixed = policy.poll_interval
        self._slack = _SLACK if fixed is None else min(_SLACK, fixed / 10)

    def wait(
        self, job: Job, *, kind: JobKind, index: int | None = None, age: float = 0.0
    ) -> asyncio.Future[Job]:
        """Poll a job from now on: a future of its final record, or of the error that ends the wait.

        Args:
            job: Its last known record.
            kind: What it is.
            index: Its place in a batch.
            age: Seconds since that record.
        """
        now = self.caller.clock.now()
        track = self.schedule.begin(
            kind, now=now - age, chance=self.caller.rng.random(), running=job.status is JobStatus.PROCESSING
        )
        watched = TrackedJob(
            request_id=job.request_id,
            model=kind.model,
            final=asyncio.get_running_loop().create_future(),
            index=index,
            track=track,
            since=now,
            ends_at=now + min(self._patience, self._stall),
            status=job.status,
            is_known=bool(job.raw),
            shown_in=self._sweeps.number(kind.model),
        )
        self.watching[watched.request_id] = watched
        self.alive[watched.model] += 1
        if not watched.is_known:
            self._plan(watched, now)
        elif job.is_final:
            self.learn(watched, job)
        else:
            self._plan(watched, self.schedule.due(track, now=now))
        return watched.final

    async def run(self) -> None:
        """Watch until cancelled."""
        self._peers.add(self)
        try:
            async with anyio.create_task_group() as tasks:
                self._sweeps.tasks = tasks
                while True:
                    for _ in range(_TURNS_IN_A_ROW):
                        await self._next(tasks)
                    await self.caller.clock.sleep(0)
        finally:
            self._peers.discard(self)
            for watched in self.watching.values():
                self.schedule.gave_up(watched.track)

    async def _next(self, tasks: TaskGroup) -> None:
        """Do what is due first, or wait for it; a job added meanwhile may come first."""
        now = self.caller.clock.now()
        replan_at = self._replan(now)
        watched = self._agenda.take(now=now, slack=self._slack)
        if watched is None:
            self._wake = anyio.Event()
            await self.caller.clock.wait(self._wake, min(self._agenda.first_at, replan_at) - now)
        elif self._is_due(watched, now):
            await self.turn()
            self._hand_out(tasks, watched)
            if self._handed_out >= _MOST_HANDED_OUT:
                while self._handed_out > _POLLS_AT_ONCE:
                    await self._landing()

    def _is_due(self, watched: TrackedJob, now: float) -> bool:
        """Whether a job whose moment has come is to be asked about; else its wait is over, or it is planned anew."""
        if now >= watched.ends_at:
            self._time_out(watched)
            return False
        if watched.is_on_schedule:
            due = self.schedule.due(watched.track, now=now)
            if due > now + self._slack:
                self._plan(watched, due)
                return False
            later = self._sweeps.stand_for(watched, now=now)
            if later is not None and not self.schedule.is_scouting(watched.track):
                self._plan(watched, later)
                return False
        return True

    async def _landing(self) -> None:
        """Wait until no more jobs are handed out than can be asked about at once; deadlines are kept meanwhile."""
        self._landed = anyio.Event()
        await self.caller.clock.wait(self._landed, _LONGEST_BLIND)
        self._time_out_the_late()

    def _hand_out(self, tasks: TaskGroup, watched: TrackedJob) -> None:
        """Give a job to an idle poller, or to a new one."""
        self._handed_out += 1
        self._ready.append(watched)
        if self._idle:
            self._idle.pop().set()
        elif self._pollers < _POLLS_AT_ONCE:
            self._pollers += 1
            tasks.start_soon(self._keep_polling)

    async def _keep_polling(self) -> None:
        """Ask after one job after the other; a task for each of them would cost as much as the asking."""
        while True:
            while not self._ready:
                called = anyio.Event()
                self._idle.append(called)
                await called.wait()
            watched = self._ready.popleft()
            if not watched.is_over:
                await self._poll(watched)
            self._handed_out -= 1
            if self._handed_out == _POLLS_AT_ONCE:
                self._landed.set()

    async def turn(self) -> None:
        """Wait for the rate to allow one more call; deadlines are kept meanwhile."""
        clock = self.caller.clock
        until = clock.now() + self._rate.take(clock.now())
        while (rest := until - clock.now()) > 0:
            await clock.sleep(min(rest, _LONGEST_BLIND))
            self._time_out_the_late()

    async def _poll(self, watched: TrackedJob) -> None:
        try:
            began = self.caller.clock.now()
            left = watched.ends_at - began
            job = await self.caller.send(STATUS, structure_job, id=watched.request_id, within=left)
        except KlingError as error:
            self._fault(watched, error)
        else:
            self._sweeps.status_seconds = self.caller.clock.now() - began
            self._sweeps.told(watched, job.status)
            self.learn(watched, job)

    def learn(self, watched: TrackedJob, job: Job) -> None:
        """Take in what the service said of a job: end the wait, or plan the next question."""
        if watched.is_over:
            return
        now = self.caller.clock.now()
        watched.faults, watched.is_known, watched.is_audit = 0, True, False
        if job.status is not watched.status:
            self._changed(watched, job, now)
        if not job.is_final:
            self.seen(watched, now)
        elif job.is_success and job.video_url is None and not watched.asked_for_media:
            # Source: the service documents answers of success that carry their outcome only on the next call.
            watched.asked_for_media = True
            self._plan(watched, now)
        else:
            edition = self.schedule.edition
            self.schedule.finished(watched.track, now=now, success=job.is_success)
            if self.schedule.edition != edition:
                for watcher in self._peers:
                    watcher.look_again()
            self._end(watched, job)

    def ask_now(self, watched: TrackedJob) -> None:
        """Ask after the job on its own as soon as the rate allows, to test what a list says of it."""
        watched.is_audit = True
        self._plan(watched, self.caller.clock.now())

    def seen(self, watched: TrackedJob, now: float) -> None:
        """The job was shown in the status that it had: plan the next question."""
        chance = self.caller.rng.random()
        running = watched.status is JobStatus.PROCESSING
        self.schedule.seen(watched.track, now=now, chance=chance, running=running)
        self._plan(watched, self.schedule.due(watched.track, now=now))

    def _changed(self, watched: TrackedJob, job: Job, now: float) -> None:
        status = job.status
        if status is JobStatus.UNKNOWN and (word := str(job.raw.get("status"))[:50]) not in self._odd_words:
            self._odd_words.add(word)
            _log.warning("the service has a status that is not known here, %r; its jobs are waited for", word)
        self.emit(
            StatusChanged,
            index=watched.index,
            request_id=watched.request_id,
            status=status,
            previous=watched.status,
        )
        watched.status = status
        watched.ends_at = min(watched.since + self._patience, now + self._stall)

    def _fault(self, watched: TrackedJob, error: KlingError) -> None:
        """A failed status call says nothing of the job: ask again, later and later, until the deadline."""
        if watched.is_over:
            return
        watched.faults, watched.fault = watched.faults + 1, error
        grace = _UNSEEN_GRACE if isinstance(error, NotFoundError) else 1
        if not watched.is_known and isinstance(error, _REFUSALS) and watched.faults >= grace:
            self.schedule.gave_up(watched.track)
            self._end(watched, error)
            return
        delay = backoff(self.caller.retry, attempt=watched.faults - 1, jitter=self.caller.rng.random())
        delay = max(delay, error.retry_after or 0.0)
        self.emit(PollFailed, index=watched.index, request_id=watched.request_id, delay=delay, error=error)
        self._plan(watched, self.caller.clock.now() + delay)

    def _plan(self, watched: TrackedJob, due: float) -> None:
        if self._agenda.put(watched, due):
            self._wake.set()

    def look_again(self) -> None:
        """Something was learned that may call for asking sooner."""
        self._wake.set()

    def _replan(self, now: float) -> float:
        """Plan all jobs anew if what was learned may call for asking sooner; when to come back, if that has to wait."""
        if self._edition == self.schedule.edition:
            return math.inf
        if now < self._replanned_at + _BETWEEN_REPLANS:
            return self._replanned_at + _BETWEEN_REPLANS
        self._edition, self._replanned_at = self.schedule.edition, now
        self._agenda.replan(
            lambda watched: self.schedule.due(watched.track, now=now) if watched.is_on_schedule else None
        )
        return math.inf

    def _end(self, watched: TrackedJob, outcome: Job | KlingError) -> None:
        self._agenda.drop(watched)
        watched.is_over = True
        self.alive[watched.model] -= 1
        self.watching.pop(watched.request_id, None)
        if watched.final.done():
            return  # its caller was cancelled
        if isinstance(outcome, Job):
            watched.final.set_result(outcome)
            return
        if outcome.job is None:
            outcome.job = watched.job
        watched.final.set_exception(outcome)
        watched.final.exception()  # counts as retrieved: a caller that is cancelled at this moment never does it

    def _time_out_the_late(self) -> None:
        now = self.caller.clock.now()
        if now < self._looked_at + _LONGEST_BLIND:
            return
        self._looked_at = now
        for watched in [one for one in self.watching.values() if now >= one.ends_at]:
            self._time_out(watched)

    def _time_out(self, watched: TrackedJob) -> None:
        waited = self.caller.clock.now() - watched.since
        so_far = f"is still {watched.status} after {waited:.0f} s"
        if watched.faults:
            assert watched.fault is not None
            so_far = (
                f"was {watched.status} when last seen, and calls for it fail after {waited:.0f} s "
                f"({watched.fault.message.rstrip('.')})"
            )
        self.schedule.gave_up(watched.track)
        self._end(
            watched,
            WaitTimeoutError(
                f"Job {watched.request_id} {so_far}; it may yet finish: "
                f"`await client.wait({watched.request_id!r})` picks it up again.",
                request_id=watched.request_id,
                job=watched.job,
            ),
        )
