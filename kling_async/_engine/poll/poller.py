"""Polls all submitted jobs of a client from one priority queue, by status calls and by list scans.

The policies decide when: `Pace.next_poll` for a job, `Pace.scan_interval` and `ListState` for a list. `Schedule` keeps the queue.
The poller makes the calls, and gives the answers to the policies.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import anyio
from anyio.abc import TaskGroup

from kling_async._callbacks import SafeLogger
from kling_async._engine.api import ApiCaller
from kling_async._engine.emitter import Emitter
from kling_async._engine.poll.deadlines import Deadlines
from kling_async._engine.poll.list_scan import ModelList
from kling_async._engine.poll.schedule import Schedule
from kling_async._engine.poll.tracked_job import TrackedJob
from kling_async._engine.tasks import first_error
from kling_async._policy.job_end import lacks_video
from kling_async._policy.pace import JobKind, Pace
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import TokenBucket
from kling_async._policy.retry import ends_wait, is_wait_refused, poll_delay
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import STATUS
from kling_async.errors import ClientClosedError, KlingError
from kling_async.events import PollFailed, StatusChanged
from kling_async.jobs import Job, JobStatus, canonical_id
from kling_async.lines import count_text, one_line

_log = SafeLogger("kling_async")

_MAX_CALL_TASKS = 64
"""Tasks that make calls at the same time."""


class JobPoller:
    """Polls every job that is waited for in one event loop.

    Args:
        api: Sends the list calls.
        pace: The knowledge of run times, shared by all event loops of a client.
        rate: The rate of status and list calls, shared likewise.
    """

    def __init__(self, api: ApiCaller, pace: Pace, rate: TokenBucket) -> None:
        self._api = api
        self._pace = pace
        self._rate = rate
        self._jobs: dict[str, TrackedJob] = {}
        """The jobs in flight by their canonical ids; the last wait for a job, if there are several."""
        self._waits = 0
        self._schedule = Schedule(api.clock, pace)
        self._deadlines = Deadlines(api.clock)
        self._turn = anyio.Lock()
        """Held by the task that waits for what is due next."""
        self._task: asyncio.Task[None] | None = None
        self._call_tasks = self._idle_tasks = 0
        self._unknown_words: set[str] = set()
        self._refusals: set[type[KlingError]] = set()
        """The refusals of polls that the log has."""

    async def wait(
        self,
        job: Job,
        *,
        kind: JobKind,
        policy: PollingPolicy,
        api: ApiCaller,
        emit: Emitter,
        index: int | None = None,
        age: float = 0.0,
    ) -> Job:
        """The final record of a job.

        Cancelling it ends the polls and leaves the job as it is.

        Args:
            job: Its last known record.
            kind: What it is.
            policy: How often it is polled, and how long it is waited for.
            api: Sends its status calls.
            emit: Tells of its changes.
            index: Its place in a batch.
            age: Seconds since the service made the job; 0 if that is not known.

        Raises:
            WaitTimeoutError: The deadline came first.
            KlingError: The service does not know the job, or does not show it to this key.
        """
        now = self._api.clock.now()
        tracked = TrackedJob(
            request_id=job.request_id,
            model=kind.model,
            index=index,
            api=api,
            emit=emit,
            policy=policy,
            final=asyncio.get_running_loop().create_future(),
            paced=self._pace.track(
                kind,
                now=now - age if age else now,  # one float for all: there may be a hundred thousand jobs
                running=job.status is JobStatus.PROCESSING,
                jitter=self._api.rng.random(),
            ),
            waits_since=now,
            status=job.status,
            is_known=bool(job.raw),
        )
        self._begin(tracked, job)
        del job  # of a hundred thousand jobs in flight the records would be most of the memory
        try:
            final = await tracked.final
            _log.debug("job %s ended: %s", one_line(final.request_id), final.status.value)
            return final
        finally:
            self._forget(tracked)
            if not self._waits:
                await self._stop()

    def _begin(self, tracked: TrackedJob, job: Job) -> None:
        """Queue a job, and the list that may show it."""
        now, model_list = tracked.waits_since, self._schedule.list_of(tracked.model)
        tracked.scan_number = model_list.state.number
        self._deadlines.move(tracked)
        self._jobs[canonical_id(tracked.request_id)] = tracked
        model_list.in_flight += 1
        self._waits += 1
        if job.is_final and tracked.is_known:
            self._take_record(tracked, job)
        else:
            self._schedule.put(tracked, now)
        if tracked.uses_lists and model_list.wants_plan:
            model_list.policy = tracked.policy
            self._schedule.plan_scan(model_list, now)
        if self._task is None and not tracked.is_over:
            self._task = asyncio.create_task(self._run())

    def _forget(self, tracked: TrackedJob) -> None:
        self._deadlines.drop(tracked)
        self._schedule.drop(tracked)
        self._pace.forget(tracked.paced)
        self._schedule.list_of(tracked.model).in_flight -= 1
        self._waits -= 1
        if self._jobs.get(id_ := canonical_id(tracked.request_id)) is tracked:
            del self._jobs[id_]

    async def _stop(self) -> None:
        """End the polls with the last wait, so that no task is left when the event loop ends then."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("the polls ended by an error after the last wait", exc_info=error)

    async def _run(self) -> None:
        """Poll until the last wait has ended; an error of this ends all waits."""
        try:
            self._call_tasks, self._idle_tasks = 1, 0
            async with anyio.create_task_group() as tasks:
                await self._make_calls(tasks)
        except BaseException as error:
            if self._task is not asyncio.current_task():
                raise  # the last wait has ended
            self._task = None
            failure = first_error(error) if isinstance(error, Exception) else error
            _log.exception("the polls of %s ended by an error", count_text(len(self._jobs), "job"))
            for tracked in self._jobs.values():
                if not tracked.is_over:
                    tracked.final.set_exception(failure)

    async def _make_calls(self, tasks: TaskGroup) -> None:
        """Make one call after the other; a task for each call would cost as much as the call."""
        while True:
            self._idle_tasks += 1
            async with self._turn:
                one = await self._schedule.next_due()
                if isinstance(one, TrackedJob):
                    await self._api.wait_turn(self._rate)
            self._idle_tasks -= 1
            if not self._idle_tasks and self._call_tasks < _MAX_CALL_TASKS:
                self._call_tasks += 1
                tasks.start_soon(self._make_calls, tasks)
            if isinstance(one, ModelList):
                await self._scan(one)
            elif not (one.is_over or one.has_call_in_flight):
                await self._poll(one)

    # Status calls

    async def _poll(self, tracked: TrackedJob) -> None:
        tracked.has_call_in_flight = True
        try:
            job = await tracked.api.send(
                STATUS,
                structure_job,
                id=tracked.request_id,
                within=tracked.ends_at - self._api.clock.now(),
            )
        except KlingError as error:
            tracked.has_call_in_flight = False
            self._take_failure(tracked, error)
            return
        tracked.has_call_in_flight = False
        if job.is_final:
            state = self._schedule.list_of(tracked.model).state
            state.record_end(canonical_id(tracked.request_id), scan_number=tracked.scan_number)
        self._take_record(tracked, job)

    def _take_record(self, tracked: TrackedJob, job: Job, *, by_list: bool = False) -> None:
        """Take in a record: end the wait, or schedule the next poll."""
        if tracked.is_over:
            return
        now = self._api.clock.now()
        tracked.failed_polls, tracked.is_known, tracked.is_spot_check = 0, True, False
        if job.status is not tracked.status:
            self._change_status(tracked, job)
        if not job.is_final:
            self._take_sighting(tracked, now, by_list=by_list)
        elif lacks_video(job) and not tracked.awaits_video:
            tracked.awaits_video = True
        else:
            tracked.final.set_result(job)
            if self._pace.record_end(tracked.paced, now=now, success=job.is_success):
                self._schedule.bring_forward(now)
            return
        if not tracked.has_call_in_flight:
            self._schedule.put(tracked, now)

    def _take_sighting(self, tracked: TrackedJob, now: float, *, by_list: bool) -> None:
        running = tracked.status is JobStatus.PROCESSING
        jitter = self._api.rng.random()
        self._pace.record_sighting(tracked.paced, now=now, running=running, jitter=jitter, by_list=by_list)

    def _change_status(self, tracked: TrackedJob, job: Job) -> None:
        if job.status is JobStatus.UNKNOWN:
            word = str(job.raw.get("status"))[:50]
            if word not in self._unknown_words:
                self._unknown_words.add(word)
                _log.warning(
                    "the service answers the status %r, which is not known here; the wait goes on", word
                )
        tracked.emit(
            StatusChanged,
            index=tracked.index,
            request_id=tracked.request_id,
            status=job.status,
            previous=tracked.status,
        )
        tracked.status = job.status
        if tracked.policy.stall_timeout is not None:
            self._deadlines.move(tracked)

    def _take_failure(self, tracked: TrackedJob, error: KlingError) -> None:
        """A failed status call says nothing of the job: poll it again, later and later, until the deadline."""
        if tracked.is_over:
            return
        if isinstance(error, ClientClosedError):
            self._interrupt_waits(error)
            return
        tracked.failed_polls, tracked.last_error = tracked.failed_polls + 1, error
        failed_polls = tracked.failed_polls
        if ends_wait(error, is_known=tracked.is_known, failed_polls=failed_polls):
            tracked.end_with(error)
            return
        if is_wait_refused(error, failed_polls=failed_polls) and type(error) not in self._refusals:
            self._refusals.add(type(error))
            _log.warning(
                "%s; the wait goes on, as for all jobs in flight that are refused so: check that the key is of the account "
                "that made them",
                error.message.rstrip("."),
            )
        jitter = self._api.rng.random()
        delay = poll_delay(tracked.api.retry, error, failed_polls=failed_polls, jitter=jitter)
        tracked.emit(PollFailed, index=tracked.index, request_id=tracked.request_id, delay=delay, error=error)
        now = self._api.clock.now()
        tracked.retry_at = now + delay
        self._schedule.put(tracked, now)

    def _interrupt_waits(self, error: ClientClosedError) -> None:
        """End all waits of a closed client, and say which jobs continue."""
        left = [tracked for tracked in self._jobs.values() if not tracked.is_over]
        ids = one_line(", ".join(tracked.request_id for tracked in left))
        _log.warning(
            "the client was closed, and left %s at the service: %s", count_text(len(left), "job"), ids
        )
        for tracked in left:
            tracked.interrupt(error)

    # List scans

    async def _scan(self, model_list: ModelList) -> None:
        """Scan a list once, take in what its rows show of the jobs in flight, and plan the next scan."""
        clock, state = self._api.clock, model_list.state
        model_list.has_scan_in_flight = True
        try:
            if not model_list.is_worth_scanning:
                return
            async with aclosing(model_list.scan(self._api, self._rate, self._jobs)) as news:
                async for tracked, job in news:
                    if job is not None:
                        self._take_record(tracked, job, by_list=True)
                    elif not tracked.awaits_video:
                        self._take_sighting(tracked, clock.now(), by_list=True)
        except ClientClosedError as error:
            self._interrupt_waits(error)
        else:
            if state.is_stale:
                self._pace.forget_lists(model_list.model)
                self._schedule.bring_forward(clock.now())
            elif state.wants_spot_check(clock.now()):
                self._spot_check(model_list)
        finally:
            model_list.has_scan_in_flight = False
            self._schedule.plan_scan(model_list, clock.now())

    def _spot_check(self, model_list: ModelList) -> None:
        """Poll the job that the last scan showed in flight and that was not polled for the longest time."""
        shown = [
            one
            for one in self._jobs.values()
            if one.model == model_list.model
            and one.scan_number == model_list.state.number
            and not one.is_over
        ]
        if shown:
            tracked = min(shown, key=lambda one: one.paced.polled_at)
            tracked.is_spot_check = True
            self._schedule.put(tracked, self._api.clock.now())
