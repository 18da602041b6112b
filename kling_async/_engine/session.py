"""One client in one event loop: the parts that its batches share, and the calls for single jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from copy import copy
from os import PathLike
from pathlib import Path
from typing import Any

import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.download.downloader import Downloader
from kling_async._engine.emitter import Emitter
from kling_async._engine.interrupted import describe_job, describe_lost_submit, warn_if_cancelled
from kling_async._engine.list_pages import list_pages
from kling_async._engine.poll.poller import JobPoller
from kling_async._engine.shared_state import SharedState
from kling_async._engine.submit.batch_item import BatchItem
from kling_async._engine.submit.ledger import Ledger
from kling_async._engine.submit.list_search import ListSearch
from kling_async._engine.submit.look_alikes import LookAlikes
from kling_async._engine.submit.owned_jobs import OwnedJobs
from kling_async._engine.submit.picture_digests import PictureDigests
from kling_async._engine.submit.reconciler import Reconciler
from kling_async._engine.submit.submitter import Submitter
from kling_async._engine.submit.uploader import Uploader, upload
from kling_async._engine.tasks import first_error
from kling_async._policy.job_end import error_of, hide_in_reason, state_of
from kling_async._policy.pace import job_kind
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.retry import RetryPolicy
from kling_async._wire.codec import structure_job, structure_model, structure_model_ids
from kling_async._wire.endpoints import MODEL, MODELS, STATUS
from kling_async.catalog import ModelInfo
from kling_async.errors import KlingError
from kling_async.events import Downloaded, Finished, Notifier, Resumed, SubmitReconciled
from kling_async.jobs import Job, JobStatus
from kling_async.paths import ObjectUrl
from kling_async.requests import VideoRequest
from kling_async.results import Result

_STARTED_IN_A_ROW = 1000
"""So many waits start before other tasks run."""


@attrs.frozen(eq=False, kw_only=True)
class LoopSession:
    """The parts that all batches of a client share in one event loop."""

    api: ApiCaller
    polling: PollingPolicy
    shared: SharedState
    owned_jobs: OwnedJobs
    reconciler: Reconciler
    submitter: Submitter
    poller: JobPoller
    downloader: Downloader

    @classmethod
    def open(cls, api: ApiCaller, shared: SharedState) -> LoopSession:
        """A session made of its parts."""
        look_alikes = LookAlikes()
        owned_jobs = OwnedJobs(api.clock, shared, look_alikes)
        list_search = ListSearch(api, shared, look_alikes, owned_jobs)
        reconciler = Reconciler(api, shared, look_alikes, list_search)
        return cls(
            api=api,
            polling=shared.polling,
            shared=shared,
            owned_jobs=owned_jobs,
            reconciler=reconciler,
            submitter=Submitter(api, shared, look_alikes, owned_jobs, reconciler),
            poller=JobPoller(api, shared.pace, shared.poll_rate),
            downloader=Downloader(api, shared.limits.max_concurrent_downloads),
        )

    def with_options(self, *, timeout: float, retry: RetryPolicy, polling: PollingPolicy) -> LoopSession:
        """This session under other options. The limits, the pauses, and all that protects money are shared.

        Reconciliations keep the retries and the timeout of the client: one scan of a list serves all its views.
        """
        api = attrs.evolve(self.api, timeout=timeout, retry=retry)
        submitter, downloader = copy(self.submitter), copy(self.downloader)
        submitter.api = downloader.api = api
        self.shared.cover_timeout(timeout)
        return attrs.evolve(self, api=api, polling=polling, submitter=submitter, downloader=downloader)

    async def submit(self, request: VideoRequest, notify: Notifier, *, call: str = "submit") -> Job:
        """Submit one request on its own, and reconcile the submit if its answer is lost; see `Submitter.submit`.

        Args:
            request: The request.
            notify: Hears of every step.
            call: The call of the user, for the text about a job that a cancellation leaves behind.
        """
        emit = self.api.emitter(notify)
        digests = await PictureDigests().read(request)
        payload = await Uploader(self.api, emit).make_payload(request, digests)
        item = BatchItem(request=request)
        try:
            with warn_if_cancelled(lambda: _describe_left(item, call=call)):
                submitted = await self.submitter.submit(
                    payload, item, ledger=Ledger(emit=emit), max_throttles=self.api.retry.max_retries
                )
                if isinstance(submitted, Job):
                    return _with_payload(submitted, payload)
                job = await self.reconciler.reconcile(submitted)
            emit(SubmitReconciled, request_id=job.request_id, job=job)
            return _with_payload(job, payload)
        finally:
            # After a cancellation during the POST, no `reconcile` has begun that would end the reconciliation.
            if item.reconciliation is not None:
                self.reconciler.end(item.reconciliation)

    async def get_job(self, request_id: str, notify: Notifier) -> Job:
        """The current record of a job."""
        emit = self.api.emitter(notify)
        job = await self.api.send_with_retries(STATUS, structure_job, id=request_id, emit=emit)
        return hide_in_reason(job, secret=self.api.secret)

    def list_pages(self, model: str, page_size: int, notify: Notifier) -> AsyncGenerator[list[Job], None]:
        """The jobs of a model, page by page."""
        return list_pages(self.api, model, page_size=page_size, emit=self.api.emitter(notify))

    async def wait(self, job: Job | str, notify: Notifier, *, polling: PollingPolicy | None = None) -> Job:
        """Wait for one job's success.

        Cancelling it leaves the job as it is: it goes on at the service.

        Args:
            job: A job, or its id.
            notify: Hears of every change.
            polling: How to wait, if not as the session.

        Raises:
            JobFailedError: The job failed.
            JobCancelledError: The job was cancelled.
            WaitTimeoutError: The deadline came first.
            APIStatusError: The service does not know the job, or does not show it to this key.
        """
        end = await self._wait_to_end(job, self.api.emitter(notify), polling or self.polling)
        if end.error is not None:
            raise end.error
        assert end.job is not None
        return end.job

    async def wait_many(
        self, jobs: Sequence[Job | str], notify: Notifier, *, polling: PollingPolicy
    ) -> list[Result]:
        """How each of the jobs ended, in their order. A job that ends without a video leaves the others alone.

        Cancelling it leaves the jobs as they are.
        """
        emit = self.api.emitter(notify)
        failure: Exception | None = None
        waits = []
        try:
            async with asyncio.TaskGroup() as tasks:
                for index, job in enumerate(jobs):
                    waits.append(tasks.create_task(self._wait_to_end(job, emit, polling, index=index)))
                    if index % _STARTED_IN_A_ROW == 0:
                        await asyncio.sleep(0)
        except ExceptionGroup as error:
            failure = first_error(error)
        if failure is not None:
            raise failure
        return [wait.result() for wait in waits]

    async def _wait_to_end(
        self, job: Job | str, emit: Emitter, polling: PollingPolicy, *, index: int | None = None
    ) -> Result:
        """How a job ended; its index is 0 outside `wait_many`."""
        known = job if isinstance(job, Job) else Job(request_id=job, status=JobStatus.UNKNOWN)
        if index is not None:
            emit(Resumed, index=index, request_id=known.request_id, job=known)
        kind = job_kind(known.model, known.payload)
        final: Job | None
        error: KlingError | None
        try:
            ended = await self.poller.wait(
                known, kind=kind, policy=polling, api=self.api, emit=emit, index=index
            )
            ended = hide_in_reason(_with_payload(ended, known.payload), secret=self.api.secret)
            final, state, error = ended, state_of(ended), error_of(ended, secret=self.api.secret)
        except KlingError as failure:
            final = failure.job = failure.job and _with_payload(failure.job, known.payload)
            state, error = state_of(failure), failure
        emit(Finished, index=index, request_id=known.request_id, state=state, job=final, error=error)
        return Result(index=index or 0, request=None, state=state, job=final, error=error)

    async def download(
        self, job: Job | str, destination: str | ObjectUrl, notify: Notifier, *, ascii_names: bool = False
    ) -> Path | ObjectUrl:
        """The path or the URL of a job's video, saved whole; see `Downloader.download_to`."""
        known = job if isinstance(job, Job) else await self.get_job(job, notify)
        emit = self.api.emitter(notify)
        saved = await self.downloader.download_to(known, destination, emit=emit, ascii_names=ascii_names)
        emit(Downloaded, request_id=known.request_id, path=saved.path, size_bytes=saved.size_bytes)
        return saved.path

    async def check_output(self, output: str | ObjectUrl) -> None:
        """Do nothing if a video can be saved there; see `Outputs.check`."""
        await self.downloader.outputs.check(output)

    async def upload(self, path: str | PathLike[str], notify: Notifier) -> str:
        """The public URL of a local file."""
        return await upload(self.api, path, self.api.emitter(notify))

    async def list_models(self, notify: Notifier) -> list[str]:
        """The ids of all models."""
        emit = self.api.emitter(notify)
        return await self.api.send_with_retries(MODELS, structure_model_ids, emit=emit)

    async def get_model(self, model_id: str, notify: Notifier) -> ModelInfo:
        """What the service says about a model."""

        def structure(value: object) -> ModelInfo:
            return structure_model(value, model_id=model_id)

        emit = self.api.emitter(notify)
        return await self.api.send_with_retries(MODEL, structure, id=model_id, emit=emit)


def _describe_left(item: BatchItem, *, call: str) -> str | None:
    """What a cancelled submit leaves; None if no POST of it can have been accepted."""
    if item.job_id is not None:
        return describe_job(item.job_id, call=call)
    return None if item.reconciliation is None else describe_lost_submit(item.reconciliation.model, call=call)


def _with_payload(job: Job, payload: Mapping[str, Any]) -> Job:
    """The job with the parameters that were sent, if the service does not echo them: its display shows the prompt."""
    return job if job.payload else attrs.evolve(job, payload=payload)
