"""One paid request: sent at most once unless it provably never arrived, and answered even when its caller left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.submit.reconciler import Case, Reconciler
from kling_async._policy.matching import CLOCK_SKEW, LostSubmit
from kling_async._policy.rate_limit import Limits, TokenBucket
from kling_async._policy.retry import backoff
from kling_async._policy.submission import SubmitFailure, classify
from kling_async._wire.codec import ShapeError, structure_job, submit_body
from kling_async._wire.endpoints import SUBMIT
from kling_async.errors import APIResponseError, KlingError
from kling_async.events import Notifier, Retrying, Throttled
from kling_async.jobs import Job, JobStatus

_log = logging.getLogger("kling_async")

_SHORTEST_PAUSE = 1.0
"""Seconds for which nothing is submitted after a refusal that names no time."""


class Account(Protocol):
    """Who pays for a POST, and writes down what becomes of it."""

    async def record_intent(self, payload: Mapping[str, Any]) -> None:
        """Write down that a POST is about to be sent; whatever it raises prevents it."""
        ...

    def record_rejected(self, error: KlingError) -> None:
        """The POST was provably not accepted."""
        ...

    def record_accepted(self, job: Job) -> None:
        """The service took the job; told as soon as it is known, also when the caller has left meanwhile."""
        ...

    def record_unknown(self, error: KlingError) -> None:
        """The POST may have been accepted: its reply never came."""
        ...


@attrs.define(eq=False)
class Submitter:
    """The client's only way to spend money: it shares slots, the hourly rate and the pauses among all batches."""

    caller: ApiCaller
    limits: Limits
    reconciler: Reconciler
    _slots: anyio.Semaphore = attrs.field(init=False)
    _hourly: TokenBucket | None = attrs.field(init=False)
    _paused_until: float = attrs.field(init=False, default=float("-inf"))
    _pauses: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._slots = anyio.Semaphore(self.limits.max_concurrent_submits, fast_acquire=True)
        hourly = self.limits.max_submits_per_hour
        burst = min(self.limits.max_concurrent_submits, hourly) if hourly else 1.0
        self._hourly = TokenBucket(rate=hourly / 3600, burst=max(burst, 1.0)) if hourly else None

    async def submit(
        self,
        model: str,
        payload: Mapping[str, Any],
        account: Account,
        *,
        scope: anyio.CancelScope,
        notify: Notifier,
        max_throttles: int | None,
        on_throttle: Callable[[float], None] = lambda _: None,
    ) -> Job | Case:
        """The record that the service made of a request, or the case of a reply that never came.

        Cancelling the task while the POST is in flight waits for the answer first, so that no id is lost; the
        job then goes on at the service, and its id is in the log. A shield does not hold against
        `asyncio.Task.cancel()`: call it in a task that only a task group cancels.

        Args:
            model: The model's id.
            payload: The parameters as they are sent.
            account: Asked before each POST, and told what became of it.
            scope: The innermost one of the task, shielded while a POST is in flight; a new one for each costs much.
            notify: Hears of retries and pauses.
            max_throttles: How many 429s are waited out; None for all.
            on_throttle: Called with the seconds of each pause.

        Raises:
            APIStatusError: The service refused it.
            APIConnectionError: No connection could be made.
            KlingError: What the account raised.
        """
        body = submit_body(model, payload)
        unsent = throttles = 0
        while True:
            sent_at, outcome = await self._send(model, payload, body, account, scope)
            if isinstance(outcome, Job):
                self._pauses = 0
                return outcome
            failure = classify(outcome)
            if failure is SubmitFailure.UNKNOWN:
                account.record_unknown(outcome)
                return self._case(model, payload, outcome, sent_at=sent_at)
            account.record_rejected(outcome)
            if failure is SubmitFailure.THROTTLED and (max_throttles is None or throttles < max_throttles):
                throttles += 1
                on_throttle(self.pause(outcome, notify, tries=self._pauses))
                self._pauses += 1
            elif failure is SubmitFailure.NOT_SENT and unsent < self.caller.retry.max_retries:
                await self._try_again(outcome, attempt=unsent, notify=notify)
                unsent += 1
            else:
                raise outcome

    async def _send(
        self, model: str, payload: Mapping[str, Any], body: bytes, account: Account, scope: anyio.CancelScope
    ) -> tuple[float, Job | KlingError]:
        """Send one POST when its turn has come: the Unix seconds before it, and what it ended with."""
        reconciler = self.reconciler
        while True:
            if reconciler.is_held(model, payload):
                await reconciler.freed(model, payload)
            await self._take_slot()
            try:
                await self._turn()
                if reconciler.is_held(model, payload):
                    continue
                # A taker comes here from its last POST, which was shielded, without waiting for anything else.
                await anyio.lowlevel.checkpoint_if_cancelled()
                reconciler.departs(model, payload)
                try:
                    sent_at = self.caller.clock.wall()
                    await account.record_intent(payload)
                    # Once it has begun, no cancelled scope stops it.
                    scope.shield = True
                    return sent_at, await self._post(model, body, account)
                finally:
                    scope.shield = False
                    reconciler.arrives(payload)
            finally:
                self._slots.release()

    def _case(self, model: str, payload: Mapping[str, Any], error: KlingError, *, sent_at: float) -> Case:
        """The inquiry after a lost reply, begun at once so that nothing is sent that might be taken for it."""
        lost = LostSubmit(
            payload=payload, since=sent_at - CLOCK_SKEW, until=self.caller.clock.wall() + CLOCK_SKEW
        )
        case = Case(model=model, lost=lost, sent_at=sent_at, error=error)
        self.reconciler.open(case)
        return case

    async def _take_slot(self) -> None:
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            await self._slots.acquire()

    async def _turn(self) -> None:
        """Wait until the hourly rate allows one more and no pause is on."""
        clock = self.caller.clock
        if self._hourly is not None and (rest := self._hourly.take(clock.now())) > 0:
            await clock.sleep(rest)
        while (rest := self._paused_until - clock.now()) > 0:
            await clock.sleep(rest)

    async def _post(self, model: str, body: bytes, account: Account) -> Job | KlingError:
        """The job, or the error that the POST ended with."""
        outcome: Job | KlingError
        try:
            outcome = await self.caller.once(SUBMIT, structure_job, body=body)
        except KlingError as error:
            outcome = _salvaged(error, model) or error
        if not isinstance(outcome, Job):
            return outcome
        if not self.reconciler.claim(outcome.request_id):
            # As where a proxy answers one call twice: the job of this one has another id.
            return APIResponseError(
                f"submit: the service answered with {outcome.request_id!r}, another submit's job"
            )
        _log.info("submitted job %s (%s)", outcome.request_id, model)
        account.record_accepted(outcome)
        return outcome

    def pause(self, error: KlingError, notify: Notifier, *, tries: int) -> float:
        """Hold back all submits of the client after one sign of throttling; the seconds for which they wait.

        Args:
            error: What the service said; its own wish beats ours.
            notify: Hears of the pause.
            tries: How many such signs there have been in a row; the pause grows with them.
        """
        clock, caller = self.caller.clock, self.caller
        delay = error.retry_after
        if delay is None:
            delay = max(
                _SHORTEST_PAUSE, backoff(caller.retry, attempt=tries + 1, chance=caller.dice.random())
            )
        self._paused_until = max(self._paused_until, clock.now() + delay)
        if notify:
            notify(Throttled(at=clock.wall(), delay=delay, error=error))
        return delay

    async def _try_again(self, error: KlingError, *, attempt: int, notify: Notifier) -> None:
        delay = backoff(self.caller.retry, attempt=attempt, chance=self.caller.dice.random())
        if notify:
            at = self.caller.clock.wall()
            notify(Retrying(at=at, call=SUBMIT.name, attempt=attempt + 1, delay=delay, error=error))
        await self.caller.clock.sleep(delay)


def _salvaged(error: KlingError, model: str) -> Job | None:
    """The job of an answer that is odd but names an id: whatever else is wrong, that job is paid for."""
    if not isinstance(error, APIResponseError) or not isinstance(error.__cause__, ShapeError):
        return None
    record = error.__cause__.value
    if not isinstance(record, dict):
        return None
    request_id = record.get("request_id")
    if not isinstance(request_id, str) or not request_id.strip():
        return None
    return Job(request_id=request_id, model=model, status=JobStatus.UNKNOWN, raw=record)
