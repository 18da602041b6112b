"""A model of the service: its effects, and its answers after a delay."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
from virtual_service import EPOCH, reply

from kling_async import APIConnectionError, APITimeoutError
from kling_async._transport.base import Reply, Request
from kling_async._wire.endpoints import QUEUE_PATH

from .scenario import CALL_FAULTS, JOB_FAULTS, POST_FAULTS, STATUS_FAULTS, Conditions

Answer: TypeAlias = Reply | Exception
RATE_LIMIT = "rate limit exceeded(RPM)"
_NEVER = float("inf")
_GARBAGE = (reply(200, b'{"request_id": "half'), reply(200, b"<html>ok</html>"), reply(302, b""))
_FAILURES = (reply(500, {"error": "Backend error"}), reply(502, b"<html>"), reply(408, b""), *_GARBAGE)


@attrs.define(eq=False, kw_only=True)
class Post:
    """One paid POST that left a process."""

    line: int
    """The number of the line that sent it."""
    process: str
    payload: dict[str, Any]
    request: str
    """Model and payload as text; equal for equal requests."""
    sent: float
    fate: str = "in flight"
    """in flight, refused (not accepted), answered (the process has the id) or unknown."""
    verdict: str = "unknown"
    """The fate after the process has the answer."""
    job: Job | None = None


@attrs.define(eq=False, kw_only=True)
class Job:
    """One accepted job."""

    id: str
    post: Post | None
    """None for an old job of others."""
    payload: dict[str, Any]
    created: float
    begins: float
    ends: float
    final: str = "success"
    error: str | None = None
    shows: float = 0.0
    """The time from which the list shows it."""
    vanishes: float = _NEVER
    has_echo: bool = True
    is_late: bool = False
    """Whether it was accepted after its process had stopped waiting."""

    def could_match(self, request: str) -> bool:
        """Whether it has all parameters of a request, and perhaps more."""
        _, payload = json.loads(request)
        return bool(payload.items() <= strip_prompt(self.payload).items())

    def status(self, now: float) -> str:
        if now >= self.ends:
            return self.final
        return "processing" if now >= self.begins else "queued"

    def record(self, now: float, *, skew: float) -> dict[str, Any]:
        status = self.status(now)
        outcome = None
        if status == "success":
            outcome = {"media_urls": [{"id": "0", "url": f"https://storage.example/{self.id}.mp4"}]}
        elif status in {"failed", "cancelled"}:
            outcome = {"error": self.error or "Generation rejected"}
        return {
            "request_id": self.id,
            "model": "kling-v2-6",
            "status": status,
            "payload": {**self.payload, "cfg_scale": 0.5} if self.has_echo else {},
            "outcome": outcome,
            "created_at": int(EPOCH + self.created + skew),
        }


@attrs.define(eq=False)
class Service:
    """Answers by timers, so it processes a call even after its sender was killed."""

    conditions: Conditions
    rng: random.Random
    on_accepted: Callable[[Job], None]
    jobs: dict[str, Job] = attrs.field(factory=dict)
    quiet_after: float = 0.0
    """The time from which no sent POST is still to arrive, and no row is still to appear."""
    _last_answers: dict[str, Reply] = attrs.field(factory=dict)
    """By process, the last answer to a POST."""
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)

    def __attrs_post_init__(self) -> None:
        for number in range(self.conditions.strangers):
            prompt = {"prompt": "a cat" if number % 3 else f"stranger {number}"}
            created = self.now - 400 - 10 * number
            job = Job(
                id=f"old-{number}", post=None, payload=prompt, created=created, begins=created, ends=created
            )
            self.jobs[job.id] = job

    @property
    def now(self) -> float:
        return self._loop.time()

    def end_faults(self) -> None:
        """End all faults, also of jobs that never end."""
        self.conditions = attrs.evolve(self.conditions, rates={}, outages=(), refusals=())
        for job in self.jobs.values():
            if job.ends == _NEVER:
                job.ends = self.now + 10

    def receive(
        self,
        request: Request,
        *,
        post: Post | None = None,
        on_shown: Callable[[Job], None] = lambda _: None,
    ) -> asyncio.Future[Answer]:
        """The answer to come to a request.

        Args:
            request: As it was sent.
            post: For a paid one, what is known of it.
            on_shown: Told of each row of a list.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        url = urlsplit(request.url)
        path = url.path.removeprefix(QUEUE_PATH)
        delay = self.rng.choice((0.02, 0.2, self.rng.uniform(0.0, 3.0)))
        if post is not None:
            self._post(post, future, delay, request.timeout)
        elif delay >= request.timeout:
            self._loop.call_later(request.timeout, _resolve, future, APITimeoutError("no answer"))
        elif path == "/requests":
            self._loop.call_later(delay, self._list, future, parse_qs(url.query), on_shown)
        else:
            self._loop.call_later(delay, self._status, future, unquote(path.rpartition("/")[2]))
        return future

    def _is_out(self) -> bool:
        return any(begin <= self.now < end for begin, end in self.conditions.outages)

    def _post(self, post: Post, future: asyncio.Future[Answer], delay: float, timeout: float) -> None:
        fault = self.conditions.pick_fault("post", POST_FAULTS, self.rng)
        if self._is_out():
            fault = self.rng.choice(("refused", "lost", "failing"))
        answer, later = None, self._loop.call_later
        accepted_at, answered_at = delay, delay + self.rng.choice((0.001, 0.5))
        if fault in {"refused", "throttled", "denied", "broke"}:
            post.verdict, answer = "refused", self._refusal(fault)
        elif fault in {"lost", "unheard", "late"}:
            answered_at = min(self.rng.choice((answered_at, timeout)), timeout)
            answer = APIConnectionError("reset") if answered_at < timeout else APITimeoutError("no answer")
            if fault == "late":
                accepted_at = answered_at + self.rng.choice((1, 20, 45, 200)) * self.rng.random()
        elif fault in {"failing", "lying"}:
            answer = self.rng.choice(_FAILURES)
        else:
            post.verdict = "answered"
        if post.verdict != "refused" and fault not in {"lost", "failing"}:
            later(accepted_at, self._accept, post, fault == "late")
            self.quiet_after = max(self.quiet_after, self.now + accepted_at)
        later(answered_at, self._answer, post, future, answer, fault)

    def _refusal(self, fault: str) -> Answer:
        """An answer that proves that the POST was not accepted."""
        if fault == "refused":
            return APIConnectionError("refused", was_sent=False)
        if fault == "throttled":
            return self._throttle()
        if fault == "denied":
            return reply(400, {"error": "Content rejected"})
        return reply(402, {"error": "No credits"})

    def _answer(
        self, post: Post, future: asyncio.Future[Answer], answer: Answer | None, fault: str | None
    ) -> None:
        if answer is None:
            assert post.job is not None
            record = post.job.record(self.now, skew=self.conditions.skew)
            answer = reply(200, {"request_id": post.job.id} if fault == "odd" else record)
            if fault == "doubled" and post.process in self._last_answers:
                answer, post.verdict = self._last_answers[post.process], "unknown"
            self._last_answers[post.process] = answer
        _resolve(future, answer)

    def _accept(self, post: Post, is_late: bool) -> None:
        fault = self.conditions.pick_fault("job", JOB_FAULTS, self.rng)
        now, rng = self.now, self.rng
        begins = now + rng.choice((0.0, rng.uniform(0, 20)))
        ends = begins + rng.choice((0.0, rng.uniform(1, 20), rng.lognormvariate(3.5, 0.5)))
        job = Job(
            id=f"job-{next(self._numbers)}",
            post=post,
            payload=post.payload,
            created=now,
            begins=begins,
            ends=_NEVER if fault == "sticks" else ends,
            final={"fails": "failed", "is throttled": "failed", "is cancelled": "cancelled"}.get(
                fault or "", "success"
            ),
            error=RATE_LIMIT if fault == "is throttled" else None,
            shows={"shows late": now + rng.choice((3, 25, 100)), "never shows": _NEVER}.get(fault or "", now),
            vanishes=now + rng.uniform(1, 60) if fault == "vanishes" else _NEVER,
            has_echo=fault != "has no echo",
            is_late=is_late,
        )
        post.job = self.jobs[job.id] = job
        self.quiet_after = max(self.quiet_after, job.shows if job.shows < _NEVER else 0.0)
        self.on_accepted(job)

    def _throttle(self) -> Reply:
        headers = self.rng.choice(({}, {"retry-after": "3"}, {"retry-after": "20"}))
        return reply(429, {"error": "Too many requests"}, headers)

    def _fail_call(self, kind: str, faults: tuple[str, ...], future: asyncio.Future[Answer]) -> str | None:
        """Answer a call with a failure if one happens now; returns the fault."""
        fault = self.conditions.pick_fault(kind, faults, self.rng)
        if self._is_out():
            fault = self.rng.choice(("cut", "failing", "refused"))
        if fault == "cut":
            _resolve(future, APIConnectionError("reset"))
        elif fault == "refused":
            _resolve(future, APIConnectionError("refused", was_sent=False))
        elif fault == "failing":
            _resolve(future, self.rng.choice(_FAILURES))
        elif fault == "throttled":
            _resolve(future, self._throttle())
        return fault

    def _status(self, future: asyncio.Future[Answer], id_: str) -> None:
        fault = self._fail_call("status", STATUS_FAULTS, future)
        if future.done():
            return
        job, now = self.jobs.get(id_), self.now
        if job is None or now >= job.vanishes or fault == "unseen":
            _resolve(future, reply(404, {"error": "Request not found"}))
            return
        seen = max(job.created, now - self.rng.uniform(0, 20)) if fault == "stale" else now
        record = job.record(seen, skew=self.conditions.skew)
        if fault == "unknown status" and seen < job.ends:
            record["status"] = "rendering"
        _resolve(future, reply(200, record))

    def _list(
        self,
        future: asyncio.Future[Answer],
        query: dict[str, list[str]],
        on_shown: Callable[[Job], None],
    ) -> None:
        self._fail_call("list", CALL_FAULTS, future)
        if future.done():
            return
        now, conditions = self.now, self.conditions
        if any(begin <= now < end for begin, end in conditions.refusals):
            _resolve(future, reply(self.rng.choice((403, 404, 500)), {"error": "no list"}))
            return
        listed = [job for job in self.jobs.values() if job.shows <= now < job.vanishes]
        listed.sort(key=lambda job: job.created, reverse=conditions.order == "newest")
        if conditions.order == "mixed":
            random.Random(len(listed)).shuffle(listed)  # noqa: S311
        offset = int(query["offset"][0])
        limit = min(int(query["limit"][0]), conditions.rows)
        page = listed[offset : offset + limit]
        envelope: dict[str, Any] = {"requests": [job.record(now, skew=conditions.skew) for job in page]}
        if conditions.has_total:
            envelope["total"] = len(listed)
        if conditions.has_more:
            envelope["has_more"] = offset + limit < len(listed)
        for job in page:
            on_shown(job)
        _resolve(future, reply(200, envelope))


def request_text(model: str, payload: dict[str, Any]) -> str:
    """Model and payload as text; equal for equal requests, also in another spelling."""
    return json.dumps([model, strip_prompt(payload)], sort_keys=True)


def strip_prompt(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload with the prompt as a reader sees it."""
    return {**payload, "prompt": payload["prompt"].strip()}


def _resolve(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
