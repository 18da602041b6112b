"""Every job in flight: one heap of due times, one task group, no task or timer for a sleeping job."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TypeAlias

import anyio
import attrs
from anyio.abc import TaskGroup

from kling_async._engine.call import Caller
from kling_async._policy.pace import TokenBucket
from kling_async._policy.polling import PollingPolicy, next_poll
from kling_async._policy.retry import backoff
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import STATUS
from kling_async.errors import (
    AuthenticationError,
    BadRequestError,
    KlingError,
    NotFoundError,
    PermissionDeniedError,
    WaitTimeoutError,
)
from kling_async.events import Notifier, PollFailed, StatusChanged
from kling_async.models import Job, JobStatus

_POLLS_AT_ONCE = 32
_REFUSALS = (BadRequestError, AuthenticationError, PermissionDeniedError, NotFoundError)
_UNSEEN_GRACE = 3
"""How often a job that was never seen may be refused before it is believed: a new id may take a moment to show."""

OnEnd: TypeAlias = Callable[["Watched", Job | KlingError], None]
"""Told how a wait ended: the final record, or the error that ended it."""


@attrs.define(eq=False, kw_only=True)
class Watched:
    """What is remembered of one job in flight; kept small, for there may be a hundred thousand."""

    request_id: str
    model: str | None
    on_end: OnEnd
    index: int | None = None
    since: float
    """When the watch began, by the engine's clock."""
    deadline: float
    status: JobStatus
    changed_at: float
    """When another status was last seen."""
    is_known: bool = True
    """Whether the service has ever shown this job to this key."""
    faults: int = 0
    """Status calls that failed since the last one that did not."""
    asked_for_media: bool = False
    """Whether a success without a video was asked about once more."""


@attrs.define(eq=False)
class Watcher:
    """Asks after jobs when the policy says so, until each is final or its deadline has come."""

    caller: Caller
    policy: PollingPolicy
    rate: TokenBucket
    notify: Notifier
    _due: list[tuple[float, int, Watched]] = attrs.field(init=False, factory=list)
    _added: int = attrs.field(init=False, default=0)
    _wake: anyio.Event = attrs.field(init=False, factory=anyio.Event)
    _polls: anyio.Semaphore = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._polls = anyio.Semaphore(_POLLS_AT_ONCE, fast_acquire=True)

    def add(self, job: Job, on_end: OnEnd, *, index: int | None = None) -> None:
        """Watch a job from now on; `on_end` is called exactly once, unless the watcher is cancelled."""
        now = self.caller.clock.now()
        wait = self.policy.wait_timeout
        watched = Watched(
            request_id=job.request_id,
            model=job.model,
            on_end=on_end,
            index=index,
            since=now,
            deadline=now + wait if wait is not None else float("inf"),
            status=job.status,
            changed_at=now,
            is_known=bool(job.raw),
        )
        if not watched.is_known:
            self._plan(watched, 0.0)
        else:
            self._learn(watched, job)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                await self._until_due()
                await self._ask(tasks, heapq.heappop(self._due)[2])

    async def _until_due(self) -> None:
        """Wait until the first job of the heap is due; a job added meanwhile may come first."""
        clock = self.caller.clock
        while True:
            if not self._due:
                self._wake = anyio.Event()
                await self._wake.wait()
            rest = self._due[0][0] - clock.now()
            if rest <= 0:
                return
            self._wake = anyio.Event()
            await clock.wait(self._wake, rest)

    async def _ask(self, tasks: TaskGroup, watched: Watched) -> None:
        clock = self.caller.clock
        if clock.now() >= self._ends_at(watched):
            self._time_out(watched)
            return
        await self._polls.acquire()
        if (rest := self.rate.take(clock.now())) > 0:
            await clock.sleep(rest)
        tasks.start_soon(self._poll, watched)

    async def _poll(self, watched: Watched) -> None:
        try:
            left = self._ends_at(watched) - self.caller.clock.now()
            job = await self.caller.once(STATUS, structure_job, id=watched.request_id, within=left)
        except KlingError as error:
            self._fault(watched, error)
        else:
            self._learn(watched, job)
        finally:
            self._polls.release()

    def _learn(self, watched: Watched, job: Job) -> None:
        """Take in what the service said of a job: end the wait, or plan the next question."""
        now = self.caller.clock.now()
        watched.faults, watched.is_known = 0, True
        if job.status is not watched.status:
            if self.notify:
                self.notify(
                    StatusChanged(
                        at=self.caller.clock.wall(),
                        index=watched.index,
                        request_id=watched.request_id,
                        status=job.status,
                        previous=watched.status,
                    )
                )
            watched.status, watched.changed_at = job.status, now
        if not job.is_final:
            self._plan(watched, next_poll(self.policy, age=now - watched.since))
        elif job.is_success and job.video_url is None and not watched.asked_for_media:
            # Source: the service documents answers of success that carry their outcome only on the next call.
            watched.asked_for_media = True
            self._plan(watched, 0.0)
        else:
            watched.on_end(watched, job)

    def _fault(self, watched: Watched, error: KlingError) -> None:
        """A failed status call says nothing of the job: ask again, later and later, until the deadline."""
        watched.faults += 1
        grace = _UNSEEN_GRACE if isinstance(error, NotFoundError) else 1
        if not watched.is_known and isinstance(error, _REFUSALS) and watched.faults >= grace:
            watched.on_end(watched, error)
            return
        delay = backoff(self.caller.retry, attempt=watched.faults - 1, chance=self.caller.dice.random())
        delay = max(delay, error.retry_after or 0.0)
        if self.notify:
            at = self.caller.clock.wall()
            self.notify(
                PollFailed(
                    at=at, index=watched.index, request_id=watched.request_id, delay=delay, error=error
                )
            )
        self._plan(watched, delay)

    def _plan(self, watched: Watched, delay: float) -> None:
        due = min(self.caller.clock.now() + delay, self._ends_at(watched))
        self._added += 1
        heapq.heappush(self._due, (due, self._added, watched))
        if self._due[0][2] is watched:
            self._wake.set()

    def _ends_at(self, watched: Watched) -> float:
        """When the wait is over whatever comes: by its deadline, or because nothing has moved for too long."""
        stall = self.policy.stall_timeout
        return watched.deadline if stall is None else min(watched.deadline, watched.changed_at + stall)

    def _time_out(self, watched: Watched) -> None:
        clock = self.caller.clock
        waited = clock.now() - watched.since
        job = Job(request_id=watched.request_id, model=watched.model, status=watched.status)
        watched.on_end(
            watched,
            WaitTimeoutError(
                f"Job {watched.request_id} is still {watched.status} after {waited:.0f} s; it may yet finish: "
                f"`await client.wait({watched.request_id!r})` picks it up again.",
                request_id=watched.request_id,
                job=job,
            ),
        )
