"""Decides which items of a shard are given back, and which errors end a worker."""

from __future__ import annotations

from enum import Enum, auto

from kling_async._policy.retry import is_transient
from kling_async._policy.submission import OF_THE_ACCOUNT, OF_THE_MACHINE
from kling_async.errors import (
    AmbiguousSubmitError,
    APIConnectionError,
    CertificateError,
    ConfigurationError,
    JournalError,
    KlingError,
    ProxyError,
)
from kling_async.events import Finished
from kling_async.results import Result, ResultState

_REFUSALS = OF_THE_ACCOUNT | OF_THE_MACHINE


class Trouble(Enum):
    """Why a worker does not end an item, although the item has a result."""

    REFUSED = auto()
    """The service refuses this worker, or the worker cannot obey the options: another worker may be able to."""
    TRANSIENT = auto()
    """The service or the journal could not be reached: later any worker may be able to."""


def is_end(item: Result | Finished) -> bool:
    """Whether an item has ended for its call too: its job is final, and no other run of its shard can continue the item."""
    return has_final_job(item) and find_trouble(item) is None


def find_trouble(item: Result | Finished) -> Trouble | None:
    """Whether an item is to be given back, because the reason of its error is not the item itself.

    Without this, one worker with a wrong key would end all items of a batch within seconds, while the others still make
    their first videos. An item that was sent has the reason as the cause of its error: why it was not sent again, or why its
    job was not searched.
    """
    reason = find_reason(item)
    if isinstance(reason, _REFUSALS):
        return Trouble.REFUSED
    # With an ambiguous submit of others a batch stops where the service takes requests and answers 5xx.
    is_outage = isinstance(reason, APIConnectionError | JournalError | AmbiguousSubmitError)
    return Trouble.TRANSIENT if is_outage or (reason is not None and is_transient(reason)) else None


def find_reason(item: Result | Finished) -> KlingError | None:
    """Why an item did not end as its call wanted; None if it did, or if only its own job, video or wait is the reason."""
    error = item.error
    if error is None or item.state is ResultState.SUCCEEDED:
        return None
    if item.state is ResultState.NOT_SUBMITTED or isinstance(error, _REFUSALS | JournalError):
        return error
    cause = error.__cause__ if isinstance(error.__cause__, KlingError) else None
    # A timeout has waited as long as the caller wanted; but not with another key.
    has_waited = item.state is ResultState.TIMED_OUT
    return None if has_waited and not isinstance(cause, _REFUSALS) else cause


def has_final_job(item: Result | Finished) -> bool:
    """Whether the service has said how the job of an item ended."""
    return item.job is not None and item.job.is_final


def ends_worker(error: KlingError) -> bool:
    """Whether a worker that was refused with this error can run no batch at all, and not only this one."""
    return isinstance(error, OF_THE_ACCOUNT | CertificateError | ProxyError)


def is_outage_of_store(error: ConfigurationError) -> bool:
    """Whether the object store did not answer, so that the same options can be obeyed later."""
    return isinstance(error.__cause__, KlingError) and is_transient(error.__cause__)
