"""`KlingClient`: opens and closes the connections and hands the work to the engine; it decides nothing."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sized
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, suppress
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Never, Self, Unpack, overload

import attrs

from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import Limits
from kling_async._policy.retry import RetryPolicy
from kling_async.batch_result import BatchResult
from kling_async.catalog import DEFAULT_MODEL, ModelInfo
from kling_async.config import __version__, check_timeout, read_settings
from kling_async.errors import BatchInterruptedError
from kling_async.jobs import Job
from kling_async.requests import VideoOptions, check_options, request_from
from kling_async.results import Result

if TYPE_CHECKING:
    from kling_async._engine.session import LoopSession, SharedState
    from kling_async.events import Listener, Notifier
    from kling_async.history import BatchHistory
    from kling_async.requests import RequestLike, RequestRow
    from kling_async.types import (
        BatchOptions,
        ClientOptions,
        GenerateOptions,
        Requests,
        Transport,
        WaitOptions,
    )


class KlingClient:
    """A session with the service: submits, waits and saves, many jobs at once.

    Use it as `async with KlingClient() as client:`, or bare in a notebook: it opens when first used, and
    `aclose()` closes it. Used under a second event loop it opens fresh connections there.

    Args:
        api_key: Else `GMI_API_KEY`, `GMI_CLOUD_API_KEY` or `GMI_CLOUD_APIKEY` of the environment.
        organization_id: Else `GMI_ORG_ID`; only accounts of several organizations need it.
        base_url: Else `GMI_BASE_URL`, else the vendor's. A bare host gets the queue's path appended.
        timeout: Seconds for one HTTP request, nothing else; waiting has its own words in `PollingPolicy`.
        limits: How much is asked of the service at once.
        polling: How, and how long, jobs are waited for.
        retry: How often calls that are safe to repeat are repeated. A paid POST is not among them.
        on_event: Called with every event of this client; see `kling_async.events`.
        transport: Your own way to the network, for tests and instruments; it is used in every loop and not closed.

    Raises:
        ConfigurationError: The key is missing, or a value makes no sense.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        organization_id: str | None = None,
        base_url: str | None = None,
        timeout: float = 60.0,
        limits: Limits = Limits(),  # noqa: B008 - a frozen value
        polling: PollingPolicy = PollingPolicy(),  # noqa: B008 - a frozen value
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - a frozen value
        on_event: Listener | None = None,
        transport: Transport | None = None,
    ) -> None:
        self._settings = read_settings(
            api_key=api_key, organization_id=organization_id, base_url=base_url, timeout=timeout
        )
        self._limits = limits
        self._polling = polling
        self._retry = retry
        self._on_event = on_event
        self._transport = transport
        self._shared: SharedState | None = None
        self._sessions: dict[asyncio.AbstractEventLoop, _Opened] = {}
        self._root: KlingClient | None = None
        """The client that this one is a view of."""

    def __repr__(self) -> str:
        return f"<KlingClient {self._settings.queue.partition('/api/')[0]} api_key=***>"

    async def __aenter__(self) -> Self:
        self._session()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of this event loop; jobs at the service go on. The next call opens them again."""
        opened = self._sessions.pop(asyncio.get_running_loop(), None)
        if opened is not None:
            await opened.lifetime.aclose()

    def with_options(self, **options: Unpack[ClientOptions]) -> KlingClient:
        """Another view of this client, with the same connections, limits and knowledge of run times.

        Closing one of them closes the connections of all.

        Args:
            **options: See `ClientOptions`: `timeout`, `polling`, `retry`, `on_event`. What is left out stays as it is.

        Raises:
            ConfigurationError: A value makes no sense.
            TypeError: There is no such option.
        """
        from kling_async.types import ClientOptions

        check_options(options, ClientOptions.__annotations__, call="with_options")
        view = object.__new__(type(self))
        vars(view).update(vars(self))
        view._root = self._root or self
        if "timeout" in options:
            view._settings = attrs.evolve(self._settings, timeout=check_timeout(options["timeout"]))
        view._polling = options.get("polling", self._polling)
        view._retry = options.get("retry", self._retry)
        view._on_event = options.get("on_event", self._on_event)
        return view

    async def submit(self, request: RequestLike, **options: Unpack[VideoOptions]) -> Job:
        """The record of a job that was just submitted: one paid POST.

        It is sent again only if it provably never arrived. Cancelled while the POST is in flight, it first waits
        for the answer (at most `timeout`), logs the id and tells it to `on_event`; the job goes on.

        Args:
            request: A prompt, a `VideoRequest`, or a mapping of its fields.
            **options: The other fields of `VideoRequest`; they fill what the request leaves open.

        Raises:
            InvalidRequestError: The request breaks the model's rules; nothing was sent.
            AmbiguousSubmitError: It was sent and its fate is unknown.
            APIStatusError: The service refused it.
            APIConnectionError: No connection could be made.
            TypeError: There is no such option.
        """
        check_options(options, VideoOptions.__annotations__, call="submit")
        return await self._session().submit(request_from(request, options), self._notifier())

    async def get_job(self, request_id: str) -> Job:
        """The current record of a job.

        Raises:
            NotFoundError: The service does not know the id, or shows it to another key only.
            KlingError: No usable answer came after all retries.
        """
        return await self._session().get_job(request_id, self._notifier())

    async def list_jobs(self, model: str = DEFAULT_MODEL, *, page_size: int = 100) -> AsyncIterator[Job]:
        """Every job of a model that the service shows to this key, each once, in the service's own order.

        Args:
            model: The model's id; the service lists by model.
            page_size: Rows to ask for at once; the service may give fewer.

        Raises:
            KlingError: No usable answer came after all retries.
        """
        async for page in self._session().list_pages(model, page_size, self._notifier()):
            for job in page:
                yield job

    async def wait(self, job: Job | str, **options: Unpack[WaitOptions]) -> Job:
        """The final record of a job that succeeded.

        A failed status call ends no wait. Cancelling it leaves the job as it is.

        Args:
            job: A job, or its id, also from an earlier process.
            **options: See `WaitOptions`: `wait_timeout`, in seconds; None is no limit.

        Raises:
            JobFailedError: The job failed.
            JobCancelledError: The job was cancelled.
            WaitTimeoutError: `wait_timeout` or `PollingPolicy.stall_timeout` came first; the job may still run.
            NotFoundError: The service does not know the id.
            ConfigurationError: `wait_timeout` is no number of at least 0.
            TypeError: There is no such option.
        """
        from kling_async.types import WaitOptions

        check_options(options, WaitOptions.__annotations__, call="wait")
        return await self._session().wait(job, self._notifier(), polling=self._polling_with(options))

    async def generate(self, request: RequestLike, **options: Unpack[GenerateOptions]) -> Job:
        """The final record of one video: `submit`, then `wait`, with their arguments and errors."""
        from kling_async.types import GenerateOptions, WaitOptions

        check_options(options, GenerateOptions.__annotations__, call="generate")
        fields: dict[str, Any] = {**options}
        wait_options = {name: fields.pop(name) for name in WaitOptions.__annotations__ if name in fields}
        # Made before the submit: a wrong value must be known before anything is paid for.
        polling = self._polling_with(wait_options)
        job = await self._session().submit(request_from(request, fields), self._notifier())
        return await self._session().wait(job, self._notifier(), polling=polling)

    @overload
    async def generate_many(
        self, requests: str | RequestRow, *, raise_on_failure: bool = False, **options: Unpack[BatchOptions]
    ) -> Never: ...
    @overload
    async def generate_many(
        self, requests: Requests, *, raise_on_failure: bool = False, **options: Unpack[BatchOptions]
    ) -> BatchResult: ...
    async def generate_many(
        self, requests: Requests, *, raise_on_failure: bool = False, **options: Unpack[BatchOptions]
    ) -> BatchResult:
        """The results of many requests, in input order. An item that fails leaves the others alone.

        Args:
            requests: Prompts, `VideoRequest`s or mappings, in any iterable or async iterable. Or entries of `journal`,
                which continue from where they stand.
            raise_on_failure: Raise an `ExceptionGroup` at the end if a video was not made.
            **options: See `BatchOptions`.

        Raises:
            InvalidRequestError: A request of a collection is invalid; nothing was sent.
            ConfigurationError: The folder cannot be written, or a price is missing under a cap; nothing was sent.
            JournalError: The journal cannot be opened; nothing was sent.
            BatchInterruptedError: The input raised, or the journal could not be written any more, as on a full
                disk. Nothing further was sent; the jobs in flight were waited for. The results are in the error's
                `batch`.
            ExceptionGroup: Only with `raise_on_failure`.
            TypeError: There is no such option.
        """
        from kling_async.events import Notifier
        from kling_async.history import HistoryRecorder
        from kling_async.types import BatchOptions

        check_options(options, {*BatchOptions.__annotations__, "raise_on_failure"}, call="generate_many")
        results: list[Result] = []
        recorder = HistoryRecorder()
        options["on_event"] = Notifier(recorder, options.get("on_event"))
        async with self._open_batch(requests, options) as stream:
            try:
                async for result in stream:
                    results.append(result)  # noqa: PERF401 - kept when the input raises half-way
            except Exception as error:
                raise BatchInterruptedError(
                    f"generate_many() was interrupted by {type(error).__name__}: {str(error).rstrip('.')}. Nothing "
                    f"further was sent. The results so far ({len(results):,}) are in this error's `batch`.",
                    batch=_in_order(results, recorder.build()),
                ) from error
        batch = _in_order(results, recorder.build())
        if raise_on_failure:
            batch.raise_for_failures()
        return batch

    @overload
    def stream_many(self, requests: str | RequestRow, **options: Unpack[BatchOptions]) -> Never: ...
    @overload
    def stream_many(
        self, requests: Requests, **options: Unpack[BatchOptions]
    ) -> AbstractAsyncContextManager[AsyncIterator[Result]]: ...
    def stream_many(
        self, requests: Requests, **options: Unpack[BatchOptions]
    ) -> AbstractAsyncContextManager[AsyncIterator[Result]]:
        """The results of many requests as they finish, in flat memory, for input of any length.

        Use it as `async with client.stream_many(...) as results: async for result in results:`. Leaving the block
        early submits nothing more and leaves running jobs alone. A slow reader slows the input.

        Args:
            requests: See `generate_many`.
            **options: See `BatchOptions`.

        Raises:
            InvalidRequestError: See `generate_many`.
            ConfigurationError: See `generate_many`.
            TypeError: There is no such option.
        """
        from kling_async.types import BatchOptions

        check_options(options, BatchOptions.__annotations__, call="stream_many")
        return self._open_batch(requests, options)

    def _open_batch(
        self, requests: Requests, options: BatchOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[Result]]:
        from kling_async._display.progress import make_display
        from kling_async._engine.batch.batch import BatchSettings, open_batch

        given: dict[str, Any] = {**options}
        shared = {name: given.pop(name) for name in VideoOptions.__annotations__ if name in given}
        progress, on_event = given.pop("progress", "auto"), given.pop("on_event", None)
        settings = BatchSettings(**given)
        listener, display = make_display(
            progress,
            total=len(requests) if isinstance(requests, Sized) else None,
            saves=settings.output is not None,
            has_journal=settings.journal is not None,
        )
        notify = self._notifier(on_event, listener)
        batch = open_batch(self._session, requests, options=shared, settings=settings, notify=notify)
        return _within(display, batch)

    async def download(self, job: Job | str, destination: str | os.PathLike[str]) -> Path:
        """The path of a job's video, saved whole: to a part file, checked, then renamed.

        Args:
            job: A finished job, or its id.
            destination: A file, or a folder (one that exists, or a path that ends in a slash) in which the file
                is named after the prompt and the id.

        Raises:
            DownloadError: It has no video yet, or it could not be fetched or written; nothing half-written has the
                destination's name.
        """
        return await self._session().download(job, destination, self._notifier())

    async def upload(self, path: str | os.PathLike[str]) -> str:
        """The public URL of a file of this machine, for `image=`; anyone who has it can read it.

        Args:
            path: A file ending in .jpg, .jpeg, .png, .mp4, .mp3 or .wav.

        Raises:
            InvalidRequestError: The file cannot be read or is of another kind.
            KlingError: It could not be uploaded.
        """
        return await self._session().upload(path, self._notifier())

    async def list_models(self) -> list[str]:
        """The ids of all models that the service names, video or not."""
        return await self._session().list_models(self._notifier())

    async def get_model(self, model_id: str) -> ModelInfo:
        """What the service says about a model: its parameters and its price, where they are published.

        Raises:
            NotFoundError: There is no such model.
        """
        return await self._session().get_model(model_id, self._notifier())

    def _polling_with(self, options: Mapping[str, Any]) -> PollingPolicy:
        return attrs.evolve(self._polling, **options) if options else self._polling

    def _notifier(self, *listeners: Listener | None) -> Notifier:
        from kling_async.events import Notifier

        return Notifier(self._on_event, *listeners)

    def _session(self) -> LoopSession:
        """The session of the running event loop, under the options of this view."""
        if self._root is None:
            return self._open_session()
        return self._root._open_session().with_options(  # noqa: SLF001 - an object of this class
            timeout=self._settings.timeout, retry=self._retry, polling=self._polling
        )

    def _open_session(self) -> LoopSession:
        """The session of the running event loop, made when it is first needed there."""
        loop = asyncio.get_running_loop()
        opened = self._sessions.get(loop)
        if opened is None:
            for closed in [other for other in self._sessions if other.is_closed()]:
                del self._sessions[closed]
            transport = self._transport or _aiohttp_transport()
            opened = _Opened(session=self._make_session(transport), lifetime=self._lifetime(loop, transport))
            self._sessions[loop] = opened
            _start(opened.lifetime)
        return opened.session

    async def _lifetime(
        self, loop: asyncio.AbstractEventLoop, transport: Transport
    ) -> AsyncGenerator[None, None]:
        """Closes the transport when it is closed itself: by `aclose`, or by the event loop at its end."""
        try:
            yield
        finally:
            self._sessions.pop(loop, None)
            if self._transport is None:
                await transport.aclose()

    def _make_session(self, transport: Transport) -> LoopSession:
        from kling_async._engine.api import ApiCaller
        from kling_async._engine.clock import Clock
        from kling_async._engine.session import LoopSession, SharedState
        from kling_async._wire.endpoints import headers_for

        settings = self._settings
        headers = headers_for(
            api_key=settings.api_key,
            organization_id=settings.organization_id,
            user_agent=f"kling_async/{__version__}",
        )
        caller = ApiCaller(
            transport=transport,
            clock=Clock(),
            rng=random.Random(),  # noqa: S311 - spreads retries, keeps no secret
            queue=settings.queue,
            headers=headers,
            secret=settings.api_key,
            timeout=settings.timeout,
            retry=self._retry,
        )
        if self._shared is None:
            self._shared = SharedState(self._limits, self._polling)
        return LoopSession.open(caller, self._limits, self._shared)


class _Opened(NamedTuple):
    """What the client holds for one event loop."""

    session: LoopSession
    lifetime: AsyncGenerator[None, None]


@asynccontextmanager
async def _within(
    drawing: AbstractContextManager[None], batch: AbstractAsyncContextManager[AsyncIterator[Result]]
) -> AsyncIterator[AsyncIterator[Result]]:
    with drawing:
        async with batch as results:
            yield results


def _in_order(results: list[Result], history: BatchHistory | None) -> BatchResult:
    return BatchResult(tuple(sorted(results, key=attrgetter("index"))), history=history)


def _start(lifetime: AsyncGenerator[None, None]) -> None:
    """Run it to its `yield`, which awaits nothing, so that its `finally` is sure to come."""
    with suppress(StopIteration):
        lifetime.asend(None).send(None)


def _aiohttp_transport() -> Transport:
    """Imported when first opened: aiohttp takes longer to import than all the rest together."""
    from kling_async._transport.over_aiohttp import AiohttpTransport

    return AiohttpTransport()
