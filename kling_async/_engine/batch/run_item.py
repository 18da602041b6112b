"""The life of one item: slot, resume or submit, reconcile, wait, record the end, save the video."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Literal

import attrs

from kling_async._engine.batch.batch_input import InputItem
from kling_async._engine.batch.batch_parts import BatchParts
from kling_async._engine.batch.item_result import (
    emit_finished,
    interrupted_result,
    make_result,
    no_request_error,
    unsent_result,
)
from kling_async._engine.batch.resume import NextStep
from kling_async._engine.batch.resume_item import JobInFlight, Standing, UnsentError, age_of, claim_and_resume
from kling_async._engine.download.destination import Output
from kling_async._engine.submit.batch_item import BatchItem
from kling_async._engine.submit.open_reconciliation import OpenReconciliation
from kling_async._journal.sharing import TakenOverError
from kling_async._journal.store import is_unreadable_row
from kling_async._policy.job_end import error_of
from kling_async._policy.pace import job_kind
from kling_async._policy.submission import allows_resend, may_resubmit
from kling_async.errors import AmbiguousSubmitError, DownloadError, JournalError, KlingError
from kling_async.events import Downloaded, NotSubmitted, SubmitReconciled
from kling_async.jobs import Job
from kling_async.requests import model_of
from kling_async.results import Result

_THROTTLES_OF_A_FAILED_JOB = 2
"""A job that fails for a rate limit is a stronger sign than a 429: the pause is as long as after so many 429s more."""


async def run_item(parts: BatchParts, input_item: InputItem) -> None:
    """Take one item from the input to its result, which goes to the result stream of the batch.

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
    end: Job | KlingError | None = None
    secret = parts.session.api.secret
    try:
        try:
            while end is None or await parts.claims.is_job_taken(item):
                before_takeover, end = interrupted_result(item, secret=secret), None
                item.forget()
                if invalid is not None:
                    raise UnsentError(invalid)  # noqa: TRY301 - it ends as the one that `_run_job` raises
                end = await _run_job(parts, item, await claim_and_resume(parts, item, plan))
        except UnsentError:
            raise  # an end of the item as any other: the outer block reports it when the slot is free
        except BaseException:
            # No end of the item: cancelled, or an error that no code here knows, which ends the batch.
            left = interrupted_result(item, secret=secret) or before_takeover
            if end is not None:  # the item waited for the journal, to know whose job it is
                left = make_result(item, end, secret=secret)
            if left is not None:
                parts.results.put_interrupted(left)
            raise
        finally:
            _free(parts, item)
        parts.results.put(await _finish(parts, item, end))
    except UnsentError as error:
        parts.results.put(_report_unsent(parts, item, error.reason, before_takeover=before_takeover))
    finally:
        parts.claims.release(item)


def _free(parts: BatchParts, item: BatchItem) -> None:
    """Let another item have the slot, and let look-alikes of the item be sent."""
    if item.has_slot:
        parts.slots.free()
    # After a cancellation during the POST, no `reconcile` has begun that would end the reconciliation.
    if item.reconciliation is not None:
        parts.session.reconciler.end(item.reconciliation)


async def _run_job(parts: BatchParts, item: BatchItem, standing: Standing) -> Job | KlingError | None:
    """Submit, reconcile, wait: the final record of the item's job, or the error that ended it.

    No frame keeps the record of a job in flight: for a hundred thousand jobs the records would be most of the memory.

    Returns:
        None if another process has taken the item over.

    Raises:
        UnsentError: The item cannot be sent, or cannot be sent again.
    """
    while True:
        try:
            if standing is NextStep.SUBMIT:
                standing = await _submit(parts, item)
            elif isinstance(standing, OpenReconciliation):
                standing = await _reconcile(parts, item, standing)
            elif isinstance(standing, Job):
                return standing
            else:
                wait, standing = _wait(parts, item, standing), NextStep.SUBMIT
                job = await wait
                is_stopped = parts.breaker.reason is not None
                if not may_resubmit(job, resubmits=item.resubmits, is_stopped=is_stopped):
                    return job
                _pause_submits(parts, item, job)
                del job
        except KlingError as error:
            return error
        except TakenOverError:
            return None


