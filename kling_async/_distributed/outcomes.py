"""How an item of a shard ended, as a plain JSON value, and the result that the caller makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import attrs

from kling_async import errors
from kling_async._distributed.awaited_item import AwaitedItem
from kling_async._journal.entry import Entry, EntryState
from kling_async._policy.job_end import add_reason, error_of, lacks_video, state_of
from kling_async._secrets import Secret
from kling_async.errors import AmbiguousSubmitError, KlingError, WaitTimeoutError
from kling_async.jobs import Job, JobStatus
from kling_async.paths import ObjectUrl, is_object_url
from kling_async.requests import VideoRequest
from kling_async.results import Result, ResultState

_PLAIN = (str, int, float, bool)
_ENDS_WITHOUT_A_VIDEO = frozenset({"JobFailedError", "JobCancelledError"})


def dump_outcome(result: Result) -> dict[str, Any]:
    """What the journal does not hold of a result, and what a display shows of it."""
    return {
        "state": result.state.value,
        "request_id": None if result.job is None else result.job.request_id,
        "path": None if result.path is None else str(result.path),
        "error": None if result.error is None else dump_error(result.error),
    }


def saved_place(text: str) -> Path | ObjectUrl:
    """The place of a saved video: a file, or an object."""
    return ObjectUrl(text) if is_object_url(text) else Path(text)


def dump_error(error: KlingError) -> dict[str, Any]:
    """The class, the message and the plain fields of an error, as a JSON value."""
    fields = {
        name: value
        for name, value in vars(error).items()
        if isinstance(value, _PLAIN)
        and name not in {"message", "call"}  # a call of the worker, not of the user
    }
    return {"type": type(error).__name__, "message": error.message, **fields}


def load_error(value: Mapping[str, Any]) -> KlingError:
    """The error of which `dump_error` made a value; a plain `KlingError` if this release has no such class.

    Raises:
        ValueError: Another program has changed the value.
    """
    if not isinstance(value, dict) or {type(value.get(name)) for name in ("type", "message")} != {str}:
        raise ValueError("no error that kling_async has written")
    fields = dict(value)
    kind = getattr(errors, fields.pop("type"), None)
    if not isinstance(kind, type) or not issubclass(kind, KlingError):
        kind = KlingError
    error: KlingError = kind(fields.pop("message"))
    vars(error).update(fields)
    return error


def parse_error(text: str) -> KlingError:
    """The error of which the database has the JSON; without its reason if another program has changed that."""
    try:
        return load_error(json.loads(text))
    except (RecursionError, ValueError):
        return KlingError("another program has changed the reason in the database.")


def load_outcome(text: str) -> dict[str, Any] | None:
    """The outcome of an item as its worker wrote it; None if another program has changed it: then a worker writes it again."""
    try:
        outcome: dict[str, Any] = json.loads(text)
        ResultState(outcome["state"])
        if outcome["error"] is not None:
            load_error(outcome["error"])
        is_ours = {type(outcome[name]) for name in ("request_id", "path")} <= {str, NoneType}
        is_ours = is_ours and type(outcome.get("retry")) in {int, NoneType}
    except (KeyError, RecursionError, TypeError, ValueError):
        return None
    return outcome if is_ours else None


def is_end_of_job(outcome: Mapping[str, Any]) -> bool:
    """Whether the outcome says that the job has ended at the service. Otherwise a later run can find out more."""
    error = outcome["error"]
    return outcome["state"] == ResultState.SUCCEEDED or (
        error is not None and error["type"] in _ENDS_WITHOUT_A_VIDEO
    )


def is_in_journal(outcome: Mapping[str, Any], entry: Entry) -> bool:
    """Whether the journal knows the end of the job too, if the outcome is one: a worker can die between its two writes.

    The state of the entry or the record of its job says how it ended. A failed job whose resubmit is refused has the record alone.
    """
    if not is_end_of_job(outcome):
        return True
    job = entry.job
    if job is None:
        return False
    state: str = outcome["state"]
    return entry.state == state or (job.is_final and not lacks_video(job) and state_of(job) == state)


def results_of(
    awaited: Mapping[int, AwaitedItem],
    outcomes: Mapping[int, Mapping[str, Any]],
    entries: Mapping[int, Entry],
    *,
    given_up: Mapping[int, KlingError],
    reason: KlingError,
) -> list[Result]:
    """The results of items of a call, in the order of `awaited`.

    Args:
        awaited: By number, the items.
        outcomes: By number, how workers have ended some of them.
        entries: By number, the entries of all of them.
        given_up: By number, why the call waits no longer for some of the rest.
        reason: Why the call waits no longer for the other ones.
    """
    results = []
    for number, item in awaited.items():
        entry, index, request = entries[number], item.item.index, item.request
        if (outcome := outcomes.get(number)) is not None:
            results.append(result_of_outcome(outcome, entry, index=index, request=request))
        else:
            why = given_up.get(number, reason)
            results.append(result_of_entry(entry, index=index, request=request, reason=why))
    return results


def results_of_outcomes(
    awaited: Mapping[int, AwaitedItem], outcomes: Mapping[int, Mapping[str, Any]]
) -> list[Result]:
    """The results of the items that have an outcome, without their jobs: the journal cannot be read."""
    return [
        result_of_outcome(outcome, None, index=awaited[number].item.index, request=awaited[number].request)
        for number, outcome in outcomes.items()
    ]


def results_of_jobs(awaited: Iterable[AwaitedItem], *, reason: KlingError) -> list[Result]:
    """The results of the items whose jobs the call has heard of, and of whose end it has not; the reason says why it ends."""
    return [
        result_of_job(
            Job(request_id=item.job_id, status=JobStatus.UNKNOWN),
            index=item.item.index,
            request=item.request,
            reason=reason,
        )
        for item in awaited
        if item.job_id is not None and not item.is_finished
    ]


def result_of_outcome(
    outcome: Mapping[str, Any], entry: Entry | None, *, index: int, request: VideoRequest | None
) -> Result:
    """The result of an item that a worker has ended.

    Args:
        outcome: What the worker wrote down.
        entry: The entry of the item; None if the journal cannot be read, and then the result has no job.
        index: The index of the item in the batch of the caller.
        request: Its request.
    """
    job = None if entry is None else entry.job
    error = None if outcome["error"] is None else load_error(outcome["error"])
    if error is not None and error.request_id is not None:
        error.job = job
    return Result(
        index=index,
        request=request,
        state=ResultState(outcome["state"]),
        job=job,
        error=error,
        path=None if outcome["path"] is None else saved_place(outcome["path"]),
        cost_usd=None if entry is None else entry.cost_usd,
    )


def result_of_entry(entry: Entry, *, index: int, request: VideoRequest | None, reason: KlingError) -> Result:
    """The result of an item that no worker has ended, as its entry stands.

    Args:
        entry: The entry.
        index: The index of the item in the batch of the caller.
        request: Its request.
        reason: Why no worker ends the item.
    """
    job, state, error = entry.job, ResultState.NOT_SUBMITTED, reason
    if job is not None and job.is_final:
        # By the job, not by the state of the entry: a record can be final before a run has written the end down.
        result = result_of_end(entry, index=index, request=request)
        return attrs.evolve(
            result, error=reason if result.error is None else add_reason(result.error, reason)
        )
    if job is not None:
        result = result_of_job(job, index=index, request=request, reason=reason)
        return attrs.evolve(result, cost_usd=entry.cost_usd)
    if entry.state in {EntryState.INTENDED, EntryState.AMBIGUOUS}:
        state = ResultState.AMBIGUOUS
        error = AmbiguousSubmitError(
            f"The service may have taken this request, and no worker has looked for its job: {reason.message}"
        )
    return Result(index=index, request=request, state=state, error=error, cost_usd=entry.cost_usd)


def result_of_job(job: Job, *, index: int, request: VideoRequest | None, reason: KlingError) -> Result:
    """The result of an item whose job has not ended, and for which no worker waits; the reason says why."""
    error = WaitTimeoutError(
        f"Job {job.request_id} continues at the service, and no worker waits for it: {reason.message}",
        request_id=job.request_id,
        job=job,
    )
    return Result(index=index, request=request, state=ResultState.TIMED_OUT, job=job, error=error)


def result_of_end(entry: Entry, *, index: int, request: VideoRequest | None) -> Result:
    """The result of an item whose job has ended, by the record of the job in its entry."""
    job = entry.job
    assert job is not None, "the job of an end is in the entry"
    path = None if entry.path is None else saved_place(entry.path)
    error = error_of(job, secret=Secret(""))
    if error is not None and entry.error is not None:  # which hides the key of the run that wrote the entry
        error = type(error)(entry.error, request_id=job.request_id, job=job)
    return Result(
        index=index,
        request=request,
        state=state_of(job),
        job=job,
        error=error,
        path=path,
        cost_usd=entry.cost_usd,
    )
