"""The life of one item: slot, resume or submit, reconcile, wait, record the end, save the video."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeAlias

import attrs

from kling_async._engine.batch.batch_input import InputItem
from kling_async._engine.batch.result_stream import ResultStream
from kling_async._engine.batch.resume import NextStep, Plan, plan_item
from kling_async._engine.batch.slots import Slots
from kling_async._engine.download.destination import Output
from kling_async._engine.download.output_folder import saved_file
from kling_async._engine.emitter import Emitter
from kling_async._engine.session import LoopSession, job_kind
from kling_async._engine.submit.batch_item import BatchItem, EarlierEnd
from kling_async._engine.submit.ledger import Ledger
from kling_async._engine.submit.reconciler import OpenReconciliation
from kling_async._engine.submit.uploader import Uploader
from kling_async._journal.entry import Entry
from kling_async._journal.sharing import TakenOverError
from kling_async._policy.circuit_breaker import CircuitBreaker
from kling_async._policy.outcome import error_of, state_of, state_without_end
from kling_async._policy.pace import JobKind
from kling_async._policy.submission import allows_resend, is_throttled
from kling_async.errors import (
    AmbiguousSubmitError,
    DownloadError,
    InvalidRequestError,
    JournalError,
    KlingError,
    WaitTimeoutError,
)
from kling_async.events import Downloaded, Finished, NotSubmitted, Resumed, SubmitReconciled
from kling_async.jobs import Job, JobStatus
from kling_async.paths import ObjectUrl, is_object_url
from kling_async.requests import model_of
from kling_async.results import Result, ResultState
from kling_async.types import OnAmbiguous

_MAX_RESUBMITS = 5
"""How often an item is submitted again because its job failed for a rate limit."""
_THROTTLES_OF_A_FAILED_JOB = 2
"""A job that fails for a rate limit is a stronger sign than a 429: the pause is as long as after so many 429s more."""


@attrs.define(eq=False, kw_only=True)
class BatchParts:
    """The parts that all items of a batch share."""

    session: LoopSession
    ledger: Ledger
    slots: Slots
    emit: Emitter
    output: Output | None
    """Where each finished video is saved; None saves none."""
    on_ambiguous: OnAmbiguous = "report"
    retry_failed: bool = False
    uploader: Uploader
    breaker: CircuitBreaker = attrs.field(factory=CircuitBreaker)


@attrs.frozen(eq=False)
class JobInFlight:
    """A job that the service has accepted and that has not ended."""

    job: Job
    """Its last known record."""
    kind: JobKind
    age: float = 0.0
    """Seconds since the service made the job; 0 if that is not known."""


Standing: TypeAlias = Job | JobInFlight | OpenReconciliation | None
"""Where an item stands. A job: it has ended. A job in flight: its end is awaited. A reconciliation: its answer is lost. None:
it is to be submitted."""


class _UnsentError(Exception):
    """An item cannot be sent, or cannot be sent again."""

    def __init__(self, reason: KlingError) -> None:
        super().__init__(reason)
        self.reason = reason


async def run_item(parts: BatchParts, input_item: InputItem, results: ResultStream) -> None:
    """Take one item from the input to its result, which goes to the result stream.

    The item holds a slot of the concurrency limit when this begins. The slot is freed here, once, when the job has
    ended and before its video is saved.
    """
    item = BatchItem(
        index=input_item.index,
        request=input_item.request,
        digests=input_item.digests,
        input_entry=input_item.entry,
    )
    plan, invalid = input_item.plan, input_item.error
    del input_item  # with its entry: see `_run_job`
    before_takeover: Result | None = None
    try:
        try:
            end = None
            while end is None or await parts.ledger.is_job_taken(item):
                before_takeover = _interrupted_result(parts, item)
                item.forget()
                if invalid is not None:
                    raise _UnsentError(invalid)
                end = await _run_job(parts, item, await _find_standing(parts, item, plan, results))
        except asyncio.CancelledError:
            if (left := _interrupted_result(parts, item) or before_takeover) is not None:
                results.put_interrupted(left)
            raise
        finally:
            if item.has_slot:
                parts.slots.free()
            if item.reconciliation is not None:
                parts.session.reconciler.end(item.reconciliation)
        results.put(await _finish(parts, item, end, results))
    except _UnsentError as error:
        if before_takeover is not None and isinstance(error.reason, JournalError):
            results.put(before_takeover)  # the journal does not say what became of what this process has sent
            _emit_finished(parts, before_takeover)
        else:
            results.put(_report_unsent(parts, item, error.reason))
    finally:
        parts.ledger.release(item)


async def _finish(
    parts: BatchParts, item: BatchItem, outcome: Job | KlingError, results: ResultStream
) -> Result:
    """The result of an item whose job has ended, with its video saved."""
    result = _make_result(parts, item, outcome)
    earlier = item.earlier_end
    if earlier is not None and earlier.path is not None and result.ok:
        result = attrs.evolve(result, path=earlier.path)
    else:
        parts.ledger.record_end(item, result)
    _emit_finished(parts, result)
    is_saved = result.path is not None or (earlier is not None and earlier.is_saved_elsewhere)
    if not result.ok or is_saved or parts.output is None:
        return result
    try:
        return await _save(parts, item, result, parts.output)
    except asyncio.CancelledError:
        results.put_interrupted(result)
        raise


async def _run_job(parts: BatchParts, item: BatchItem, standing: Standing) -> Job | KlingError | None:
    """Submit, reconcile, wait: the final record of the item's job, or the error that ended it.

    No frame keeps the record of a job in flight: for a hundred thousand jobs the records would be most of the memory.

    Returns:
        None if another process has taken the item over.

    Raises:
        _UnsentError: The item cannot be sent, or cannot be sent again.
    """
    while True:
        try:
            if standing is None:
                standing = await _submit(parts, item)
            if isinstance(standing, OpenReconciliation):
                standing = await _reconcile(parts, item, standing)
                continue
            if isinstance(standing, Job):
                return standing
            wait, standing = _wait(parts, item, standing), None
            job = await wait
            if not (is_throttled(job) and item.resubmits < _MAX_RESUBMITS and not parts.breaker.reason):
                return job
            _pause_submits(parts, item, job)
            del job
        except KlingError as error:
            return error
        except TakenOverError:
            return None


async def _find_standing(
    parts: BatchParts, item: BatchItem, plan: Plan | None, results: ResultStream
) -> Standing:
    """Where the item stands by its journal entry, which this process holds then. Sets the price.

    Raises:
        _UnsentError: The item has no price, or its entry cannot be had.
    """
    try:
        item.price = parts.ledger.budget.price(item.request) if item.request is not None else None
        while (claim := await parts.ledger.claim_entry(item)).is_held_elsewhere:
            await _put_aside(parts, item, results)
    except KlingError as error:
        raise _UnsentError(error) from error
    plan = plan or plan_item(claim.entry, retry_failed=parts.retry_failed)
    return await _resume(parts, item, claim.entry, plan)


async def _put_aside(parts: BatchParts, item: BatchItem, results: ResultStream) -> None:
    """Wait while another process holds the item; meanwhile the batch goes on with others."""
    parts.slots.free()
    item.has_slot = False
    results.read_ahead.release()
    await parts.ledger.wait_claimable(item)
    await results.read_ahead.acquire()
    await parts.slots.take()
    item.has_slot = True


async def _resume(parts: BatchParts, item: BatchItem, entry: Entry | None, plan: Plan) -> Standing:
    """What the run goes on from, as the plan decides: the final job, the job in flight, the lost submit, or None."""
    decision = plan.decide(entry, is_changed_elsewhere=item.is_changed_elsewhere)
    item.can_resend = item.can_resend and decision.can_resend
    item.resubmits = max(item.resubmits, decision.repeats)
    if entry is None or decision.step is NextStep.SUBMIT:
        item.fallback_outcome = entry.job if entry is not None else None
        return None
    job = entry.job
    if job is None:
        parts.emit(Resumed, index=item.index, request_id=entry.request_id)
        assert parts.ledger.journal is not None
        item.reconciliation = parts.session.reconciler.begin_for_entry(entry, parts.ledger.journal)
        return item.reconciliation
    # First of all, the job is this item's: to look into an object store takes time, in which no lost submit is to take the job.
    parts.session.reconciler.assign_job(job.request_id, parts.ledger.journal)
    path = await (parts.output.find_saved(entry) if parts.output else _find_saved(entry))
    parts.emit(Resumed, index=item.index, request_id=entry.request_id, job=job, path=path)
    item.job_id = job.request_id
    if decision.step is NextStep.REPORT:
        is_saved_elsewhere = item.is_changed_elsewhere and entry.path is not None
        item.earlier_end = EarlierEnd(state=entry.state, path=path, is_saved_elsewhere=is_saved_elsewhere)
        return job
    return JobInFlight(job, job_kind(entry.model, entry.payload), _age(parts, job, entry.sent_at))


async def _find_saved(entry: Entry) -> Path | ObjectUrl | None:
    """The video where the entry says; a batch without an output takes the entry's word about an object store."""
    if entry.path is not None and is_object_url(entry.path):
        return ObjectUrl(entry.path)
    return saved_file(entry, None)


