"""Lost replies of paid POSTs, settled by the service's own list: found and adopted, or left ambiguous, never guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import attrs

from kling_async._engine.call import Caller
from kling_async._engine.pages import rows_since
from kling_async._policy.claims import Claims
from kling_async._policy.lookup import CLOCK_SKEW, Lost, adoptable, lookup_delays, may_be_confused
from kling_async._policy.retry import backoff, is_passing
from kling_async.errors import AmbiguousSubmitError, KlingError
from kling_async.models import Job


@attrs.define(eq=False, kw_only=True)
class Case:
    """One lost reply under inquiry."""

    model: str
    lost: Lost
    sent_at: float
    """Unix seconds before the POST."""
    error: KlingError
    """What the POST ended with."""
    known: Callable[[], Sequence[Lost]] = lambda: ()
    """All lost replies of the model that the caller's journal knows of, this one included."""
    owns: Callable[[str], bool] = lambda _: False
    """Whether the caller's journal knows a job."""
    job: Job | None = None
    """What was found."""
    looked_at: float = float("-inf")
    """When the last lookup began that it was part of, by the engine's clock."""
    is_found: anyio.Event = attrs.field(factory=anyio.Event)


@attrs.define(eq=False)
class Settler:
    """Looks for the jobs of lost replies, for all batches of the client at once, so that none adopts another's.

    While a reply is looked for, no request is sent that might be taken for it: what the list then shows can be
    told apart by number.
    """

    caller: Caller
    take_turn: Callable[[float], float]
    """Given the time, the seconds until the client's rate of polls allows a call."""
    wait_timeout: float | None
    """Seconds after which an outage ends the looking."""
    claims: Claims = attrs.field(init=False)
    _cases: list[Case] = attrs.field(init=False, factory=list)
    _in_flight: dict[int, tuple[str, Mapping[str, Any]]] = attrs.field(init=False, factory=dict)
    """By the identity of the payload."""
    _looking: anyio.Lock = attrs.field(init=False, factory=anyio.Lock)
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    def __attrs_post_init__(self) -> None:
        self.claims = Claims(self.caller.timeout + 2 * CLOCK_SKEW)

    def claim(self, request_id: str) -> bool:
        """A job has its owner from now on; False if it had one."""
        return self.claims.add(request_id, now=self.caller.clock.now(), keep=bool(self._cases))

    def departs(self, model: str, payload: Mapping[str, Any]) -> None:
        """A POST is about to leave."""
        self._in_flight[id(payload)] = model, payload

    def arrives(self, payload: Mapping[str, Any]) -> None:
        """A POST has ended, however."""
        del self._in_flight[id(payload)]
        if self._cases:
            self._tell()

    def is_held(self, model: str, payload: Mapping[str, Any]) -> bool:
        """Whether a request must not be sent now, because its job might be taken for one under inquiry."""
        return bool(self._cases) and any(
            case.model == model and may_be_confused(payload, case.lost.payload) for case in self._cases
        )

    async def freed(self, model: str, payload: Mapping[str, Any]) -> None:
        """Wait until such a request may be sent."""
        while self.is_held(model, payload):
            await self._changed.wait()

    def open(self, case: Case) -> None:
        """Begin an inquiry; `settle` goes through with it."""
        self._cases.append(case)

    async def settle(self, case: Case) -> Job:
        """The job of a lost reply.

        Cancelling it leaves the case as it is: unknown.

        Raises:
            AmbiguousSubmitError: The list does not show it, or shows more than one that it may be.
        """
        try:
            reason = await self._look_for(case)
        finally:
            self.give_up(case)
        if case.job is not None:
            return case.job
        raise _ambiguous(case, reason)

    def give_up(self, case: Case) -> None:
        """End an inquiry, whether or not it found anything."""
        self._cases.remove(case)
        self._tell()

    async def _look_for(self, case: Case) -> str:
        """Look again and again until it is found; else why it was not."""
        clock = self.caller.clock
        failures, began = 0, clock.now()
        delays = list(lookup_delays(clock.wall() - case.sent_at))
        while delays and case.job is None:
            with anyio.move_on_after(delays[0]):
                await case.is_found.wait()
            while not self._is_quiet(case):
                await self._changed.wait()
            try:
                await self._look(case)
            except KlingError as error:
                waited = clock.now() - began
                if not is_passing(error) or (self.wait_timeout is not None and waited > self.wait_timeout):
                    return f"the list cannot be had: {error.message.rstrip('.')}"
                delays[0] = backoff(self.caller.retry, attempt=failures, chance=self.caller.dice.random())
                failures += 1
            else:
                delays.pop(0)
        return "the list does not show it, or more than one that it may be"

    def _is_quiet(self, case: Case) -> bool:
        """Whether no POST is in flight whose job might be taken for the lost one."""
        return not any(
            model == case.model and may_be_confused(payload, case.lost.payload)
            for model, payload in self._in_flight.values()
        )

    async def _look(self, case: Case) -> None:
        """Go through the model's list, for every case of the model; one lookup serves all that wait for one."""
        clock = self.caller.clock
        wanted = clock.now()
        async with self._looking:
            if case.looked_at >= wanted or case.job is not None:
                return
            began = clock.now()
            cases = [one for one in self._cases if one.model == case.model and one.job is None]
            since = min(one.lost.since for one in cases)
            rows = await rows_since(self.caller, case.model, since=since, turn=self._turn)
            self._adopt([one for one in cases if self._is_quiet(one)], rows, began)

    def _adopt(self, cases: list[Case], rows: list[Job], began: float) -> None:
        """Give each case the row that is its own beyond doubt."""
        claimed = self.claims.all()

        def is_claimed(request_id: str) -> bool:
            return request_id in claimed or any(case.owns(request_id) for case in cases)

        lost = [case.lost for case in cases]
        known = [case.known() for case in cases]
        found = adoptable(lost, rows, known=known, is_claimed=is_claimed)
        for place, case in enumerate(cases):
            case.looked_at = began
            if (job := found.get(place)) is not None:
                self.claim(job.request_id)
                case.job = job
                case.is_found.set()

    async def _turn(self) -> None:
        clock = self.caller.clock
        await clock.sleep(self.take_turn(clock.now()))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _ambiguous(case: Case, reason: str) -> AmbiguousSubmitError:
    return AmbiguousSubmitError(
        f"submit: the service may have taken this request ({case.error.message.rstrip('.')}), and {reason}. It was "
        f"not sent again; look for it with client.list_jobs({case.model!r}) before you do, or say "
        "on_ambiguous='resend'.",
        status_code=case.error.status_code,
        body=case.error.body,
        request_id=case.error.request_id,
    )
