"""An event loop whose clock jumps to the next timer, and the emulator's queue on this clock, without sockets."""

from __future__ import annotations

import asyncio
import json
import random
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio
import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.batch.batch import run_batch
from kling_async._engine.batch.batch_input import InputReader
from kling_async._engine.batch.batch_parts import BatchParts
from kling_async._engine.batch.settings import BatchSettings
from kling_async._engine.clock import Clock
from kling_async._engine.download.output_folder import OutputFolder
from kling_async._engine.session import LoopSession
from kling_async._engine.shared_state import SharedState
from kling_async._engine.submit.ledger import Ledger
from kling_async._engine.submit.uploader import Uploader
from kling_async._policy.budget import Budget
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import Limits
from kling_async._policy.retry import RetryPolicy
from kling_async._secrets import Secret
from kling_async._transport.base import Reply, Request, Sink
from kling_async._wire.endpoints import QUEUE_PATH
from kling_async.emulator.queue_api import QueueApi
from kling_async.emulator.service_queue import FINAL, Job, RefusedError, ServiceQueue
from kling_async.emulator.settings import EmulatorSettings, JobScript, ResponseFormat
from kling_async.events import Notifier

EPOCH = 1_800_000_000.0
KEY = "key-of-the-tests"
STORAGE = "https://storage.example"
VIDEOS = f"{STORAGE}/gmi-video-assests-prod/user-assests/org"
"""The folder of all videos on the storage."""
FAILED = JobScript(ending="failed", error="Generation rejected")


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait: it moves the time forward by as much as it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if ready or timeout is None or timeout <= 0:
            return ready or (super().select(timeout) if timeout is None else [])
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which an hour takes no real time, and every run is the same."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class VirtualClock(Clock):
    """The loop's clock, for waits and for recorded times."""

    def wall(self) -> float:
        return EPOCH + anyio.current_time()


Answer = Reply | Exception
Script = Callable[[Request, "Service"], "Answer | None"]


