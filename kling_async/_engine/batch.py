"""Many jobs through a bounded window; results as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import anyio
import attrs
from anyio.abc import TaskGroup

from kling_async._engine.download import check_folder
from kling_async._engine.engine import Engine, kind_of_payload
from kling_async._engine.results import Results
from kling_async._engine.source import Requests, Source
from kling_async._engine.upload import Uploader
from kling_async._engine.watch import Watcher
from kling_async._engine.watched import Watched
from kling_async._policy.naming import file_name
from kling_async._policy.outcome import error_of, state_of
from kling_async._policy.stop import EarlyStop
from kling_async._policy.submission import is_throttled
from kling_async._policy.window import Window
from kling_async.errors import ConfigurationError, DownloadError, KlingError
from kling_async.events import Downloaded, Finished, Notifier, NotSubmitted, SubmitAmbiguous, Submitted
from kling_async.models import Job, Result, ResultState, VideoRequest

_MOST_TRIES = 5
"""How often an item is submitted again because its job failed for a rate limit."""
_GRAVITY = 2
"""A job that was taken and then failed is a graver sign than a 429: the pause begins four times as long."""


@attrs.define(eq=False, kw_only=True)
class Batch:
    """One batch under way: takers pull items through the window, the watcher sees them end."""

    engine: Engine
    source: Source
    window: Window
    notify: Notifier
    folder: Path | None
    """Where each finished video is saved; None saves nothing."""
    results: Results = attrs.field(init=False)
    _uploads: Uploader = attrs.field(init=False)
    _watcher: Watcher = attrs.field(init=False)
    _stop: EarlyStop = attrs.field(init=False, factory=EarlyStop)
    _alive: int = attrs.field(init=False, default=0)
    """Items that hold a place of the window: from before their POST until the service has ended them."""
    _open: int = attrs.field(init=False, default=0)
    """Items without a result yet: the alive ones and those being saved."""
    _takers: int = attrs.field(init=False, default=0)
    _waiting: deque[anyio.Event] = attrs.field(init=False, factory=deque)
    _failure: BaseException | None = attrs.field(init=False, default=None)
    _tasks: TaskGroup = attrs.field(init=False)
    _is_done: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    def __attrs_post_init__(self) -> None:
        self.results = Results(self._make_room)
        self._uploads = Uploader(self.engine.caller)
        self._watcher = self.engine.watcher(self.notify)

    async def run(self) -> None:
        """Everything, until each item that was taken has its result."""
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._watcher.run)
                self._takers = min(self.engine.submitter.limits.max_submits_at_once, self.window.limit)
                for _ in range(self._takers):
                    self._tasks.start_soon(self._take_and_submit)
                await self._is_done.wait()
                self._tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._close_source()
        self.results.complete(self._failure)

    async def _close_source(self) -> None:
        try:
            await self.source.close()
        except Exception as error:  # noqa: BLE001 - the caller's own cleanup may raise anything
            self._failure = self._failure or error

    async def _take_and_submit(self) -> None:
        """Pull items through the window until there are none."""
        while await self._enter():
            try:
                taken = await self.source.take()
            except Exception as error:  # noqa: BLE001 - the caller's iterator may raise anything
                self._failure = self._failure or error
                taken = None
            if taken is None:
                self._alive -= 1
                break
            self._open += 1
            if taken.request is None:
                assert taken.error is not None
                self._not_submitted(taken.index, None, taken.error)
            else:
                await self._submit(taken.index, taken.request)
        self._takers -= 1
        self._make_room()
        self._check_done()

    async def _enter(self) -> bool:
        """Wait for a place in the window, and for the consumer to keep up; False when there is nothing more to take."""
        while not self.source.is_over:
            held = self._open + self.results.waiting
            if self._alive < self.window.room and held < 2 * self.window.limit:
                self._alive += 1
                return True
            turn = anyio.Event()
            self._waiting.append(turn)
            await turn.wait()
        return False

    def _make_room(self) -> None:
        """Let one waiting taker look again, or all of them when the input is over."""
        while self._waiting:
            self._waiting.popleft().set()
            if not self.source.is_over:
                return

    async def _submit(self, index: int, request: VideoRequest, *, tries: int = 0) -> None:
        """Submit an item that holds a place of the window; `tries` of its jobs were throttled before."""
        if self._stop.reason is not None:
            self._not_submitted(index, request, self._stop.reason)
            return
        try:
            payload = await self._uploads.payload(request)
        except KlingError as error:
            self._not_submitted(index, request, error)
            return
        kind = kind_of_payload(request.model, payload)

        def ended(_: Watched, outcome: Job | KlingError) -> None:
            if isinstance(outcome, Job) and is_throttled(outcome) and tries < _MOST_TRIES:
                self._submit_again(index, request, outcome, tries=tries + 1)
            else:
                self._ended(index, request, outcome)

        def accepted(job: Job) -> None:
            self._accepted(index, job)
            self._watcher.add(job, ended, kind=kind, index=index)

        try:
            await self.engine.submitter.submit(
                request.model,
                payload,
                notify=self.notify,
                on_accepted=accepted,
                max_throttles=None,
                on_throttle=self._throttled,
            )
        except KlingError as error:
            self._stop.refused(error)
            self._not_submitted(index, request, error)

    def _submit_again(self, index: int, request: VideoRequest, job: Job, *, tries: int) -> None:
        """A job that failed for a rate limit made no video: pause as for any such sign, and keep its place."""
        error = error_of(job)
        assert error is not None
        self._throttled(self.engine.submitter.pause(error, self.notify, tries=tries + _GRAVITY))
        self._tasks.start_soon(partial(self._submit, index, request, tries=tries))

    def _accepted(self, index: int, job: Job) -> None:
        self._stop.accepted()
        self.window.accepted()
        if self.notify:
            at = self.engine.caller.clock.wall()
            self.notify(Submitted(at=at, index=index, request_id=job.request_id, job=job))

    def _throttled(self, pause: float) -> None:
        now = self.engine.caller.clock.now()
        self.window.throttled(now=now, pause=pause, alive=self._alive)

    def _not_submitted(self, index: int, request: VideoRequest | None, error: KlingError) -> None:
        """The item has no job: it was refused, never sent, or nobody knows."""
        state = state_of(error)
        at = self.engine.caller.clock.wall()
        if state is not ResultState.AMBIGUOUS:
            state = ResultState.NOT_SUBMITTED
        if self.notify:
            kind = SubmitAmbiguous if state is ResultState.AMBIGUOUS else NotSubmitted
            self.notify(kind(at=at, index=index, error=error))
        self._alive -= 1
        self._close(Result(index=index, request=request, state=state, error=error))

    def _ended(self, index: int, request: VideoRequest, outcome: Job | KlingError) -> None:
        """The service has ended the job, or the wait for it is over: its place is free."""
        self._alive -= 1
        self._make_room()
        job = outcome if isinstance(outcome, Job) else outcome.job
        error = outcome if isinstance(outcome, KlingError) else error_of(outcome)
        self._close(Result(index=index, request=request, state=state_of(outcome), job=job, error=error))

    def _close(self, result: Result) -> None:
        """The item has its final state; a success may still have to be saved."""
        if self.notify:
            self.notify(
                Finished(
                    at=self.engine.caller.clock.wall(),
                    index=result.index,
                    request_id=result.job.request_id if result.job else None,
                    state=result.state,
                    job=result.job,
                    error=result.error,
                )
            )
        if self.folder is not None and result.ok:
            self._tasks.start_soon(self._save, result, self.folder)
        else:
            self._finish(result)

    async def _save(self, result: Result, folder: Path) -> None:
        assert result.job is not None
        prompt = result.request.prompt if result.request else ""
        path = folder / file_name(result.job.request_id, prompt=prompt, index=result.index)
        try:
            size = await self.engine.downloader.download(result.job, path, notify=self.notify)
        except DownloadError as error:
            self._finish(attrs.evolve(result, error=error))
            return
        if self.notify:
            at = self.engine.caller.clock.wall()
            request_id = result.job.request_id
            self.notify(
                Downloaded(at=at, index=result.index, request_id=request_id, path=path, size_bytes=size)
            )
        self._finish(attrs.evolve(result, path=path))

    def _finish(self, result: Result) -> None:
        self._open -= 1
        self.results.put(result)
        self._make_room()
        self._check_done()

    def _check_done(self) -> None:
        if self._takers == 0 and self._open == 0:
            self._is_done.set()


def open_batch(
    engine: Callable[[], Engine],
    requests: Requests,
    *,
    options: Mapping[str, Any],
    max_concurrency: int,
    output: str | PathLike[str] | None,
    skip_invalid: bool,
    notify: Notifier,
) -> AbstractAsyncContextManager[AsyncIterator[Result]]:
    """A batch that runs for as long as its block lasts; what can be checked before is checked at once.

    Args:
        engine: Gives the engine of the event loop in which the block is entered.
        requests: See `Source`.
        options: Fill what the requests leave open.
        max_concurrency: How many jobs may be alive at the service.
        output: The folder in which videos are saved.
        skip_invalid: See `Source`.
        notify: Hears of everything.

    Raises:
        InvalidRequestError: See `Source`.
        ConfigurationError: `max_concurrency` is no positive whole number.
    """
    if not isinstance(max_concurrency, int) or isinstance(max_concurrency, bool) or max_concurrency < 1:
        raise ConfigurationError(
            f"max_concurrency must be a whole number of at least 1, not {max_concurrency!r}."
        )
    source = Source(requests, options, skip_invalid)

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncIterator[Result]]:
        folder = await check_folder(output) if output is not None else None
        window = Window(max_concurrency)
        batch = Batch(engine=engine(), source=source, window=window, notify=notify, folder=folder)
        async with running(batch) as results:
            yield results

    return opened()


@asynccontextmanager
async def running(batch: Batch) -> AsyncIterator[Results]:
    """Run a batch for as long as the block lasts; leaving early stops submitting and leaves the jobs alone.

    What the block raises comes out as it is, not wrapped into a group.
    """
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(batch.run)
        try:
            yield batch.results
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - raised again outside the group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
