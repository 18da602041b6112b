"""The emulated queue as a world has it: behind faults, and with its answers after a delay."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import attrs
from virtual_service import Service, reply

from kling_async import APIConnectionError, APITimeoutError
from kling_async._transport.base import Reply, Request
from kling_async._wire.endpoints import QUEUE_PATH
from kling_async.emulator import RATE_LIMITED, JobScript, Status
from kling_async.emulator import Job as EmulatedJob

from .jobs import Job, Post
from .scenario import CALL_FAULTS, JOB_FAULTS, POST_FAULTS, STATUS_FAULTS, Conditions

Answer: TypeAlias = Reply | Exception
_OK = 200
_NEVER = float("inf")
_GARBAGE = (reply(200, b'{"request_id": "half'), reply(200, b"<html>ok</html>"), reply(302, b""))
_FAILURES = (reply(500, {"error": "Backend error"}), reply(502, b"<html>"), reply(408, b""), *_GARBAGE)


@attrs.define(eq=False)
class FaultyService:
    """The emulated queue behind faults. It answers by timers, so it processes a call even after its sender was killed."""

    conditions: Conditions
    rng: random.Random
    on_accepted: Callable[[Job], None]
    jobs: dict[str, Job] = attrs.field(factory=dict)
    quiet_after: float = 0.0
    """The time from which no sent POST is still to arrive, and no row is still to appear."""
    _emulated: Service = attrs.field(init=False)
    _last_answers: dict[str, Reply] = attrs.field(factory=dict)
    """By process, the last answer to a POST."""
    _loop: asyncio.AbstractEventLoop = attrs.field(factory=asyncio.get_running_loop)

    def __attrs_post_init__(self) -> None:
        conditions = self.conditions
        self._emulated = Service(
            script=self._make_script,
            rows=conditions.rows,
            order="random" if conditions.order == "mixed" else conditions.order,
            has_total=conditions.has_total,
            has_more=conditions.has_more,
            ahead=conditions.skew,
        )
        for number in reversed(range(conditions.strangers)):
            self._put(
                EmulatedJob(
                    number=0,
                    request_id=f"old-{number}",
                    model="kling-v2-6",
                    payload={"prompt": "a cat" if number % 3 else f"stranger {number}"},
                    organization_id="org",
                    statuses=(Status.SUCCESS,),
                    status_times=(self.now - 400 - 10 * number,),
                )
            )

    def _put(self, job: EmulatedJob) -> None:
        """Add a job of others, or change the future of a job."""
        self._emulated.queue.put(job)
        known = self.jobs.setdefault(job.request_id, Job(emulated=job))
        known.emulated = job

    @property
    def now(self) -> float:
        return self._loop.time()

    def end_faults(self) -> None:
        """End all faults, also of jobs that never end."""
        self.conditions = attrs.evolve(self.conditions, rates={}, outages=(), refusals=())
        for job in [job.emulated for job in self.jobs.values() if job.ends == _NEVER]:
            end = max(self.now, job.status_times[-1]) + 10
            self._put(
                attrs.evolve(
                    job,
                    statuses=(*job.statuses, Status.SUCCESS),
                    status_times=(*job.status_times, end),
                )
            )

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
            self._loop.call_later(delay, self._list, future, request, on_shown)
        else:
            self._loop.call_later(delay, self._status, future, request)
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
            post.has_connection = fault != "refused"
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
            record = self._emulated.record(post.job.emulated)
            answer = reply(200, {"request_id": post.job.id} if fault == "odd" else record)
            if fault == "doubled" and post.process in self._last_answers:
                answer, post.verdict = self._last_answers[post.process], "unknown"
            self._last_answers[post.process] = answer
        _resolve(future, answer)

    def _accept(self, post: Post, is_late: bool) -> None:
        # The service adds its defaults to the payload.
        payload = {**post.payload, "cfg_scale": 0.5}
        emulated = self._emulated.accept(payload, organization_id=post.organization)
        job = Job(emulated=emulated, post=post, is_late=is_late or post.is_belated)
        post.job = self.jobs[job.id] = job
        if emulated.shows_at < _NEVER:
            self.quiet_after = max(self.quiet_after, emulated.shows_at)
        self.on_accepted(job)

    def _make_script(self, number: int) -> JobScript:
        """What happens to the job with this number, from 0."""
        fault, rng = self.conditions.pick_fault("job", JOB_FAULTS, self.rng), self.rng
        queue_time = rng.choice((0.0, rng.uniform(0, 20)))
        run_time = rng.choice((0.0, rng.uniform(1, 20), rng.lognormvariate(3.5, 0.5)))
        changes: Mapping[str, Mapping[str, Any]] = {
            "fails": {"ending": "failed"},
            "is throttled": {"ending": "failed", "error": RATE_LIMITED},
            "is cancelled": {"ending": "cancelled", "queue_time": queue_time + run_time},
            "sticks": {"ending": "stuck_processing"},
            "vanishes": {"lifetime": rng.uniform(1, 60)},
            "shows late": {"list_delay": rng.choice((3.0, 25.0, 100.0))},
            "never shows": {"list_delay": _NEVER},
            "has no echo": {"payload_echo": False},
        }
        script = JobScript(request_id=f"job-{number + 1}", queue_time=queue_time, run_time=run_time)
        return attrs.evolve(script, **changes[fault]) if fault else script

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

    def _status(self, future: asyncio.Future[Answer], request: Request) -> None:
        fault = self._fail_call("status", STATUS_FAULTS, future)
        if future.done():
            return
        if fault == "unseen":
            _resolve(future, reply(404, {"error": "Request not found"}))
            return
        answer = self._emulated.answer("status", request)
        if answer.status == _OK and fault in {"stale", "unknown status"}:
            job = self.jobs[json.loads(answer.body)["request_id"]].emulated
            seen = max(job.accepted_at, self.now - self.rng.uniform(0, 20)) if fault == "stale" else self.now
            record = self._emulated.record(job, at=seen)
            if fault == "unknown status" and seen < job.final_at:
                record["status"] = "rendering"
            answer = reply(_OK, record)
        _resolve(future, answer)

    def _list(
        self, future: asyncio.Future[Answer], request: Request, on_shown: Callable[[Job], None]
    ) -> None:
        self._fail_call("list", CALL_FAULTS, future)
        if future.done():
            return
        if any(begin <= self.now < end for begin, end in self.conditions.refusals):
            _resolve(future, reply(self.rng.choice((403, 404, 500)), {"error": "no list"}))
            return
        page = self._emulated.call("list", request)
        for row in page["requests"]:
            on_shown(self.jobs[row["request_id"]])
        _resolve(future, reply(_OK, page))


def _resolve(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
