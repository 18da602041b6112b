"""Lost replies of paid POSTs, settled by the service's own list: found and adopted, or left ambiguous, never guessed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anyio
import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.submit.list_jobs import read_since
from kling_async._policy.matching import (
    CLOCK_SKEW,
    LostSubmit,
    could_match,
    earliest,
    lookup_delays,
    match_jobs,
    since_first,
)
from kling_async._policy.recent_job_ids import RecentJobIds
from kling_async._policy.retry import backoff, is_transient
from kling_async.errors import AmbiguousSubmitError, KlingError
from kling_async.jobs import Job

_MOST_NOT_FOUND = 1000
"""Lost replies of callers without a journal that are remembered, so that no later one takes their jobs."""
_MOST_SHOWN = 10_000
"""Rows of a model's list that are remembered while nothing is sought."""


@attrs.define(eq=False, kw_only=True)
class Case:
    """One lost reply under inquiry."""

    model: str
    lost: LostSubmit
    sent_at: float
    """Unix seconds before the POST."""
    error: KlingError
    """What the POST ended with."""
    unsought: Callable[[str], Iterable[LostSubmit]] | None = None
    """Given a model, its lost replies in the caller's journal for which nobody looks now; None without a journal."""
    has_job: Callable[[str], bool] = lambda _: False
    """Whether the caller's journal knows a job."""
    job: Job | None = None
    """What was found."""
    looked_at: float = float("-inf")
    """When the last lookup began that it was part of, by the engine's clock."""
    is_found: anyio.Event = attrs.field(factory=anyio.Event)


@attrs.define(eq=False)
class Reconciler:
    """Looks for the jobs of lost replies, for all batches of the client at once, so that none adopts another's.

    While a reply is looked for, no request is sent that might be taken for it: what the list then shows can be
    told apart by number.
    """

    caller: ApiCaller
    take_turn: Callable[[float], float]
    """Given the time, the seconds until the client's rate of polls allows a call."""
    wait_timeout: float | None
    """Seconds after which an outage ends the looking."""
    claims: RecentJobIds = attrs.field(init=False)
    _cases: list[Case] = attrs.field(init=False, factory=list)
    _not_found: deque[tuple[str, LostSubmit]] = attrs.field(
        init=False, factory=lambda: deque(maxlen=_MOST_NOT_FOUND)
    )
    """By model, what no journal remembers."""
    _shown: defaultdict[str, dict[str, Job]] = attrs.field(init=False, factory=lambda: defaultdict(dict))
    """By model, what its list has shown in any inquiry, and be it cut off: a list that changes may skip a row in the next."""
    _in_flight: dict[int, tuple[str, Mapping[str, Any]]] = attrs.field(init=False, factory=dict)
    """By the identity of the payload."""
    _looking: anyio.Lock = attrs.field(init=False, factory=anyio.Lock)
    _changed: anyio.Event = attrs.field(init=False, factory=anyio.Event)

    def __attrs_post_init__(self) -> None:
        self.claims = RecentJobIds(self.caller.timeout + 2 * CLOCK_SKEW)

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
            case.model == model and could_match(payload, case.lost.payload) for case in self._cases
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
        if case.job is None and case.unsought is None:
            self._not_found.append((case.model, case.lost))
        if not self._cases:
            for shown in self._shown.values():
                for request_id in list(shown)[:-_MOST_SHOWN]:
                    del shown[request_id]
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
                if not is_transient(error) or (self.wait_timeout is not None and waited > self.wait_timeout):
                    return f"the list cannot be had: {error.message.rstrip('.')}"
                delays[0] = backoff(self.caller.retry, attempt=failures, chance=self.caller.dice.random())
                failures += 1
            else:
                delays.pop(0)
        return "the list does not show it, or more than one that it may be"

    def _is_quiet(self, case: Case) -> bool:
        """Whether no POST is in flight whose job might be taken for the lost one."""
        return not any(
            model == case.model and could_match(payload, case.lost.payload)
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
            sought = [one for one in cases if self._is_quiet(one)]  # and so they stay
            lost, others = [one.lost for one in sought], self._others(cases)
            shown = self._shown[case.model]

            def show(rows: Iterable[Job]) -> None:
                shown.update((job.request_id, job) for job in since_first([*lost, *others], rows))

            since = earliest(lost, others)
            await read_since(self.caller, case.model, since=since, turn=self._turn, show=show)
            found = match_jobs(lost, shown.values(), others=others, is_claimed=self._is_claimed(cases))
            for place, one in enumerate(sought):
                one.looked_at = began
                if place in found and one in self._cases:
                    one.job = found[place]
                    self.claim(one.job.request_id)
                    one.is_found.set()

    def _others(self, cases: list[Case]) -> list[LostSubmit]:
        """What was lost too and cannot be sought now, or is sought by nobody; a journal tells it once."""
        model = cases[0].model
        unquiet = [case.lost for case in cases if not self._is_quiet(case)]
        not_found = [lost for about, lost in self._not_found if about == model]
        journals = dict.fromkeys(case.unsought for case in cases if case.unsought)
        return [*unquiet, *not_found, *(lost for unsought in journals for lost in unsought(model))]

    def _is_claimed(self, cases: list[Case]) -> Callable[[str], bool]:
        """Whether a job has an owner: in this client, or in a journal of the cases."""
        journals = {case.has_job for case in cases}
        return lambda request_id: (
            request_id in self.claims or any(has_job(request_id) for has_job in journals)
        )

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