def reply(status: int, value: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Reply(status, headers or {}, body)


class _Jobs(ServiceQueue):
    """The jobs of a service whose list can leave some out, and can have a new order each time that it grows."""

    def __init__(self, settings: EmulatorSettings, service: Service) -> None:
        super().__init__(settings)
        self._service = service

    def of_model(self, model: str | None) -> list[Job]:
        listed = [job for job in super().of_model(model) if self._service.shows(job)]
        if self._service.order == "random":
            random.Random(len(listed)).shuffle(listed)  # noqa: S311
        return listed


@attrs.define(eq=False)
class Service:
    """A transport to the emulator's own queue: jobs run by the loop's clock, and scripts change the answers.

    A script gets each request first. A `Reply` that it returns is the answer, an exception is raised, and None leaves
    the answer to the service. The scripts in `after` run after the service has processed the request, as for a lost
    answer.
    """

    run_time: float | Callable[[int], float] = 60.0
    """Seconds; or a function of the job's number from 0."""
    queue_time: float = 0.0
    latency: float = 0.0
    rows: int = 100
    order: str = "newest"
    script: Callable[[int], JobScript] = lambda _: JobScript()
    """What happens to a job, given its number from 0."""
    shows: Callable[[Job], bool] = lambda _: True
    before: list[Script] = attrs.field(factory=list)
    after: list[Script] = attrs.field(factory=list)
    calls: Counter[str] = attrs.field(factory=Counter)
    media: dict[str, Any] = attrs.field(factory=dict)
    requests: list[Request] = attrs.field(factory=list)
    most_concurrent: Counter[str] = attrs.field(factory=Counter)
    has_total: bool = True
    has_more: bool = True
    """Whether the list says if there are further pages; see `denies_more`."""
    denies_more: bool = False
    """Whether the list always says that there are none."""
    closed: int = 0
    ahead: float | None = None
    """Seconds that the service's clock is ahead of the client's; None for a service that does not tell its time."""
    queue: ServiceQueue = attrs.field(init=False)
    api: QueueApi = attrs.field(init=False)
    _concurrent: Counter[str] = attrs.field(factory=Counter)
    _final_shown: dict[str, float] = attrs.field(factory=dict)
    """By job, when an answer first showed its final status."""

    def __attrs_post_init__(self) -> None:
        settings = EmulatorSettings(
            time_scale=1.0,
            workers=None,
            dispatch_time=0.0,
            script=self._make_script,
            organization_id="org",
            response_format=ResponseFormat(
                outcome="media_urls",
                thumbnail="none",
                submit_reply="full",
                # The time of the queue is that of the loop, which begins at 0.
                clock_ahead=EPOCH + (self.ahead or 0.0),
                list_order="newest" if self.order == "newest" else "oldest",
                list_rows=self.rows,
                list_total=self.has_total,
                list_has_more=self.has_more,
            ),
        )
        self.queue = _Jobs(settings, self)
        self.api = QueueApi(settings, self.queue)

    def _make_script(self, number: int, _payload: Mapping[str, Any]) -> JobScript:
        index = number - 1
        run_time = self.run_time(index) if callable(self.run_time) else self.run_time
        script = self.script(index)
        return attrs.evolve(
            script,
            request_id=script.request_id or f"job-{index}",
            queue_time=self.queue_time if script.queue_time is None else script.queue_time,
            run_time=run_time if script.run_time is None else script.run_time,
        )

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def jobs(self) -> dict[str, Job]:
        return {job.request_id: job for job in self.queue.jobs}

    @property
    def posts(self) -> int:
        return self.calls["submit"]

    @property
    def most_in_flight(self) -> int:
        return self.queue.max_jobs_in_flight

    async def send(self, request: Request) -> Reply:
        kind = self.kind(request)
        self.requests.append(request)
        self.calls[kind] += 1
        self._concurrent[kind] += 1
        self.most_concurrent[kind] = max(self.most_concurrent[kind], self._concurrent[kind])
        try:
            await anyio.sleep(self.latency)
            answer = self._run_scripts(self.before, request)
            if answer is None:
                answer = self.answer(kind, request)
                answer = self._run_scripts(self.after, request) or answer
            if isinstance(answer, Exception):
                raise answer
            if self.ahead is None or "date" in answer.headers:
                return answer
            date = formatdate(int(EPOCH + self.ahead + self.now), usegmt=True)
            return Reply(answer.status, {**answer.headers, "date": date}, answer.body)
        finally:
            self._concurrent[kind] -= 1

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[Any]:
        self.calls["media"] += 1
        self.requests.append(request)
        answer = self.media.get(request.url, _Stream(200, [b"video of ", request.url.encode()]))
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        is_chunked = answer.has_end and "content-length" not in answer.headers
        framing = {"transfer-encoding": "chunked"} if is_chunked else {}
        yield Streamed(answer.body(), answer.status, {**framing, **answer.headers})

    async def aclose(self) -> None:
        self.closed += 1

    def _run_scripts(self, scripts: list[Script], request: Request) -> Answer | None:
        for script in scripts:
            if (answer := script(request, self)) is not None:
                return answer
        return None

    def kind(self, request: Request) -> str:
        path = urlsplit(request.url).path.removeprefix(QUEUE_PATH)
        if path == "/requests":
            return "submit" if request.method == "POST" else "list"
        return "status" if path.startswith("/requests/") else path.split("/")[1]

    def answer(self, kind: str, request: Request) -> Reply:
        """The answer of the service without a fault; a submit creates its job."""
        if kind not in {"submit", "status", "list"}:
            return reply(404, {"error": "no such call"})
        try:
            return reply(200, self.call(kind, request))
        except RefusedError as refusal:
            return reply(refusal.status, {"error": refusal.error}, refusal.headers)

    def call(self, kind: str, request: Request) -> dict[str, Any]:
        """The JSON of the answer, or a `RefusedError`."""
        url, place = urlsplit(request.url), {"now": self.now, "storage_url": STORAGE}
        if kind == "submit":
            value = self.api.submit(request.body or b"", **place)
        elif kind == "status":
            value = self.api.get_job(unquote(url.path.rpartition("/")[2]), **place)
        else:
            value = self.api.list_jobs(dict(parse_qsl(url.query)), **place)
            if self.denies_more:
                value["has_more"] = False
        self._note_final(value)
        return value

    def accept(
        self, payload: Mapping[str, Any], *, model: str = "kling-v2-6", organization_id: str | None = None
    ) -> Job:
        """A new job of somebody else, by default of the same organization."""
        return self.queue.submit(model, payload, now=self.now, organization_id=organization_id)

    def record(self, job: Job, *, at: float | None = None) -> dict[str, Any]:
        """The record of a job, as it is or as it was at a time."""
        now = self.now if at is None else at
        return self.api.make_record(job, now=now, storage_url=STORAGE)

    def _note_final(self, value: Mapping[str, Any]) -> None:
        for row in value.get("requests", [value]):
            if row["status"] in FINAL:
                self._final_shown.setdefault(row["request_id"], self.now)

    def lags(self) -> list[float]:
        jobs = self.jobs
        return [shown - jobs[request_id].final_at for request_id, shown in self._final_shown.items()]


@attrs.frozen
class _Stream:
    status: int
    pieces: list[bytes | Exception]
    headers: Mapping[str, str] = attrs.field(factory=dict)
    has_end: bool = attrs.field(default=True, kw_only=True)
    """Whether the end of a body without a length is a last chunk, and not the end of its connection."""

    async def body(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


Stream = _Stream


@attrs.frozen
class Streamed:
    """A streamed reply made of pieces; its body can be read once."""

    pieces: AsyncIterator[bytes]
    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)

    async def pipe_to(self, sink: Sink) -> bool:
        async for piece in self.pieces:
            if not sink(piece):
                return False
        return True


def on(kind: str, *answers: Answer | None) -> Script:
    """Answers the calls of a kind one after the other; None, and every call after the last, is left to the service."""
    left = list(answers)

    def script(request: Request, service: Service) -> Answer | None:
        return left.pop(0) if left and service.kind(request) == kind else None

    return script


def always(kind: str, answer: Answer) -> Script:
    return lambda request, service: answer if service.kind(request) == kind else None


def session_for(
    service: Any,
    *,
    limits: Limits = Limits(max_polls_per_second=1e6),  # noqa: B008
    polling: PollingPolicy = PollingPolicy(),  # noqa: B008
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008
    seed: int = 0,
    timeout: float = 60.0,
) -> LoopSession:
    api = ApiCaller(
        transport=service,
        clock=VirtualClock(),
        rng=random.Random(seed),  # noqa: S311
        queue=f"https://service.example{QUEUE_PATH}",
        headers={"Authorization": f"Bearer {KEY}"},
        secret=Secret(KEY),
        timeout=timeout,
        retry=retry,
    )
    return LoopSession.open(api, SharedState(limits, polling))


def batch_of(
    service,
    requests,
    *,
    at_once=20,
    skip_invalid=False,
    notify=None,
    journal=None,
    budget=None,
    folder=None,
    on_ambiguous="report",
    retry_failed=False,
    session=None,
    **settings,
):
    session, notifier = session or session_for(service, **settings), Notifier(notify)
    emit, budget = session.api.emitter(notifier), budget or Budget()
    parts = BatchParts(
        session=session,
        settings=BatchSettings(max_concurrency=at_once, on_ambiguous=on_ambiguous, retry_failed=retry_failed),
        ledger=Ledger(emit=emit, budget=budget, journal=journal),
        emit=emit,
        uploader=Uploader(session.api, emit),
        output=OutputFolder(Path(folder), has_ascii_names=False) if folder is not None else None,
    )
    check = budget.price if budget.cap is not None else None
    reader = InputReader(requests, {}, skip_invalid=skip_invalid, check=check)
    return run_batch(reader, nullcontext(parts))


async def run(service, requests, **settings):
    async with batch_of(service, requests, **settings) as results:
        return [result async for result in results]


def prompts(number):
    return [f"prompt {index}" for index in range(number)]
