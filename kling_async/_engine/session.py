"""What one client does in one event loop: single calls, single jobs, and what its batches share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import anyio
import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.clock import Clock
from kling_async._engine.download.downloader import Downloader, target
from kling_async._engine.poll.poller import JobPoller
from kling_async._engine.poll.tracked_job import TrackedJob
from kling_async._engine.submit.list_jobs import pages
from kling_async._engine.submit.reconciler import Case, Reconciler
from kling_async._engine.submit.submitter import Submitter
from kling_async._engine.submit.uploader import Uploader, upload
from kling_async._policy.outcome import error_of, state_of
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import Limits, TokenBucket
from kling_async._policy.schedule import PollSchedule
from kling_async._policy.stage import JobKind
from kling_async._wire.codec import structure_job, structure_model, structure_model_ids
from kling_async._wire.endpoints import MODEL, MODELS, STATUS
from kling_async.catalog import ModelInfo
from kling_async.errors import KlingError
from kling_async.events import Finished, Notifier, SubmitAmbiguous, SubmitReconciled, Submitted
from kling_async.jobs import Job, JobStatus
from kling_async.requests import VideoRequest, model_of

_PICTURES = {"image", "image_url", "first_frame"}


class SharedState:
    """What a client learns and spends, whatever event loop it is used in.

    Args:
        limits: How much it may ask at once.
        polling: How it waits.
    """

    def __init__(self, limits: Limits, polling: PollingPolicy) -> None:
        rate = limits.max_polls_per_second
        self.polls = TokenBucket(rate=rate, burst=max(1.0, rate))
        self.schedule = PollSchedule(polling, max_polls_per_second=rate)


@attrs.define(eq=False, kw_only=True)
class LoopSession:
    """The parts of one loop's engine."""

    caller: ApiCaller
    limits: Limits
    learned: SharedState
    reconciler: Reconciler = attrs.field(init=False)
    submitter: Submitter = attrs.field(init=False)
    downloader: Downloader = attrs.field(init=False)
    _watchers: set[JobPoller] = attrs.field(init=False, factory=set)
    """Those at work."""

    def __attrs_post_init__(self) -> None:
        learned = self.learned
        self.reconciler = Reconciler(self.caller, learned.polls.take, learned.schedule.policy.wait_timeout)
        self.submitter = Submitter(self.caller, self.limits, self.reconciler)
        self.downloader = Downloader(self.caller, self.limits.max_concurrent_downloads)

    def watcher(self, notify: Notifier) -> JobPoller:
        """A watcher for one wait or one batch; all share the client's rate of polls and what it has learned."""
        learned = self.learned
        return JobPoller(self.caller, learned.schedule, learned.polls, notify, peers=self._watchers)

    async def submit(self, request: VideoRequest, notify: Notifier) -> Job:
        """Submit one request on its own, and settle a reply that is lost; see `Submitter.submit`."""
        payload = await Uploader(self.caller).payload(request)
        account = _Purse(self.caller.clock, notify)
        outcome: list[Job | Case | KlingError] = []

        async def send() -> None:
            with anyio.CancelScope() as scope:
                try:
                    outcome.append(
                        await self.submitter.submit(
                            model_of(request),
                            payload,
                            account,
                            scope=scope,
                            notify=notify,
                            max_throttles=self.caller.retry.max_retries,
                        )
                    )
                except KlingError as error:
                    outcome.append(error)

        # A task of its own: the caller's may be cancelled by `Task.cancel()`, against which no shield holds.
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send)
        except BaseException:
            if outcome and isinstance(outcome[0], Case):
                self.reconciler.give_up(outcome[0])
            raise
        if isinstance(outcome[0], KlingError):
            raise outcome[0]
        if isinstance(outcome[0], Job):
            return outcome[0]
        job = await self.reconciler.settle(outcome[0])
        if notify:
            at = self.caller.clock.wall()
            notify(SubmitReconciled(at=at, request_id=job.request_id, job=job))
        return job

    async def get(self, request_id: str, notify: Notifier) -> Job:
        """The current record of a job."""
        return await self.caller.repeat(STATUS, structure_job, id=request_id, notify=notify)

    def pages(self, model: str, page_size: int, notify: Notifier) -> AsyncGenerator[list[Job], None]:
        """The jobs of a model, page by page."""
        return pages(self.caller, model, page_size=page_size, notify=notify)

    async def wait(self, job: Job | str, notify: Notifier) -> Job:
        """Wait for one job's success.

        Cancelling it leaves the job as it is: it goes on at the service.

        Raises:
            JobFailedError: The job failed.
            JobCancelledError: The job was cancelled.
            WaitTimeoutError: The deadline came first.
            APIStatusError: The service does not know the job, or not with this key.
        """
        known = job if isinstance(job, Job) else Job(request_id=job, status=JobStatus.UNKNOWN)
        ends: list[Job | KlingError] = []
        over = anyio.Event()

        def end(_: TrackedJob, outcome: Job | KlingError) -> None:
            ends.append(outcome)
            over.set()

        watcher = self.watcher(notify)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watcher.run)
            watcher.add(known, end, kind=job_kind(known.model, known.payload))
            await over.wait()
            tasks.cancel_scope.cancel()
        outcome = ends[0]
        error = outcome if isinstance(outcome, KlingError) else error_of(outcome)
        if notify:
            state = state_of(outcome)
            final = outcome if isinstance(outcome, Job) else outcome.job
            at = self.caller.clock.wall()
            notify(Finished(at=at, request_id=known.request_id, state=state, job=final, error=error))
        if error is not None:
            raise error
        assert isinstance(outcome, Job)
        return outcome

    async def download(self, job: Job | str, destination: str | PathLike[str], notify: Notifier) -> Path:
        """The path of a job's video, saved whole."""
        known = job if isinstance(job, Job) else await self.get(job, notify)
        path = await target(destination, known)
        await self.downloader.download(known, path, notify=notify)
        return path

    async def upload(self, path: str | PathLike[str]) -> str:
        """The public address of a file of this machine."""
        return await upload(self.caller, path)

    async def models(self, notify: Notifier) -> list[str]:
        """The ids of all models."""
        return await self.caller.repeat(MODELS, structure_model_ids, notify=notify)

    async def model(self, model_id: str, notify: Notifier) -> ModelInfo:
        """What the service says about a model."""

        def structure(value: object) -> ModelInfo:
            return structure_model(value, model_id=model_id)

        return await self.caller.repeat(MODEL, structure, id=model_id, notify=notify)


