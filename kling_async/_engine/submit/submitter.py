"""Paid POSTs: each is sent at most once unless it provably never arrived, and its answer is awaited in any case."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio

from kling_async._callbacks import SafeLogger, raise_from_loop
from kling_async._engine.api import ApiCaller
from kling_async._engine.emitter import Emitter
from kling_async._engine.shared_state import SharedState
from kling_async._engine.submit.batch_item import BatchItem
from kling_async._engine.submit.ledger import Ledger
from kling_async._engine.submit.look_alikes import LookAlikes, RegisteredPost
from kling_async._engine.submit.open_reconciliation import OpenReconciliation
from kling_async._engine.submit.owned_jobs import OwnedJobs
from kling_async._engine.submit.reconciler import Reconciler
from kling_async._engine.tasks import is_cancelled, raise_if_cancelled, run_to_end
from kling_async._policy.circuit_breaker import CircuitBreaker
from kling_async._policy.concurrency_limit import ConcurrencyLimit
from kling_async._policy.retry import throttle_delay
from kling_async._policy.service_clock import Instant
from kling_async._policy.submission import SubmitFailure, classify
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import LIST, SUBMIT, list_query
from kling_async._wire.json_reader import ShapeError
from kling_async._wire.payloads import submit_body
from kling_async.errors import APIConnectionError, APIResponseError, KlingError
from kling_async.events import Throttled
from kling_async.jobs import Job, JobStatus
from kling_async.lines import one_line
from kling_async.requests import model_of

_LOOK_INTERVAL = 1.0
"""Seconds between two looks whether the batch has stopped or an outage is over, while a submit waits for its turn."""
_log = SafeLogger("kling_async")


class Submitter:
    """The client's only way to spend money; all batches share its slots, its hourly rate and its pauses."""

    def __init__(
        self,
        api: ApiCaller,
        shared: SharedState,
        look_alikes: LookAlikes,
        owned_jobs: OwnedJobs,
        reconciler: Reconciler,
    ) -> None:
        self.api = api
        self._look_alikes = look_alikes
        self._owned_jobs = owned_jobs
        self._reconciler = reconciler
        self._submit_slots = anyio.Semaphore(shared.limits.max_concurrent_submits, fast_acquire=True)
        self._rate = shared.submit_rate
        self._poll_rate = shared.poll_rate
        self._clock_lock = anyio.Lock()
        self._line: deque[object] = deque()
        """A ticket for each submit that waits for its turn, in the order in which they came."""
        self._line_moved = anyio.Event()
        self._pauses = shared.pauses
        self._lost_streak = shared.lost_streak

    async def submit(
        self,
        payload: Mapping[str, Any],
        item: BatchItem,
        *,
        ledger: Ledger,
        limit: ConcurrencyLimit | None = None,
        breaker: CircuitBreaker | None = None,
        max_throttles: int | None = None,
    ) -> Job | OpenReconciliation:
        """The job that the service made of a request, or the reconciliation to await where the answer was lost.

        Cancelled while the POST is in flight, it waits for the answer first, so that no id is lost; the job then goes
        on at the service, and its id is in the ledger, in the log and in an event.

        Args:
            payload: The parameters as they are sent.
            item: With the request.
            ledger: Writes down the intent before each POST, and how the POST ended after.
            limit: The concurrency limit of the batch; each 429 halves it.
            breaker: Says whether the batch still submits; None outside a batch.
            max_throttles: How many 429s are waited out; None for all.

        Raises:
            APIStatusError: The service refused the request.
            APIConnectionError: No connection could be made.
            BudgetExceededError: The POST would pass the cap.
            KlingError: The batch has stopped submitting; its reason.
            JournalError: The intent could not be written to the disk.
            TakenOverError: Another process of a shared journal holds the item.
        """
        assert item.request is not None
        model = model_of(item.request)
        body = submit_body(model, payload)
        retries = self.api.retries(SUBMIT.name, ledger.emit)
        throttles = 0
        while True:
            answer = await self._send(model, payload, body, item, ledger, breaker=breaker)
            if isinstance(answer, Job | OpenReconciliation):
                return answer
            failure = classify(answer)
            if failure is SubmitFailure.NOT_SENT:
                await retries.wait_or_raise(answer)
            elif failure is SubmitFailure.THROTTLED and (max_throttles is None or throttles < max_throttles):
                throttles += 1
                self.pause(answer, ledger.emit, limit=limit, throttles_before=self._pauses.throttles_in_a_row)
                self._pauses.throttles_in_a_row += 1
            else:
                raise answer

    async def _send(
        self,
        model: str,
        payload: Mapping[str, Any],
        body: bytes,
        item: BatchItem,
        ledger: Ledger,
        *,
        breaker: CircuitBreaker | None,
    ) -> Job | OpenReconciliation | KlingError:
        """How one POST ended, which is sent when its turn has come.

        The error of a POST that was not accepted is returned: `submit` decides whether the POST is sent again. Each step that can
        hold the POST back is a line of its own; docs/explanation/money.md says why they come in this order.

        Raises:
            KlingError: The batch has stopped meanwhile; its reason.
        """
        while True:
            await self._look_alikes.wait_unblocked(model, payload)
            self._report_outage(ledger)  # to wait for a slot is to wait for those that have one
            async with self._submit_slots:
                if ledger.journal is not None:
                    await self._fetch_time(model)
                await self._wait_turn(ledger, breaker)
                await raise_if_cancelled()
                # Since the end of the wait nothing is awaited: no lost submit comes between the check and the registration.
                post = self._look_alikes.register_post(model, payload)
                if post is None:
                    ledger.put_back_turn()
                    continue
                outage_turn = self._take_turn()
                is_sent = False
                try:
                    if await ledger.reserve_post(item, payload):
                        await ledger.record_intent(
                            item, payload, now=self.api.instant, post_timeout=self.api.timeout
                        )
                        is_sent = True
                        answer = await run_to_end(self._post(post, body, item, ledger))
                        is_sent = not _is_not_sent(answer)
                        return answer
                finally:
                    if not is_sent:
                        self._put_back_turn(ledger, outage_turn)
                    self._look_alikes.end_post(post)
                    ledger.end_post(item)
            await ledger.wait_changed()

    async def _fetch_time(self, model: str) -> None:
        """Learn the service's clock before the first intent, if a cheap call can, and again after a clock change.

        A later process may have to find the job by the time of the intent, on another machine, or after the clock of this one
        was set.
        """
        service_clock = self.api.service_clock
        if not service_clock.wants_call(self.api.instant()):
            return
        async with self._clock_lock:
            if not service_clock.wants_call(began := self.api.instant()):
                return  # the task that had the lock has made the call
            await self.api.wait_turn(self._poll_rate)
            with suppress(KlingError):  # if the service is away, so is the submit
                await self.api.fetch(LIST, query=list_query(model, limit=1))
            service_clock.record_call(began)

    async def _wait_turn(self, ledger: Ledger, breaker: CircuitBreaker | None) -> None:
        """Wait for the end of a pause, the hourly limit, and the turn in an outage, unless the batch has stopped.

        This only looks, and `_take_turn` takes the turns of the client where the POST leaves: the first in the line, so that they
        leave in the order in which they came. The turn of a shared journal is taken here, for to take it takes time.
        """
        clock, shared_turn_at, ticket = self.api.clock, None, object()
        self._line.append(ticket)
        try:
            while True:
                _raise_if_stopped(breaker)
                self._report_outage(ledger)
                now = clock.now()
                rest = max(
                    self._pauses.until - now,
                    self._rate.wait(now),
                    self._lost_streak.next_at - now,
                    0.0 if shared_turn_at is None else shared_turn_at - now,
                )
                if self._line[0] is not ticket:
                    with anyio.move_on_after(_LOOK_INTERVAL):
                        await self._line_moved.wait()
                elif rest > 0:
                    await clock.sleep(min(rest, _LOOK_INTERVAL))
                elif shared_turn_at is None:
                    rest = await ledger.take_turn(self._rate)
                    shared_turn_at = clock.now() + rest
                else:
                    return
        finally:
            self._line.remove(ticket)
            if self._line:
                self._line_moved.set()
                self._line_moved = anyio.Event()

    def _report_outage(self, ledger: Ledger) -> None:
        """Emit that an outage holds submits back, once for each turn that another submit has taken."""
        now, streak = self.api.clock.now(), self._lost_streak
        if streak.last_error is not None and streak.next_at > max(now, ledger.held_back_until):
            ledger.held_back_until = streak.next_at
            ledger.emit(Throttled, delay=streak.next_at - now, error=streak.last_error)

    def _take_turn(self) -> float | None:
        """Take a turn of the hourly limit and of an outage for a POST that leaves now; the turn of the outage, if there is one."""
        now = self.api.clock.now()
        self._rate.take(now)
        return self._lost_streak.take_turn(now)

    def _put_back_turn(self, ledger: Ledger, outage_turn: float | None) -> None:
        """Put back the turns of a POST that did not reach the network, so that another one can leave."""
        self._rate.put_back()
        self._lost_streak.put_back_turn(outage_turn)
        ledger.put_back_turn()

    async def _post(
        self, post: RegisteredPost, body: bytes, item: BatchItem, ledger: Ledger
    ) -> Job | OpenReconciliation | KlingError:
        """Send one POST and record how it ended.

        Between the answer and its record, nothing is awaited and no code of the caller runs: the ledger changes values in
        memory, and the journal commits them later. Listeners and the log hear of the job after the record.
        """
        job: Job | None
        error: KlingError | None
        sent = self.api.instant()  # the process may have stood still since the registration
        try:
            job, error = await self.api.send(SUBMIT, structure_job, body=body), None
        except KlingError as failure:
            job, error = _salvage_job(failure, post.model), failure
        except BaseException as failure:
            # The event loop ends, for `asyncio.run` cancels every task that is left; or a transport of the caller raises.
            has_ended = is_cancelled()
            what = "the event loop ended" if has_ended else f"the transport raised {type(failure).__name__}"
            job, error = None, APIConnectionError(f"submit: {what} before the answer came")
            error.__cause__ = failure
            if isinstance(failure, KeyboardInterrupt | SystemExit):
                raise_from_loop(failure)
            if has_ended:
                self._record_lost(post, error, item, ledger, sent=sent)
                _log.warning("%s; the service may have accepted the request (%s)", error, post.model)
                raise
        if job is not None and not self._owned_jobs.assign_answered(job, ledger.journal):
            # As where a proxy answers one call twice: the job of this POST has another id.
            error = APIResponseError(
                f"submit: the service answered with {self.api.secret.hide_in(job.request_id)!r}, another submit's job"
            )
            job = None
        if job is not None:
            self._record_accepted(post, job, item, ledger)
            return job
        assert error is not None
        return self._record_failure(post, error, item, ledger, sent=sent)

    def _record_accepted(self, post: RegisteredPost, job: Job, item: BatchItem, ledger: Ledger) -> None:
        """The service accepted the POST: no throttling holds any more, and the job is the item's."""
        self._pauses.throttles_in_a_row = 0
        self._lost_streak.record_answer()
        try:
            ledger.record_accepted(item, job)
        finally:  # also if the journal refuses the job: the log keeps the id
            _log.info("submitted job %s (%s)", one_line(job.request_id), post.model)

    def _record_failure(
        self, post: RegisteredPost, error: KlingError, item: BatchItem, ledger: Ledger, *, sent: Instant
    ) -> OpenReconciliation | KlingError:
        """The POST ended without a job: begin a reconciliation if there may be one, else note that it was not accepted."""
        meaning = classify(error)
        if meaning is SubmitFailure.UNKNOWN:
            begins_outage = self._lost_streak.record_lost(error)
            reconciliation = self._record_lost(post, error, item, ledger, sent=sent)
            if begins_outage:
                _log.warning(
                    "ten submits in a row had no answer: one leaves every 30 s until the service takes or refuses one"
                )
            return reconciliation
        if meaning is SubmitFailure.REFUSED:
            self._lost_streak.record_answer()
        ledger.record_not_accepted(item, error)
        return error

    def _record_lost(
        self, post: RegisteredPost, error: KlingError, item: BatchItem, ledger: Ledger, *, sent: Instant
    ) -> OpenReconciliation:
        """Begin the reconciliation of a POST whose answer is lost; its money counts as spent."""
        item.reconciliation = self._reconciler.begin_for_post(
            post, error, sent=sent, journal=ledger.journal, entry_number=item.entry_number
        )
        ledger.count_lost_submit(item, error)
        return item.reconciliation

    def pause(
        self, error: KlingError, emit: Emitter, *, limit: ConcurrencyLimit | None, throttles_before: int
    ) -> None:
        """Hold back all submits of the client after one sign of throttling, and halve the batch's concurrency limit.

        Args:
            error: What the service said; a time that it names is the length of the pause.
            emit: For the event of the pause.
            limit: The concurrency limit of the batch; None outside a batch.
            throttles_before: How many such signs there were in a row; the pause grows with them.
        """
        clock, jitter = self.api.clock, self.api.rng.random()
        delay = throttle_delay(self.api.retry, error, throttles_before=throttles_before, jitter=jitter)
        self._pauses.until = max(self._pauses.until, clock.now() + delay)
        emit(Throttled, delay=delay, error=error)
        if limit is not None:
            limit.shrink(now=clock.now(), pause=delay)


def _raise_if_stopped(breaker: CircuitBreaker | None) -> None:
    if breaker is not None and breaker.reason is not None:
        raise breaker.reason


def _is_not_sent(answer: Job | OpenReconciliation | KlingError) -> bool:
    """Whether this is the end of a POST that provably did not reach the network."""
    return isinstance(answer, KlingError) and classify(answer) is SubmitFailure.NOT_SENT


def _salvage_job(error: KlingError, model: str) -> Job | None:
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
