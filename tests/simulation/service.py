"""A model of the service: what it does with a call, and when its answer comes, if it does."""

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

from .plan import CALL_FAULTS, JOB_FAULTS, POST_FAULTS, STATUS_FAULTS, Weather

Answer: TypeAlias = Reply | Exception
RATE_LIMIT = "rate limit exceeded(RPM)"
_NEVER = float("inf")
_GARBAGE = (reply(200, b'{"request_id": "half'), reply(200, b"<html>ok</html>"), reply(302, b""))
_FAILURES = (reply(500, {"error": "Backend error"}), reply(502, b"<html>"), reply(408, b""), *_GARBAGE)


@attrs.define(eq=False, kw_only=True)
class Post:
    """One paid POST that left a process."""

    line: int
    """Whose it is: the number of the journal."""
    process: str
    payload: dict[str, Any]
    what: str
    """Model and payload, as text: what makes two of them alike."""
    sent: float
    fate: str = "in flight"
    """in flight, refused (surely not accepted), answered (its id was told) or unknown."""
    verdict: str = "unknown"
    """What its fate is once the process has heard the answer."""
    job: Job | None = None


@attrs.define(eq=False, kw_only=True)
class Job:
    """One accepted job."""

    id: str
    post: Post | None
    """None for a job of others."""
    payload: dict[str, Any]
    created: float
    begins: float
    ends: float
    final: str = "success"
    error: str | None = None
    shows: float = 0.0
    """From when its row is in the list."""
    vanishes: float = _NEVER
    has_echo: bool = True
    is_late: bool = False
    """Whether it was accepted after its process had given up."""

    def may_be_taken_for(self, what: str) -> bool:
        """Whether it has all that was asked for, and perhaps more."""
        _, payload = json.loads(what)
        return bool(payload.items() <= self.payload.items())

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
    """Answers by timers, so that it goes on with what it was sent when the sender is dead."""

    weather: Weather
    rng: random.Random
    on_accepted: Callable[[Job], None]
    jobs: dict[str, Job] = attrs.field(factory=dict)
    quiet_after: float = 0.0
    """When everything that was sent has arrived, and every row shows, if they ever will."""
    _said: dict[str, Reply] = attrs.field(factory=dict)
    """The last answer to a POST of each process."""
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)

    def __attrs_post_init__(self) -> None:
        for number in range(self.weather.strangers):
            prompt = {"prompt": "a cat" if number % 3 else f"stranger {number}"}
            created = self.now - 400 - 10 * number
            job = Job(
                id=f"old-{number}", post=None, payload=prompt, created=created, begins=created, ends=created
            )
            self.jobs[job.id] = job

    @property
    def now(self) -> float:
        return self._loop.time()

    def clear_up(self) -> None:
        """From now on nothing goes wrong; what stuck comes loose."""
        self.weather = attrs.evolve(self.weather, rates={}, outages=(), refusals=())
        for job in self.jobs.values():
            if job.ends == _NEVER:
                job.ends = self.now + 10

    def take(
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
        answer: asyncio.Future[Answer] = self._loop.create_future()
        url = urlsplit(request.url)
        path = url.path.removeprefix(QUEUE_PATH)
        delay = self.rng.choice((0.02, 0.2, self.rng.uniform(0.0, 3.0)))
        if post is not None:
            self._post(post, answer, delay, request.timeout)
        elif delay >= request.timeout:
            self._loop.call_later(request.timeout, _tell, answer, APITimeoutError("no answer"))
        elif path == "/requests":
            self._loop.call_later(delay, self._list, answer, parse_qs(url.query), on_shown)
        else:
            self._loop.call_later(delay, self._status, answer, unquote(path.rpartition("/")[2]))
        return answer

    def _is_out(self) -> bool:
        return any(begin <= self.now < end for begin, end in self.weather.outages)

    def _post(self, post: Post, answer: asyncio.Future[Answer], delay: float, timeout: float) -> None:
        fault = self.weather.draw_fault("post", POST_FAULTS, self.rng)
        if self._is_out():
            fault = self.rng.choice(("refused", "lost", "failing"))
        said, later = None, self._loop.call_later
        accepted_at, heard_at = delay, delay + self.rng.choice((0.001, 0.5))
        if fault in {"refused", "throttled", "denied", "broke"}:
            post.verdict, said = "refused", self._refusal(fault)
        elif fault in {"lost", "unheard", "late"}:
            heard_at = min(self.rng.choice((heard_at, timeout)), timeout)
            said = APIConnectionError("reset") if heard_at < timeout else APITimeoutError("no answer")
            if fault == "late":
                accepted_at = heard_at + self.rng.choice((1, 20, 45, 200)) * self.rng.random()
        elif fault in {"failing", "lying"}:
            said = self.rng.choice(_FAILURES)
        else:
            post.verdict = "answered"
        if post.verdict != "refused" and fault not in {"lost", "failing"}:
            later(accepted_at, self._accept, post, fault == "late")
            self.quiet_after = max(self.quiet_after, self.now + accepted_at)
        later(heard_at, self._answer, post, answer, said, fault)

    def _refusal(self, fault: str) -> Answer:
        """What surely accepts nothing."""
        if fault == "refused":
            return APIConnectionError("refused", was_sent=False)
        if fault == "throttled":
            return self._throttle()
        if fault == "denied":
            return reply(400, {"error": "Content rejected"})
        return reply(402, {"error": "No credits"})

    def _answer(
        self, post: Post, answer: asyncio.Future[Answer], said: Answer | None, fault: str | None
    ) -> None:
        if said is None:
            assert post.job is not None
            record = post.job.record(self.now, skew=self.weather.skew)
            said = reply(200, {"request_id": post.job.id} if fault == "odd" else record)
            if fault == "doubled" and post.process in self._said:
                said, post.verdict = self._said[post.process], "unknown"
            self._said[post.process] = said
        _tell(answer, said)

    def _accept(self, post: Post, is_late: bool) -> None:
        fault = self.weather.draw_fault("job", JOB_FAULTS, self.rng)
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
        wish = self.rng.choice(({}, {"retry-after": "3"}, {"retry-after": "20"}))
        return reply(429, {"error": "Too many requests"}, wish)

    def _fail_call(self, kind: str, faults: tuple[str, ...], answer: asyncio.Future[Answer]) -> str | None:
        """Let a call fail if it is to; else what else is wrong with it."""
        fault = self.weather.draw_fault(kind, faults, self.rng)
        if self._is_out():
            fault = self.rng.choice(("cut", "failing", "refused"))
        if fault == "cut":
            _tell(answer, APIConnectionError("reset"))
        elif fault == "refused":
            _tell(answer, APIConnectionError("refused", was_sent=False))
        elif fault == "failing":
            _tell(answer, self.rng.choice(_FAILURES))
        elif fault == "throttled":
            _tell(answer, self._throttle())
        return fault

    def _status(self, answer: asyncio.Future[Answer], id_: str) -> None:
        fault = self._fail_call("status", STATUS_FAULTS, answer)
        if answer.done():
            return
        job, now = self.jobs.get(id_), self.now
        if job is None or now >= job.vanishes or fault == "unseen":
            _tell(answer, reply(404, {"error": "Request not found"}))
            return
        seen = max(job.created, now - self.rng.uniform(0, 20)) if fault == "stale" else now
        record = job.record(seen, skew=self.weather.skew)
        if fault == "new word" and seen < job.ends:
            record["status"] = "rendering"
        _tell(answer, reply(200, record))

    def _list(
        self,
        answer: asyncio.Future[Answer],
        query: dict[str, list[str]],
        on_shown: Callable[[Job], None],
    ) -> None:
        self._fail_call("list", CALL_FAULTS, answer)
        if answer.done():
            return
        now, weather = self.now, self.weather
        if any(begin <= now < end for begin, end in weather.refusals):
            _tell(answer, reply(self.rng.choice((403, 404, 500)), {"error": "no list"}))
            return
        listed = [job for job in self.jobs.values() if job.shows <= now < job.vanishes]
        listed.sort(key=lambda job: job.created, reverse=weather.order == "newest")
        if weather.order == "mixed":
            random.Random(len(listed)).shuffle(listed)  # noqa: S311
        offset = int(query["offset"][0])
        limit = min(int(query["limit"][0]), weather.rows)
        page = listed[offset : offset + limit]
        envelope: dict[str, Any] = {"requests": [job.record(now, skew=weather.skew) for job in page]}
        if weather.has_total:
            envelope["total"] = len(listed)
        if weather.has_more:
            envelope["has_more"] = offset + limit < len(listed)
        for job in page:
            on_shown(job)
        _tell(answer, reply(200, envelope))


def kind_of(model: str, payload: Any) -> str:
    """What makes two requests alike, as text."""
    return json.dumps([model, payload], sort_keys=True)


def _tell(answer: asyncio.Future[Answer], said: Answer) -> None:
    if not answer.done():
        answer.set_result(said)