@attrs.frozen
class _Purse:
    """The account of a submit outside a batch: it writes nothing down and tells everything."""

    clock: Clock
    notify: Notifier

    async def record_intent(self, payload: Mapping[str, Any]) -> None:
        pass

    def record_rejected(self, error: KlingError) -> None:
        pass

    def record_accepted(self, job: Job) -> None:
        if self.notify:
            self.notify(Submitted(at=self.clock.wall(), request_id=job.request_id, job=job))

    def record_unknown(self, error: KlingError) -> None:
        if self.notify:
            self.notify(SubmitAmbiguous(at=self.clock.wall(), error=error))


def job_kind(model: str | None, payload: Mapping[str, Any]) -> JobKind:
    """Which jobs are expected to run as long as this one."""
    duration, sound = str(payload.get("duration"))[:4], payload.get("sound") == "on"
    return _kind(model, duration, sound=sound, has_image=not _PICTURES.isdisjoint(payload))


@lru_cache(maxsize=256)
def _kind(model: str | None, duration: str, *, sound: bool, has_image: bool) -> JobKind:
    """The same one for all jobs of it: a batch looks its kind up for each."""
    seconds = int(duration) if duration.isdecimal() else None
    return JobKind(model=model, duration=seconds, sound=sound, has_image=has_image)
