"""The result of an item at each of its ends."""

from __future__ import annotations

import attrs

from kling_async._engine.emitter import Emitter
from kling_async._engine.submit.batch_item import BatchItem
from kling_async._policy.job_end import add_reason, error_of, state_of, state_without_end
from kling_async._secrets import Secret
from kling_async.errors import AmbiguousSubmitError, InvalidRequestError, KlingError, WaitTimeoutError
from kling_async.events import Finished
from kling_async.jobs import Job, JobStatus
from kling_async.results import Result, ResultState


def make_result(item: BatchItem, end: Job | KlingError, *, secret: Secret) -> Result:
    """The result of an item that was sent, before its video is saved.

    Args:
        item: The item.
        end: The final record of its job, or the error that ended it.
        secret: The key, which no reason of the service shows.
    """
    if isinstance(end, KlingError):
        return _result_of_error(item, end)
    error = error_of(end, secret=secret)
    return Result(
        index=_index(item),
        request=item.request,
        state=state_of(end),
        job=end if error is None else error.job,
        error=error,
        cost_usd=item.cost,
    )


def _result_of_error(item: BatchItem, error: KlingError) -> Result:
    return Result(
        index=_index(item),
        request=item.request,
        state=state_without_end(has_job=item.job_id is not None),
        job=error.job,
        error=error,
        cost_usd=item.cost,
    )


def unsent_result(item: BatchItem, reason: KlingError, *, secret: Secret) -> Result:
    """The result of an item that is not sent (again): `NOT_SUBMITTED`, or the end that an earlier POST left.

    The error of that end then says the reason too, and has it as its `__cause__`.
    """
    if item.fallback_end is None:
        state = ResultState.NOT_SUBMITTED
        return Result(index=_index(item), request=item.request, state=state, error=reason)
    result = make_result(item, item.fallback_end, secret=secret)
    assert result.error is not None, "only what has failed is sent again"
    return attrs.evolve(result, error=add_reason(result.error, reason))


def interrupted_result(item: BatchItem, *, secret: Secret) -> Result | None:
    """The result of an item whose batch ends before the item does; None if nothing of the item was accepted."""
    if item.job_id is not None:
        return _result_of_error(
            item,
            WaitTimeoutError(
                f"The batch ended early, and job {item.job_id} continues at the service.",
                advice=f"`await client.wait({item.job_id!r})` waits for it.",
                request_id=item.job_id,
                job=Job(request_id=item.job_id, status=JobStatus.UNKNOWN),
            ),
        )
    if item.reconciliation is not None:
        model = item.reconciliation.model
        return _result_of_error(
            item,
            AmbiguousSubmitError(
                "submit: the batch ended early, and the service may have taken this request.",
                advice=f"Look for it with `client.list_jobs({model!r})` before you submit it again.",
            ),
        )
    if isinstance(item.fallback_end, Job):  # it may have been charged, and was to be submitted again
        return make_result(item, item.fallback_end, secret=secret)
    return None


def _index(item: BatchItem) -> int:
    assert item.index is not None, "the item of a batch has a place in it"
    return item.index


def emit_finished(emit: Emitter, result: Result) -> None:
    """Tell the listeners how an item ended."""
    emit(
        Finished,
        index=result.index,
        request_id=result.job.request_id if result.job else None,
        state=result.state,
        job=result.job,
        error=result.error,
    )


def no_request_error(item: BatchItem) -> InvalidRequestError:
    """The error of an entry of the journal that cannot be submitted."""
    return InvalidRequestError(
        f"Item {item.index} of the journal holds a payload that no valid request makes, so it cannot be submitted: "
        "give its request again."
    )