async def _submit(parts: BatchParts, item: BatchItem) -> JobInFlight | OpenReconciliation:
    """Submit the item: its job, or the reconciliation to await if the answer is lost.

    Raises:
        _UnsentError: The item cannot be sent, or cannot be sent again.
        TakenOverError: Another process of a shared journal holds the item.
    """
    request = item.request
    if request is None or parts.breaker.reason is not None:
        raise _UnsentError(parts.breaker.reason or _cannot_be_made(item))
    try:
        payload = await parts.uploader.payload(request, item.digests)
    except KlingError as error:
        raise _UnsentError(error) from error
    try:
        submitted = await parts.session.submitter.submit(
            payload, item, ledger=parts.ledger, limit=parts.slots.limit
        )
    except KlingError as error:
        parts.breaker.record_failure(error)
        raise _UnsentError(error) from error
    if isinstance(submitted, OpenReconciliation):
        return submitted
    parts.breaker.record_accepted()
    parts.slots.record_accepted()
    return JobInFlight(submitted, job_kind(model_of(request), payload))


async def _reconcile(
    parts: BatchParts, item: BatchItem, reconciliation: OpenReconciliation
) -> JobInFlight | None:
    """Find the job of a lost submit; None if the item is to be sent again, as the caller wants it.

    Raises:
        AmbiguousSubmitError: The list does not tell which job it is, and it is not to be sent again.
    """
    try:
        job = await parts.session.reconciler.reconcile(reconciliation, on_ambiguous=parts.on_ambiguous)
    except AmbiguousSubmitError as error:
        if not item.can_resend or not allows_resend(parts.on_ambiguous, error):
            parts.breaker.record_failure(error)
            raise
        item.can_resend, item.fallback_outcome = False, error
        return None
    except JournalError as error:
        # The list was not searched to its end, so not even `resend` sends it again in this run.
        raise AmbiguousSubmitError(
            f"submit: the service may have taken this request, and its job cannot be matched: {error.message}",
            advice="The same call again with this journal looks for the job.",
        ) from error
    parts.breaker.record_accepted()
    parts.ledger.record_job(item, job)
    parts.emit(SubmitReconciled, index=item.index, request_id=job.request_id, job=job)
    kind = job_kind(reconciliation.model, reconciliation.lost.payload)
    return JobInFlight(job, kind, _age(parts, job, None))


