"""What all work of one client in one event loop shares: its connections, its slots, its pace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import attrs

from kling_async._engine.call import Caller
from kling_async._engine.download import Downloader
from kling_async._engine.submit import Submitter
from kling_async._engine.watch import Watcher
from kling_async._engine.watched import Watched
from kling_async._policy.outcome import error_of, state_of
from kling_async._policy.pace import TokenBucket
from kling_async._policy.polling import PollSchedule
from kling_async._policy.stage import Kind
from kling_async._policy.sweeping import Listing
from kling_async._wire.codec import payload_of
from kling_async.errors import KlingError
from kling_async.events import Finished, Notifier, Submitted
from kling_async.models import Job, VideoRequest

_PICTURES = {"image", "image_url", "first_frame"}


@attrs.define(eq=False, kw_only=True)
class Engine:
    """The parts of one loop's engine."""

    caller: Caller
    submitter: Submitter
    downloader: Downloader
    polls: TokenBucket
    schedule: PollSchedule
    listings: dict[str | None, Listing]

    def watcher(self, notify: Notifier) -> Watcher:
        """A watcher for one wait or one batch; all share the client's rate of polls and what it has learned."""
        return Watcher(self.caller, self.schedule, self.polls, self.listings, notify)

    async def submit(self, request: VideoRequest, notify: Notifier) -> Job:
        """Submit one request on its own; see `Submitter.submit`."""

        def tell(job: Job) -> None:
            if notify:
                notify(Submitted(at=self.caller.clock.wall(), request_id=job.request_id, job=job))

        outcome: list[Job | KlingError] = []

        async def send() -> None:
            try:
                outcome.append(
                    await self.submitter.submit(
                        request.model,
                        payload_of(request),
                        notify=notify,
                        on_accepted=tell,
                        max_throttles=self.caller.retry.max_retries,
                    )
                )
            except KlingError as error:
                outcome.append(error)

        # A task of its own: the caller's may be cancelled by `Task.cancel()`, against which no shield holds.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
        if isinstance(outcome[0], Job):
            return outcome[0]
        raise outcome[0]

    async def wait(self, job: Job, notify: Notifier) -> Job:
        """Wait for one job's success.

        Cancelling it leaves the job as it is: it goes on at the service.

        Raises:
            JobFailedError: The job failed.
            JobCancelledError: The job was cancelled.
            WaitTimeoutError: The deadline came first.
            APIStatusError: The service does not know the job, or not with this key.
        """
        ends: list[Job | KlingError] = []
        over = anyio.Event()

        def end(_: Watched, outcome: Job | KlingError) -> None:
            ends.append(outcome)
            over.set()

        watcher = self.watcher(notify)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watcher.run)
            watcher.add(job, end, kind=kind_of_payload(job.model, job.payload))
            await over.wait()
            tasks.cancel_scope.cancel()
        outcome = ends[0]
        error = outcome if isinstance(outcome, KlingError) else error_of(outcome)
        if notify:
            state = state_of(outcome)
            final = outcome if isinstance(outcome, Job) else outcome.job
            at = self.caller.clock.wall()
            notify(Finished(at=at, request_id=job.request_id, state=state, job=final, error=error))
        if error is not None:
            raise error
        assert isinstance(outcome, Job)
        return outcome


def kind_of_payload(model: str | None, payload: Mapping[str, Any]) -> Kind:
    """Which jobs are expected to run as long as this one."""
    duration = str(payload.get("duration"))[:4]
    return Kind(
        model=model,
        duration=int(duration) if duration.isdecimal() else None,
        sound=payload.get("sound") == "on",
        has_image=bool(payload.keys() & _PICTURES),
    )
