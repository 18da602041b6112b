"""An event loop whose clock jumps to the next timer, and a model of the service that uses this clock."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.batch.batch import Batch, run_batch
from kling_async._engine.batch.batch_input import InputReader
from kling_async._engine.batch.run_item import BatchParts
from kling_async._engine.batch.slots import Slots
from kling_async._engine.clock import Clock
from kling_async._engine.download.output_folder import OutputFolder
from kling_async._engine.session import LoopSession
from kling_async._engine.shared_state import SharedState
from kling_async._engine.submit.ledger import Ledger
from kling_async._engine.submit.uploader import Uploader
from kling_async._policy.budget import Budget
from kling_async._policy.concurrency_limit import ConcurrencyLimit
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import Limits
from kling_async._policy.retry import RetryPolicy
from kling_async._transport.base import Reply, Request, Sink
from kling_async._wire.endpoints import QUEUE_PATH
from kling_async.events import Notifier

EPOCH = 1_800_000_000.0
KEY = "key-of-the-tests"


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


@attrs.define
class ServiceJob:
    request_id: str
    model: str
    payload: dict[str, Any]
    created: float
    begins: float
    ends: float
    final: str = "success"
    error: str | None = None
    final_shown_at: float | None = None
    """When an answer first showed the final status; None before."""

    def status(self, now: float) -> str:
        if now >= self.ends:
            return self.final
        return "processing" if now >= self.begins else "queued"

    def record(self, now: float, *, ahead: float = 0.0) -> dict[str, Any]:
        status = self.status(now)
        outcome = None
        if status == "success":
            outcome = {"media_urls": [{"id": "0", "url": f"https://storage.example/{self.request_id}.mp4"}]}
        elif status in {"failed", "cancelled"}:
            outcome = {"error": self.error or "Generation rejected"}
        changed = max(at for at in (self.created, self.begins, self.ends) if at <= now)
        return {
            "request_id": self.request_id,
            "org_id": "org",
            "model": self.model,
            "status": status,
            "payload": self.payload,
            "outcome": outcome,
            "created_at": int(EPOCH + ahead + self.created),
            "updated_at": int(EPOCH + ahead + changed),
            "queued_at": int(EPOCH + ahead + self.created),
        }


Answer = Reply | Exception
Script = Callable[[Request, "Service"], "Answer | None"]


def reply(status: int, value: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Reply(status, headers or {}, body)


@attrs.define(eq=False)
class Service:
    """A transport to a model of the service: jobs run by the loop's clock, and scripts change the answers.

    A script gets each request first. A `Reply` that it returns is the answer, an exception is raised, and None leaves
    the answer to the service. The scripts in `after` run after the service has processed the request, as for a lost
    answer.
    """

    run_time: float | Callable[[int], float] = 60.0
    queue_time: float = 0.0
    latency: float = 0.0
    rows: int = 100
    order: str = "newest"
    shows: Callable[[ServiceJob], bool] = lambda _: True
    before: list[Script] = attrs.field(factory=list)
    after: list[Script] = attrs.field(factory=list)
    jobs: dict[str, ServiceJob] = attrs.field(factory=dict)
    calls: Counter[str] = attrs.field(factory=Counter)
    media: dict[str, Any] = attrs.field(factory=dict)
    requests: list[Request] = attrs.field(factory=list)
    most_in_flight: int = 0
    most_concurrent: Counter[str] = attrs.field(factory=Counter)
    _concurrent: Counter[str] = attrs.field(factory=Counter)
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count)
    has_total: bool = True
    has_more: bool = True
    """Whether the list says if there are further pages; see `denies_more`."""
    denies_more: bool = False
    """Whether the list always says that there are none."""
    closed: int = 0
    ahead: float | None = None
    """Seconds that the service's clock is ahead of the client's; None for a service that does not tell its time."""

    @property
    def now(self) -> float:
        return anyio.current_time()

    @property
    def posts(self) -> int:
        return self.calls["submit"]

    def count_in_flight(self) -> int:
        return sum(1 for job in self.jobs.values() if job.ends > self.now)

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
        yield Streamed(answer.body(), answer.status, answer.headers)

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
        if kind == "submit":
            return self._accept(json.loads(request.body or b""))
        if kind == "status":
            job = self.jobs.get(unquote(urlsplit(request.url).path.rpartition("/")[2]))
            return reply(200, self._show(job)) if job else reply(404, {"error": "Request not found"})
        if kind == "list":
            return self._list(parse_qs(urlsplit(request.url).query))
        return reply(404, {"error": "no such call"})

    def _accept(self, body: dict[str, Any]) -> Reply:
        number = next(self._numbers)
        run = self.run_time(number) if callable(self.run_time) else self.run_time
        begins = self.now + self.queue_time
        job = ServiceJob(f"job-{number}", body["model"], body["payload"], self.now, begins, begins + run)
        self.jobs[job.request_id] = job
        self.most_in_flight = max(self.most_in_flight, self.count_in_flight())
        return reply(200, self._show(job))

    def _show(self, job: ServiceJob) -> dict[str, Any]:
        if job.final_shown_at is None and job.ends <= self.now:
            job.final_shown_at = self.now
        return job.record(self.now, ahead=self.ahead or 0.0)

    def _list(self, query: dict[str, list[str]]) -> Reply:
        model = query.get("model_id", [None])[0]
        listed = [job for job in self.jobs.values() if job.model == model and self.shows(job)]
        if self.order == "newest":
            listed.reverse()
        elif self.order == "random":
            random.Random(len(listed)).shuffle(listed)  # noqa: S311
        offset = int(query.get("offset", ["0"])[0])
        limit = min(int(query.get("limit", ["10"])[0]), self.rows)
        page = listed[offset : offset + limit]
        envelope: dict[str, Any] = {"requests": [self._show(job) for job in page]}
        if self.has_total:
            envelope["total"] = len(listed)
        if self.has_more:
            envelope["has_more"] = not self.denies_more and offset + limit < len(listed)
        return reply(200, envelope)

    def lags(self) -> list[float]:
        return [job.final_shown_at - job.ends for job in self.jobs.values() if job.final_shown_at is not None]


@attrs.frozen
class _Stream:
    status: int
    pieces: list[bytes | Exception]
    headers: Mapping[str, str] = attrs.field(factory=dict)

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
) -> LoopSession:
    caller = ApiCaller(
        transport=service,
        clock=VirtualClock(),
        rng=random.Random(seed),  # noqa: S311
        queue=f"https://service.example{QUEUE_PATH}",
        headers={"Authorization": f"Bearer {KEY}"},
        secret=KEY,
        timeout=60.0,
        retry=retry,
    )
    return LoopSession.open(caller, SharedState(limits, polling))


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
    emit, budget = session.caller.emitter(notifier), budget or Budget()
    parts = BatchParts(
        session=session,
        ledger=Ledger(emit=emit, budget=budget, journal=journal),
        slots=Slots(ConcurrencyLimit(at_once)),
        uploader=Uploader(session.caller, emit),
        emit=emit,
        folder=OutputFolder(Path(folder), has_ascii_names=False) if folder is not None else None,
        on_ambiguous=on_ambiguous,
        retry_failed=retry_failed,
    )
    check = budget.price if budget.cap is not None else None
    return run_batch(Batch(InputReader(requests, {}, skip_invalid, check=check), parts))


async def run(service, requests, **settings):
    async with batch_of(service, requests, **settings) as results:
        return [result async for result in results]


def prompts(number):
    return [f"prompt {index}" for index in range(number)]
