"""`KlingClient`: opens and closes the connections, and hands all work to the engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sized
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, Self, Unpack, overload

import attrs

from kling_async._calls import public_call
from kling_async._interrupts import interruptible, wait_for_interrupted
from kling_async._loop_sessions import LoopSessions, running_loop
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import Limits
from kling_async._policy.retry import RetryPolicy
from kling_async._policy.validators import check_flag, check_kind
from kling_async._secrets import clear_locals, forget_arguments
from kling_async.batch_result import BatchResult, in_input_order
from kling_async.catalog import DEFAULT_MODEL, ModelInfo
from kling_async.config import check_timeout, read_settings
from kling_async.errors import BatchInterruptedError, ConfigurationError, KlingError
from kling_async.items import read_job, read_job_id, read_jobs, read_one
from kling_async.jobs import Job
from kling_async.lines import error_text, quote_value
from kling_async.paths import output_path
from kling_async.results import Result

if TYPE_CHECKING:
    from kling_async._engine.batch.batch import CheckedBatch
    from kling_async._engine.batch.result_stream import ResultStream
    from kling_async._engine.session import LoopSession
    from kling_async.events import Listener, Notifier
    from kling_async.history import HistoryRecorder
    from kling_async.paths import ObjectUrl
    from kling_async.requests import RequestLike
    from kling_async.types import (
        BatchOptions,
        ClientOptions,
        GenerateOptions,
        Progress,
        Requests,
        SubmitOptions,
        Transport,
        WaitManyOptions,
        WaitOptions,
    )


def _options_of(name: str) -> Callable[[], Collection[str]]:
    """Returns the names of the options of a class in `kling_async.types`, which is imported when they are needed."""
    return lambda: getattr(import_module("kling_async.types"), name).__annotations__


class KlingClient:
    """A client of the service. It submits jobs, waits for them and saves their videos, many at the same time.

    Use it as `async with KlingClient() as client:`. In a notebook you can also use it without a block: the first call
    opens the connections, and `aclose()` closes them. In a second event loop the client opens connections of its own.

    Args:
        api_key: The API key alone, without `Bearer`. By default the environment variable `GMI_API_KEY`, `GMI_CLOUD_API_KEY` or
            `GMI_CLOUD_APIKEY`.
        organization_id: By default `GMI_ORG_ID`. Only accounts with several organizations need it.
        base_url: By default `GMI_BASE_URL`, or else the vendor's address. A bare host gets
            `https://` and the queue's path.
        timeout: Seconds for one HTTP request. How long to wait for a job is `PollingPolicy.wait_timeout`.
        limits: The most that the client does at the same time.
        polling: How often the client polls jobs, and how long a wait can last.
        retry: How often the client repeats a call that is safe to repeat. A paid POST is not safe to repeat.
        proxy: The URL of an HTTP proxy for all connections, such as `http://user:password@proxy.example:3128`; `""` for
            none. By default `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY`, except for the hosts in `NO_PROXY`.
        on_event: Called with every event of this client; see `kling_async.events`.
        transport: Your own way to the network, for tests and instruments. The client uses it in every event loop and
            never closes it.

    Raises:
        ConfigurationError: The key is missing, or a value makes no sense.
        TypeError: `on_event` is not a plain function.
    """

    @public_call
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
        proxy: str | None = None,
        on_event: Listener | None = None,
        transport: Transport | None = None,
    ) -> None:
        try:
            self._settings = read_settings(
                api_key=api_key,
                organization_id=organization_id,
                base_url=base_url,
                timeout=timeout,
                proxy=proxy,
            )
        except ConfigurationError as error:
            clear_locals(error)
            raise
        finally:
            del api_key, base_url, proxy  # a traceback shows the variables of this frame
        check_kind("limits", limits, Limits)
        self._polling = check_kind("polling", polling, PollingPolicy)
        self._retry = check_kind("retry", retry, RetryPolicy)
        self._on_event = _check_listener(on_event)
        if transport is not None and not callable(getattr(transport, "send", None)):
            raise ConfigurationError(
                f"transport must be a kling_async.types.Transport, not {quote_value(transport)}."
            )
        self._sessions = LoopSessions(
            self._settings, limits=limits, polling=polling, retry=retry, transport=transport
        )
        self._is_view = False
        """Whether `with_options` made this client of another one."""

    def __repr__(self) -> str:
        if not hasattr(self, "_settings"):  # shown by the traceback of a setting that is refused
            return "<KlingClient without settings>"
        return f"<KlingClient {self._settings.queue.partition('/api/')[0]} api_key=***>"

    def __reduce__(self) -> Never:
        # A copy and a pickle both come here.
        raise TypeError(
            "A KlingClient cannot be pickled or copied, because it holds the API key and connections: make a "
            "KlingClient() in each process, or use with_options() for a second view of this one."
        )

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

    @public_call
    async def aclose(self) -> None:
        """Close the connections of this event loop. Jobs at the service continue, and the next call opens new connections.

        A wait that is under way ends with `WaitTimeoutError` at its next poll, and a batch ends: its jobs in flight are
        results in the state `TIMED_OUT`, a warning in the log names them, and the next run with the same journal continues.
        """
        await self._sessions.close()

    @property
    def last_batch(self) -> BatchResult | None:
        """The results of the last `generate_many`, also if the call was interrupted; None before the first one.

        After an interruption, such as Ctrl-C or a timeout, a job in flight is a result in the state `TIMED_OUT`, and a
        submit without an answer one in the state `AMBIGUOUS`. Items that were not sent have no result. The views of
        `with_options` share this.
        """
        return self._sessions.last_batch

    @public_call(options=_options_of("ClientOptions"))
    def with_options(self, **options: Unpack[ClientOptions]) -> KlingClient:
        """Another view of this client, with the same connections, limits and knowledge of run times.

        Closing one of them closes the connections of all.

        Args:
            **options: See `ClientOptions`: `timeout`, `polling`, `retry`, `on_event`. What is left out stays as it is.

        Raises:
            ConfigurationError: A value makes no sense.
            TypeError: There is no such option.
        """
        view = object.__new__(type(self))
        vars(view).update(vars(self))
        view._is_view = True
        if "timeout" in options:
            view._settings = attrs.evolve(self._settings, timeout=check_timeout(options["timeout"]))
        view._polling = check_kind("polling", options.get("polling", self._polling), PollingPolicy)
        view._retry = check_kind("retry", options.get("retry", self._retry), RetryPolicy)
        view._on_event = _check_listener(options.get("on_event", self._on_event))
        return view

    @public_call(options=_options_of("SubmitOptions"))
    async def submit(self, request: RequestLike, **options: Unpack[SubmitOptions]) -> Job:
        """The job of a request that this call submits: one paid POST.

        The client sends the POST a second time only if the first one provably never arrived. If you cancel the call
        while the POST is in flight, the call first waits for the answer, at most `timeout` seconds. Then it logs the
        job's id and reports it to `on_event`. The job continues at the service.

        Before its POST the call waits for the limits of the client, for the end of a pause after a 429, and in an outage of the
        service for its turn, which can take long: of an outage `on_event` gets a `Throttled`. If you cancel the call there, nothing
        is sent.

        Args:
            request: A prompt, a `VideoRequest`, or a mapping of its fields.
            **options: See `SubmitOptions`: fields of `VideoRequest`, which fill the fields that the request leaves open.

        Raises:
            InvalidRequestError: The request breaks the model's rules, or its prompt looks like a mistake; nothing was
                sent.
            AmbiguousSubmitError: The POST was sent, and whether the service accepted it is unknown.
            APIStatusError: The service refused the request.
            APIConnectionError: No connection could be made.
            TypeError: There is no such option.
        """
        return await self._session().submit(read_one(request, options), self._notifier())

    @public_call
    async def get_job(self, request_id: str) -> Job:
        """The current record of a job.

        Raises:
            NotFoundError: The service does not know the id, or shows the job only to another key.
            KlingError: No retry brought a usable answer.
        """
        return await self._session().get_job(read_job_id(request_id), self._notifier())

    @public_call
    async def list_jobs(self, model: str = DEFAULT_MODEL, *, page_size: int = 100) -> AsyncIterator[Job]:
        """Every job of a model that the service shows to this key, each job once, in the service's order.

        Args:
            model: The model's id. The service has one list for each model.
            page_size: Rows in one call. The service can answer with fewer.

        Raises:
            KlingError: No retry brought a usable answer.
        """
        async for page in self._session().list_pages(model, page_size, self._notifier()):
            for job in page:
                yield job

    @public_call(options=_options_of("WaitOptions"))
    async def wait(self, job: Job | str, **options: Unpack[WaitOptions]) -> Job:
        """The final record of a job that succeeded.

        A failed status call does not end the wait. Cancelling the wait does not change the job.

        Args:
            job: A job, or the id of one, also from an earlier process.
            **options: See `WaitOptions`: `wait_timeout`, in seconds. None is no limit.

        Raises:
            JobFailedError: The job failed.
            JobCancelledError: The job was cancelled.
            WaitTimeoutError: `wait_timeout` or `PollingPolicy.stall_timeout` ended the wait; the job can still run.
            NotFoundError: The service does not know the id.
            ConfigurationError: `wait_timeout` is not a number of at least 0.
            TypeError: There is no such option.
        """
        wanted, polling = read_job(job), self._polling_with(options)
        return await self._session().wait(wanted, self._notifier(), polling=polling)

    @public_call(options=_options_of("WaitManyOptions"))
    async def wait_many(self, jobs: Iterable[Job | str], **options: Unpack[WaitManyOptions]) -> BatchResult:
        """How each of many jobs ended, in the order given. A job that ends without a video leaves the others alone.

        An id that the service does not know has a result with `NotFoundError`. Cancelling the call does not change the
        jobs.

        Args:
            jobs: Jobs, or the ids of jobs, also from an earlier process.
            **options: See `WaitManyOptions`: `wait_timeout`, in seconds, for each job, and `progress`.

        Raises:
            InvalidRequestError: `jobs` is not an iterable of jobs and ids.
            ConfigurationError: A value makes no sense.
            TypeError: There is no such option.
        """
        from kling_async.history import HistoryRecorder

        wanted = read_jobs(jobs)
        wait_options: dict[str, Any] = {**options}
        progress = wait_options.pop("progress", "auto")
        polling = self._polling_with(wait_options)
        recorder = HistoryRecorder()
        notify, display = self._display(progress, recorder, total=len(wanted))
        with display:
            results = await self._session().wait_many(wanted, notify, polling=polling)
        return in_input_order(results, recorder.build())

    @public_call(options=_options_of("GenerateOptions"))
    async def generate(self, request: RequestLike, **options: Unpack[GenerateOptions]) -> Job:
        """The final record of one video: `submit`, then `wait`, and with `output` also `download`.

        Args:
            request: See `submit`.
            **options: See `GenerateOptions`: the options of `submit` and `wait`, `output` and `progress`.

        Raises:
            ConfigurationError: A value makes no sense, or nothing can be saved to `output`; nothing was sent.
            DownloadError: The video was made and could not be saved; the error's `job` is its record.
            KlingError: See `submit` and `wait`.
        """
        from kling_async._engine.interrupted import describe_job, warn_if_cancelled
        from kling_async.types import WaitOptions

        fields: dict[str, Any] = {**options}
        wait_options = {name: fields.pop(name) for name in WaitOptions.__annotations__ if name in fields}
        # All before the submit: a wrong value must be known before anything is paid for.
        polling, output = self._polling_with(wait_options), fields.pop("output", None)
        notify, display = self._display(fields.pop("progress", "auto"), total=1, saves=output is not None)
        session, wanted = self._session(), read_one(request, fields)
        if output is not None:
            output = output_path(output, name="output")
            await session.check_output(output)
        with display:
            job = await session.submit(wanted, notify, call="generate")
            with warn_if_cancelled(
                lambda: describe_job(job.request_id, call="generate", is_made=job.is_success)
            ):
                job = await session.wait(job, notify, polling=polling)
                if output is not None:
                    await session.download(job, output, notify)
        return job

    @overload
    async def generate_many(
        self,
        requests: str | Mapping[Any, object],
        *,
        raise_on_failure: bool = False,
        **options: Unpack[BatchOptions],
    ) -> Never: ...
    @overload
    async def generate_many(
        self, requests: Requests, *, raise_on_failure: bool = False, **options: Unpack[BatchOptions]
    ) -> BatchResult: ...
    @public_call(options=_options_of("BatchOptions"))
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

        check_flag("raise_on_failure", raise_on_failure)
        results: list[Result] = []
        recorder, stream = HistoryRecorder(), None
        options["on_event"] = Notifier(recorder, options.get("on_event"))
        self._sessions.last_batch = None
        try:
            batch, display = self._check_batch(requests, options)
            async with self._open_batch(batch, display, call="generate_many") as stream:
                await self._collect(stream, results, recorder)
        except asyncio.CancelledError as error:
            results += [] if stream is None else stream.rest
            self._sessions.last_batch = in_input_order(results, recorder.build())
            error.add_note(f"The results so far ({len(results):,}) are in `client.last_batch`.")
            # The frames of the batch say nothing about the interruption, and would fill a notebook.
            raise error.with_traceback(None) from None
        whole = self._sessions.last_batch = in_input_order(results, recorder.build())
        if raise_on_failure:
            whole.raise_for_failures()
        return whole

    async def _collect(
        self, stream: AsyncIterator[Result], results: list[Result], recorder: HistoryRecorder
    ) -> None:
        """Append each result of a batch as it comes.

        Raises:
            BatchInterruptedError: The input raised, or the journal could not be written.
        """
        try:
            async for result in stream:
                results.append(result)  # noqa: PERF401 - kept when the input raises half-way
        except Exception as error:
            so_far = self._sessions.last_batch = in_input_order(results, recorder.build())
            raise BatchInterruptedError(
                f"generate_many() was interrupted by {error_text(error)}. Nothing "
                f"further was sent. The results so far ({len(results):,}) are in this error's `batch`.",
                batch=so_far,
            ) from error

    @overload
    def stream_many(self, requests: str | Mapping[Any, object], **options: Unpack[BatchOptions]) -> Never: ...
    @overload
    def stream_many(
        self, requests: Requests, **options: Unpack[BatchOptions]
    ) -> AbstractAsyncContextManager[AsyncIterator[Result]]: ...
    @public_call(options=_options_of("BatchOptions"))
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
        return self._open_batch(*self._check_batch(requests, options), call="stream_many")

    def _check_batch(
        self, requests: Requests, options: BatchOptions
    ) -> tuple[CheckedBatch, AbstractContextManager[None]]:
        """A batch to open, and the display of its progress."""
        from kling_async._display.progress import make_display
        from kling_async._engine.batch.batch import check_batch
        from kling_async._engine.batch.settings import split_options

        given = split_options(options)
        settings = given.settings
        listener, display = make_display(
            given.progress,
            total=len(requests) if isinstance(requests, Sized) else None,
            saves=settings.output is not None,
            has_journal=settings.journal is not None,
        )
        notify = self._notifier(given.on_event, listener)
        return check_batch(requests, given.video, settings, notify), display

    @asynccontextmanager
    async def _open_batch(
        self, batch: CheckedBatch, display: AbstractContextManager[None], *, call: str
    ) -> AsyncIterator[ResultStream]:
        """Run a batch for as long as the block lasts, with its display; an error names the call."""
        from kling_async._engine.batch.batch import open_parts, run_batch

        running_loop()  # before a journal is made
        await wait_for_interrupted()
        try:
            with display, interruptible():
                async with run_batch(batch.reader, open_parts(self._session(), batch)) as results:
                    yield results
        except KlingError as error:
            error.call = error.call or call
            forget_arguments(error)
            raise

    @overload
    async def download(
        self, job: Job | str, destination: os.PathLike[str], *, ascii_names: bool = False
    ) -> Path: ...
    @overload
    async def download(
        self, job: Job | str, destination: ObjectUrl, *, ascii_names: bool = False
    ) -> ObjectUrl: ...
    @overload
    async def download(
        self, job: Job | str, destination: str, *, ascii_names: bool = False
    ) -> Path | ObjectUrl: ...
    @public_call
    async def download(
        self, job: Job | str, destination: str | os.PathLike[str], *, ascii_names: bool = False
    ) -> Path | ObjectUrl:
        """The path of a job's video, which this call saves; the URL of its object, if the destination is in an object store.

        The call writes a partial file, checks it, and then renames it: a file with the destination's name is complete.
        An object appears in its store when its last byte is stored. The call never replaces another file or object. If
        one has the destination's name, the video gets a name beside it, such as `eagle-550e8400.mp4`, and a warning is
        logged.

        Args:
            job: A finished job, or the id of one.
            destination: A file, or a folder: one that exists, or a missing path that ends in a slash or has no suffix.
                In a folder the file gets a name made from the prompt and the id. Or a URL such as
                `s3://bucket/videos/`, which means the same in an object store, and needs the extra `stores`.
            ascii_names: Whether that name has ASCII letters and digits only.

        Raises:
            DownloadError: The job has no video yet, or the video could not be fetched or written.
            ConfigurationError: The destination is neither a path on this machine nor the URL of an object store.
        """
        wanted, place = read_job(job), output_path(destination, name="destination")
        return await self._session().download(wanted, place, self._notifier(), ascii_names=ascii_names)

    @public_call
    async def check_output(self, destination: str | os.PathLike[str]) -> None:
        """Do nothing if videos can be saved there; nothing is sent to the service.

        A batch checks its `output` in the same way before anything is paid. A missing folder is made, and a trial file is
        written and removed; in an object store that is a trial object.

        Args:
            destination: See `download`.

        Raises:
            ConfigurationError: No video can be saved there.
        """
        await self._session().check_output(output_path(destination, name="destination"))

    @public_call
    async def upload(self, path: str | os.PathLike[str]) -> str:
        """The public URL of a local file, which this call uploads, for `image=`. Anyone who has the URL can read the file.

        Args:
            path: A file that ends in .jpg, .jpeg, .png, .mp4, .mp3 or .wav.

        Raises:
            InvalidRequestError: The file cannot be read, or ends otherwise.
            KlingError: The file could not be uploaded.
        """
        return await self._session().upload(path, self._notifier())

    @public_call
    async def list_models(self) -> list[str]:
        """The ids of all models of the service, also of those that make no videos."""
        return await self._session().list_models(self._notifier())

    @public_call
    async def get_model(self, model_id: str) -> ModelInfo:
        """The service's description of a model: its parameters and its price, if they are published.

        Raises:
            NotFoundError: There is no such model.
        """
        return await self._session().get_model(model_id, self._notifier())

    def _display(
        self, progress: Progress, *listeners: Listener, total: int, saves: bool = False
    ) -> tuple[Notifier, AbstractContextManager[None]]:
        """A notifier, and the context manager that shows what it counts."""
        from kling_async._display.progress import make_display

        counts, display = make_display(progress, total=total, saves=saves)
        return self._notifier(*listeners, counts), display

    def _polling_with(self, options: Mapping[str, Any]) -> PollingPolicy:
        return attrs.evolve(self._polling, **options) if options else self._polling

    def _notifier(self, *listeners: Listener | None) -> Notifier:
        from kling_async.events import Notifier

        return Notifier(self._on_event, *listeners)

    def _session(self) -> LoopSession:
        """The session of the running event loop, under the options of this view."""
        session = self._sessions.open()
        if not self._is_view:
            return session
        return session.with_options(timeout=self._settings.timeout, retry=self._retry, polling=self._polling)


def _check_listener(listener: Listener | None) -> Listener | None:
    """The listener as all calls of a client share it, if it can be called with each event."""
    if listener is None:
        return None
    from kling_async.events import Notifier

    return Notifier(listener)
