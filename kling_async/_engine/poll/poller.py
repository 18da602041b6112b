"""Polls all submitted jobs of a client from one priority queue, by status calls and by list scans."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from kling_async._engine.api import ApiCaller
from kling_async._engine.emitter import Emitter
from kling_async._engine.poll.due_queue import DueQueue
from kling_async._engine.poll.list_scan import ListScanner, page_facts
from kling_async._engine.poll.tracked_job import TrackedJob
from kling_async._policy.pace import JobKind, Pace
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import TokenBucket
from kling_async._policy.retry import backoff, named_delay
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import STATUS
from kling_async.errors import (
    AuthenticationError,
    BadRequestError,
    InvalidRequestError,
    KlingError,
    NotFoundError,
    PermissionDeniedError,
)
from kling_async.events import PollFailed, StatusChanged
from kling_async.jobs import Job, JobStatus

_log = logging.getLogger("kling_async")

_MAX_CONCURRENT_POLLS = 64
_REFUSALS = (BadRequestError, AuthenticationError, PermissionDeniedError, NotFoundError, InvalidRequestError)
_UNSEEN_GRACE = 3
"""How often a job that was never seen can be answered 404 before that is believed: a new id may show late."""
_SLACK = 0.02
"""Seconds by which a job can be polled too early, so that one wake-up serves many jobs."""
_TURNS_IN_A_ROW = 256
"""So many due jobs are handled before other tasks get a turn: most of them may need no call."""
_DEADLINE_CHECK = 1.0
"""Seconds after which deadlines are looked at while the poller waits for its rate or for a free place."""
_MIN_JOBS_FOR_LISTS = 4
"""With fewer jobs of a model than this its list is not scanned, unless lists are always used."""
_LIST_MARGIN = 1.5
"""A list pays if status calls for all jobs cost so many times more: some jobs need their own status call all the same."""
_LIST_CHECK, _LIST_PATIENCE = 0.2, 1.0
"""Seconds between two looks at whether a list pays; seconds for which a job waits past the time of the next scan."""


class JobPoller:
    """Polls every job that is waited for in one event loop.

    Args:
        caller: Sends the list calls.
        pace: The knowledge of run times, shared by all event loops of a client.
        rate: The rate of status and list calls, shared likewise.
    """

    def __init__(self, caller: ApiCaller, pace: Pace, rate: TokenBucket) -> None:
        self._caller = caller
        self._pace = pace
        self._rate = rate
        self._jobs: dict[str, TrackedJob] = {}
        """The jobs in flight by their ids; the last wait for a job, if there are several."""
        self._waits = 0
        self._in_flight: Counter[str | None] = Counter()
        self._scanners: dict[str | None, ListScanner] = {}
        self._queue = DueQueue()
        self._wake = anyio.Event()
        self._task: asyncio.Task[None] | None = None
        self._workers = self._polls = 0
        self._status_seconds = 1.0
        self._deadlines_checked_at = -math.inf
        self._revisions = 0
        self._unknown_words: set[str] = set()

    async def wait(
        self,
        job: Job,
        *,
        kind: JobKind,
        policy: PollingPolicy,
        caller: ApiCaller,
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
            caller: Sends its status calls.
            emit: Tells of its changes.
            index: Its place in a batch.
            age: Seconds since that record.

        Raises:
            WaitTimeoutError: The deadline came first.
            KlingError: The service does not know the job, or does not show it to this key.
        """
        tracked = self._track(job, kind, policy, caller, emit, index=index, age=age)
        del job  # of a hundred thousand jobs in flight the records would be most of the memory
        try:
            return await tracked.final
        finally:
            self._forget(tracked)
            if not self._waits:
                await self._stop()

    def _track(
        self,
        job: Job,
        kind: JobKind,
        policy: PollingPolicy,
        caller: ApiCaller,
        emit: Emitter,
        *,
        index: int | None,
        age: float,
    ) -> TrackedJob:
        clock = self._caller.clock
        now = clock.now()
        tracked = TrackedJob(
            request_id=job.request_id,
            model=kind.model,
            index=index,
            caller=caller,
            emit=emit,
            policy=policy,
            final=asyncio.get_running_loop().create_future(),
            paced=self._pace.track(
                kind,
                now=now - age if age else now,  # one float for all: there may be a hundred thousand jobs
                running=job.status is JobStatus.PROCESSING,
                jitter=self._caller.rng.random(),
            ),
            since=now,
            status=job.status,
            is_known=bool(job.raw),
            scan_number=self._scanner(kind.model).state.number,
        )
        tracked.move_deadline(now)
        self._jobs[job.request_id] = tracked
        self._in_flight[tracked.model] += 1
        self._waits += 1
        if job.is_final and tracked.is_known:
            self._take_record(tracked, job)
        else:
            self._schedule(tracked, self._due(tracked, now) if tracked.is_known else now)
        if self._task is None and not tracked.is_over:
            self._task = asyncio.create_task(self._run())
        return tracked

    def _forget(self, tracked: TrackedJob) -> None:
        self._queue.drop(tracked)
        self._pace.forget(tracked.paced)
        self._in_flight[tracked.model] -= 1
        self._waits -= 1
        if self._jobs.get(tracked.request_id) is tracked:
            del self._jobs[tracked.request_id]

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
            self._workers = self._polls = 0
            async with anyio.create_task_group() as tasks:
                await self._serve(tasks)
        except BaseException as error:
            if self._task is not asyncio.current_task():
                raise  # the last wait has ended
            self._task = None
            _log.exception("the polls of %d jobs ended by an error", len(self._jobs))
            for tracked in self._jobs.values():
                if not tracked.is_over:
                    tracked.final.set_exception(error)

    async def _serve(self, tasks: TaskGroup) -> None:
        """Hand every job that is due to a worker."""
        clock = self._caller.clock
        send, receive = anyio.create_memory_object_stream[TrackedJob](_MAX_CONCURRENT_POLLS)
        with send, receive:
            while True:
                for _ in range(_TURNS_IN_A_ROW):
                    now = clock.now()
                    tracked = self._queue.take(now=now, slack=_SLACK)
                    if tracked is None:
                        self._wake = anyio.Event()
                        await clock.wait(self._wake, self._queue.first_at - now)
                    elif self._handle_due_job(tracked, now, tasks):
                        tracked.is_polled = True
                        # The deadline ends the wait while the call hangs.
                        self._schedule(tracked, tracked.ends_at)
                        await self._wait_turn()
                        if self._polls >= self._workers < _MAX_CONCURRENT_POLLS:
                            self._workers += 1
                            tasks.start_soon(self._poll_jobs, receive.clone())
                        self._polls += 1
                        await self._hand_over(send, tracked)
                await clock.sleep(0)

    async def _hand_over(self, send: MemoryObjectSendStream[TrackedJob], tracked: TrackedJob) -> None:
        """Give a job to a worker as soon as one is free; deadlines hold meanwhile."""
        while True:
            with anyio.move_on_after(_DEADLINE_CHECK):
                await send.send(tracked)
                return
            self._time_out_late_jobs()

    async def _poll_jobs(self, jobs: MemoryObjectReceiveStream[TrackedJob]) -> None:
        """Poll one job after the other; a task for each poll would cost as much as the poll."""
        with jobs:
            async for tracked in jobs:
                if not tracked.is_over:
                    await self._poll(tracked)
                self._polls -= 1

    def _handle_due_job(self, tracked: TrackedJob, now: float, tasks: TaskGroup) -> bool:
        """Whether a job is to be polled now; else its wait is over, or it is scheduled again."""
        if tracked.is_over:
            return False
        if now >= tracked.ends_at:
            tracked.time_out(now)
            return False
        if tracked.is_on_schedule:
            due = self._due(tracked, now)
            slack = (
                _SLACK
                if tracked.policy.poll_interval is None
                else min(_SLACK, tracked.policy.poll_interval / 10)
            )
            if due > now + slack:
                self._schedule(tracked, due)
                return False
            if (later := self._defer_to_scan(tracked, now, tasks)) is not None and not tracked.paced.is_scout:
                self._schedule(tracked, later)
                return False
        return True

    def _due(self, tracked: TrackedJob, now: float) -> float:
        return self._pace.next_poll(tracked.paced, tracked.policy, now=now)

    def _schedule(self, tracked: TrackedJob, due: float) -> None:
        if self._queue.put(tracked, due):
            self._wake.set()

    async def _wait_turn(self) -> None:
        """Wait until the rate allows one more call; deadlines hold meanwhile."""
        clock = self._caller.clock
        until = clock.now() + self._rate.take(clock.now())
        while (rest := until - clock.now()) > 0:
            await clock.sleep(min(rest, _DEADLINE_CHECK))
            self._time_out_late_jobs()

    async def _poll(self, tracked: TrackedJob) -> None:
        clock = self._caller.clock
        began = clock.now()
        try:
            job = await tracked.caller.send(
                STATUS, structure_job, id=tracked.request_id, within=tracked.ends_at - began
            )
        except KlingError as error:
            tracked.is_polled = False
            self._take_failure(tracked, error)
            return
        tracked.is_polled = False
        self._status_seconds = clock.now() - began
        state = self._scanner(tracked.model).state
        if job.is_final and state.is_on and tracked.scan_number == state.number > 0:
            state.suspect = tracked.request_id  # the last scan showed it in flight: a later one must not
        self._take_record(tracked, job)

    def _take_record(self, tracked: TrackedJob, job: Job) -> None:
        """Take in a record: end the wait, or schedule the next poll."""
        if tracked.is_over:
            return
        now = self._caller.clock.now()
        tracked.failed_polls, tracked.is_known, tracked.is_spot_check = 0, True, False
        if job.status is not tracked.status:
            self._change_status(tracked, job, now)
        if not job.is_final:
            self._take_sighting(tracked, now)
        elif job.is_success and job.video_url is None and not tracked.asked_for_media:
            # Source: the service documents answers of success that carry their outcome only on the next call.
            tracked.asked_for_media = True
            self._schedule(tracked, now)
        else:
            self._pace.record_end(tracked.paced, now=now, success=job.is_success)
            tracked.final.set_result(job)
            self._reschedule(now)

    def _take_sighting(self, tracked: TrackedJob, now: float) -> None:
        """A job was shown in flight: schedule the next poll."""
        running = tracked.status is JobStatus.PROCESSING
        self._pace.record_sighting(tracked.paced, now=now, running=running, jitter=self._caller.rng.random())
        self._schedule(tracked, self._due(tracked, now))

    def _reschedule(self, now: float) -> None:
        """Schedule all jobs again if the pace has learned something that calls for earlier polls."""
        if self._pace.revision == self._revisions:
            return
        self._revisions = self._pace.revision
        self._queue.reschedule(lambda one: self._due(one, now) if one.is_on_schedule else None)
        self._wake.set()

    def _change_status(self, tracked: TrackedJob, job: Job, now: float) -> None:
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
        tracked.move_deadline(now)

    def _take_failure(self, tracked: TrackedJob, error: KlingError) -> None:
        """A failed status call says nothing of the job: poll it again, later and later, until the deadline."""
        if tracked.is_over:
            return
        tracked.failed_polls, tracked.last_error = tracked.failed_polls + 1, error
        grace = _UNSEEN_GRACE if isinstance(error, NotFoundError) else 1
        if not tracked.is_known and isinstance(error, _REFUSALS) and tracked.failed_polls >= grace:
            tracked.end_with(error)
            return
        jitter = self._caller.rng.random()
        delay = backoff(tracked.caller.retry, attempt=tracked.failed_polls - 1, jitter=jitter)
        delay = max(delay, named_delay(tracked.caller.retry, error) or 0.0)
        tracked.emit(PollFailed, index=tracked.index, request_id=tracked.request_id, delay=delay, error=error)
        self._schedule(tracked, self._caller.clock.now() + delay)

    def _time_out_late_jobs(self) -> None:
        now = self._caller.clock.now()
        if now < self._deadlines_checked_at + _DEADLINE_CHECK:
            return
        self._deadlines_checked_at = now
        for tracked in self._jobs.values():
            if now >= tracked.ends_at and not tracked.is_over:
                tracked.time_out(now)

    # List scans

    def _scanner(self, model: str | None) -> ListScanner:
        scanner = self._scanners.get(model)
        if scanner is None:
            scanner = self._scanners[model] = ListScanner(self._caller, model)
        return scanner

    def _defer_to_scan(self, tracked: TrackedJob, now: float, tasks: TaskGroup) -> float | None:
        """When the job can be polled if the next list scan does not show it; None if the list does not cover it."""
        scanner = self._scanner(tracked.model)
        if tracked.policy.use_lists == "never" or tracked.model is None:
            return None
        if not scanner.state.is_on and not self._begin_scans(scanner, tracked.policy, now, tasks):
            return None
        if not scanner.state.covers(tracked.scan_number):
            return None
        return max(scanner.next_at, now) + _LIST_PATIENCE

    def _begin_scans(self, scanner: ListScanner, policy: PollingPolicy, now: float, tasks: TaskGroup) -> bool:
        """Start to scan a list if that pays."""
        if now < scanner.considered_at + _LIST_CHECK or not scanner.state.may_begin(now):
            return False
        scanner.considered_at = now
        scanner.state.fit_page(self._in_flight[scanner.model])
        if not self._pays(scanner, policy):
            return False
        scanner.state.is_on = True
        tasks.start_soon(self._keep_scanning, scanner, policy)
        return True

    def _pays(self, scanner: ListScanner, policy: PollingPolicy) -> bool:
        """Whether scans of the list notice ends sooner than status calls that cost as much.

        A status call for each of n jobs in an interval costs n calls and is half the interval late on average; a scan in
        the same interval is as late, and costs `cost`.
        """
        jobs = self._in_flight[scanner.model]
        return (
            policy.use_lists == "always"
            or max(_LIST_MARGIN * scanner.state.cost, _MIN_JOBS_FOR_LISTS) <= jobs
        )

    def _scan_interval(self, scanner: ListScanner, policy: PollingPolicy, now: float) -> float:
        """Seconds from one scan to the next: no more calls than the status calls would be."""
        if policy.poll_interval is not None:
            return policy.poll_interval
        interval = self._pace.scan_interval(scanner.model, now=now)
        calls = min(self._pace.polls_per_second(scanner.model, policy, now=now), self._rate.rate)
        if calls > 0:
            interval = max(interval, scanner.state.cost / calls)
        return min(interval, policy.max_poll_interval)

    async def _keep_scanning(self, scanner: ListScanner, policy: PollingPolicy) -> None:
        """Scan a list again and again, while there are jobs and it pays."""
        clock, state = self._caller.clock, scanner.state
        try:
            while state.is_on and self._in_flight[scanner.model]:
                await self._scan(scanner)
                scanned_at = clock.now()
                if not state.is_on or not self._pays(scanner, policy):
                    break
                if state.spot_check_due(scanned_at):
                    self._spot_check(scanner)
                # The interval may shrink while the pace learns.
                while True:
                    scanner.next_at = scanned_at + self._scan_interval(scanner, policy, clock.now())
                    if scanner.next_at <= clock.now():
                        break
                    await clock.sleep(min(scanner.next_at - clock.now(), _DEADLINE_CHECK / 2))
        finally:
            state.is_on = False

    async def _scan(self, scanner: ListScanner) -> None:
        """Scan the list once, and take in what its rows show of the jobs in flight."""
        clock, state = self._caller.clock, scanner.state
        scan = state.begin_scan(self._in_flight[scanner.model])
        try:
            while scan.next_offset is not None:
                await self._wait_turn()
                page, cost = await scanner.read_page(scan, status_seconds=self._status_seconds)
                known_before, hits, last_hit = len(scan.seen), 0, 0
                for place, tracked, job in scanner.find_jobs(page, scan, self._jobs):
                    hits, last_hit, tracked.scan_number = hits + 1, place, state.number + 1
                    if job is not None:
                        self._take_record(tracked, job)
                    elif not tracked.asked_for_media:
                        self._take_sighting(tracked, clock.now())
                facts = page_facts(
                    page, cost, known_before=known_before, scan=scan, hits=hits, last_hit=last_hit
                )
                state.add_page(scan, facts)
        except KlingError as error:
            scanner.handle_failure(error)
            return
        state.end_scan(scan, now=clock.now())

    def _spot_check(self, scanner: ListScanner) -> None:
        """Poll one of the jobs that the last scan showed in flight."""
        shown = [
            one
            for one in self._jobs.values()
            if one.model == scanner.model and one.scan_number == scanner.state.number and not one.is_over
        ]
        if shown:
            tracked = self._caller.rng.choice(shown)
            tracked.is_spot_check = True
            self._schedule(tracked, self._caller.clock.now())