async def _submit(parts: BatchParts, item: BatchItem) -> JobInFlight | OpenReconciliation:
    """Submit the item: its job, or the reconciliation to await if the answer is lost.

    Raises:
        UnsentError: The item cannot be sent, or cannot be sent again.
        TakenOverError: Another process of a shared journal holds the item.
    """
    request = item.request
    if request is None or parts.breaker.reason is not None:
        raise UnsentError(parts.breaker.reason or no_request_error(item))
    try:
        payload = await parts.uploader.make_payload(request, item.digests)
    except KlingError as error:
        raise UnsentError(error) from error
    try:
        submitted = await parts.session.submitter.submit(
            payload, item, ledger=parts.ledger, limit=parts.slots.limit, breaker=parts.breaker
        )
    except KlingError as error:
        parts.breaker.record_failure(error)
        raise UnsentError(error) from error
    if isinstance(submitted, OpenReconciliation):
        return submitted
    parts.breaker.record_accepted()
    parts.slots.record_accepted()
    return JobInFlight(submitted, job_kind(model_of(request), payload))


async def _reconcile(
    parts: BatchParts, item: BatchItem, reconciliation: OpenReconciliation
) -> JobInFlight | Literal[NextStep.SUBMIT]:
    """Find the job of a lost submit; `SUBMIT` if the item is to be sent again, as the caller wants it.

    Raises:
        AmbiguousSubmitError: The list does not tell which job it is, and it is not to be sent again.
    """
    try:
        job = await parts.session.reconciler.reconcile(
            reconciliation, on_ambiguous=parts.settings.on_ambiguous
        )
    except AmbiguousSubmitError as error:
        if not item.can_resend or not allows_resend(parts.settings.on_ambiguous, error):
            if not reconciliation.is_of_other_run:
                parts.breaker.record_failure(error, is_outage=parts.session.shared.lost_streak.is_outage)
            raise
        item.can_resend, item.fallback_end = False, error
        return NextStep.SUBMIT
    except JournalError as error:
        # The list was not searched to its end, so not even `resend` sends it again in this run.
        advice = (
            None if is_unreadable_row(error) else "The same call again with this journal looks for the job."
        )
        raise AmbiguousSubmitError(
            f"submit: the service may have taken this request, and its job cannot be matched: {error.message}",
            advice=advice,
        ) from error
    parts.breaker.record_accepted()
    parts.ledger.record_job(item, job)
    parts.emit(SubmitReconciled, index=item.index, request_id=job.request_id, job=job)
    kind = job_kind(reconciliation.model, reconciliation.lost.payload)
    return JobInFlight(job, kind, age_of(parts, job, None))


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
    item.resubmits, item.fallback_end, item.job_id = item.resubmits + 1, job, None
    throttles = item.resubmits + _THROTTLES_OF_A_FAILED_JOB
    parts.session.submitter.pause(error, parts.emit, limit=parts.slots.limit, throttles_before=throttles)


async def _finish(parts: BatchParts, item: BatchItem, end: Job | KlingError) -> Result:
    """The result of an item whose job has ended, with its video saved."""
    result = make_result(item, end, secret=parts.session.api.secret)
    earlier = item.earlier_end
    if earlier is not None and earlier.path is not None and result.ok:
        result = attrs.evolve(result, path=earlier.path)
    else:
        parts.ledger.record_end(item, result)
    emit_finished(parts.emit, result)
    is_saved = result.path is not None or (earlier is not None and earlier.is_saved_elsewhere)
    if not result.ok or is_saved or parts.output is None:
        return result
    try:
        return await _save(parts, item, result, parts.output)
    except BaseException:
        parts.results.put_interrupted(result)
        raise


async def _save(parts: BatchParts, item: BatchItem, result: Result, output: Output) -> Result:
    """The result with the path of its video, or with the error for which the video is not saved."""
    job = result.job
    assert job is not None
    prompt = item.request.prompt if item.request is not None else ""
    destination = output.destination_for(job, prompt=prompt, index=result.index)
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


def _report_unsent(
    parts: BatchParts, item: BatchItem, reason: KlingError, *, before_takeover: Result | None
) -> Result:
    """The result of an item that is not sent (again), after its record in the journal and its events."""
    if before_takeover is not None and isinstance(reason, JournalError):
        result = before_takeover  # the journal does not say what became of what this process has sent
    else:
        result = unsent_result(item, reason, secret=parts.session.api.secret)
        if item.fallback_end is None:
            parts.emit(NotSubmitted, index=item.index, error=reason)
        elif not isinstance(item.fallback_end, Job):  # a failed job stays open: a later run tries again
            parts.ledger.record_end(item, result)
    emit_finished(parts.emit, result)
    return result