def _age(parts: BatchParts, job: Job, sent_at: float | None) -> float:
    """Seconds since the job was created, by the service's clock; since its POST if the record does not say when."""
    created_at = sent_at if job.created_at is None else job.created_at.timestamp()
    return 0.0 if created_at is None else max(0.0, parts.session.api.service_time() - created_at)


def _wait(parts: BatchParts, item: BatchItem, in_flight: JobInFlight) -> Awaitable[Job]:
    """The wait for the end of the item's job."""
    session = parts.session
    return session.poller.wait(
        in_flight.job,
        kind=in_flight.kind,
        policy=session.polling,
        api=session.api,
        emit=parts.emit,
        index=item.index,
        age=in_flight.age,
    )


def _pause_submits(parts: BatchParts, item: BatchItem, job: Job) -> None:
    """Hold back all submits: a job that failed for a rate limit made no video, and is submitted again."""
    error = error_of(job, secret=parts.session.api.secret)
    assert error is not None
    item.resubmits, item.fallback_outcome, item.job_id = item.resubmits + 1, job, None
    throttles = item.resubmits + _THROTTLES_OF_A_FAILED_JOB
    parts.session.submitter.pause(error, parts.emit, limit=parts.slots.limit, throttles_before=throttles)


def _report_unsent(parts: BatchParts, item: BatchItem, reason: KlingError) -> Result:
    """The result of an item that is not sent (again): `NOT_SUBMITTED`, or the outcome that an earlier POST left.

    The reason is the `__cause__` of the error of that outcome.
    """
    outcome = item.fallback_outcome
    if outcome is None:
        parts.emit(NotSubmitted, index=item.index, error=reason)
        state = ResultState.NOT_SUBMITTED
        result = Result(index=_index(item), request=item.request, state=state, error=reason)
    else:
        result = _make_result(parts, item, outcome)
        assert result.error is not None, "only what has failed is sent again"
        result.error.__cause__ = reason
        if not isinstance(outcome, Job):  # a failed job stays open in the journal: a later run tries again
            parts.ledger.record_end(item, result)
    _emit_finished(parts, result)
    return result


def _make_result(parts: BatchParts, item: BatchItem, outcome: Job | KlingError) -> Result:
    """The result of an item that was sent, before its video is saved."""
    error: KlingError | None
    if isinstance(outcome, KlingError):
        job, error, state = outcome.job, outcome, state_without_end(has_job=item.job_id is not None)
    else:
        state = state_of(outcome)
        error = error_of(outcome, secret=parts.session.api.secret)
        job = outcome if error is None else error.job
    return Result(
        index=_index(item),
        request=item.request,
        state=state,
        job=job,
        error=error,
        cost_usd=item.cost,
    )


def _interrupted_result(parts: BatchParts, item: BatchItem) -> Result | None:
    """The result of an item whose batch ends before the item does; None if nothing of the item was accepted."""
    outcome: KlingError
    if item.job_id is not None:
        outcome = WaitTimeoutError(
            f"The batch ended early, and job {item.job_id} continues at the service.",
            advice=f"`await client.wait({item.job_id!r})` waits for it.",
            request_id=item.job_id,
            job=Job(request_id=item.job_id, status=JobStatus.UNKNOWN),
        )
    elif item.reconciliation is not None:
        model = item.reconciliation.model
        outcome = AmbiguousSubmitError(
            "submit: the batch ended early, and the service may have taken this request.",
            advice=f"Look for it with `client.list_jobs({model!r})` before you submit it again.",
        )
    else:
        return None
    return _make_result(parts, item, outcome)


def _index(item: BatchItem) -> int:
    assert item.index is not None, "the item of a batch has a place in it"
    return item.index


def _emit_finished(parts: BatchParts, result: Result) -> None:
    parts.emit(
        Finished,
        index=result.index,
        request_id=result.job.request_id if result.job else None,
        state=result.state,
        job=result.job,
        error=result.error,
    )


async def _save(parts: BatchParts, item: BatchItem, result: Result, output: Output) -> Result:
    """The result with the path of its video, or with the error for which the video is not saved."""
    job = result.job
    assert job is not None
    prompt = item.request.prompt if item.request is not None else ""
    destination = output.destination_for(job, prompt=prompt, index=_index(item))
    try:
        saved = await parts.session.downloader.download(
            job, destination, emit=parts.emit, index=item.index, digest=parts.ledger.journal is not None
        )
    except DownloadError as error:
        return attrs.evolve(result, error=error)
    path = saved.path
    parts.ledger.record_file(item, path, size_bytes=saved.size_bytes, sha256=saved.sha256)
    parts.emit(
        Downloaded, index=item.index, request_id=job.request_id, path=path, size_bytes=saved.size_bytes
    )
    return attrs.evolve(result, path=path)


def _cannot_be_made(item: BatchItem) -> InvalidRequestError:
    return InvalidRequestError(
        f"Item {item.index} of the journal holds a payload that no valid request makes, so it cannot be submitted: "
        "give its request again."
    )
