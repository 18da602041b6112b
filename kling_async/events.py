"""The events of a client and of a batch, as frozen values: for progress bars, tables, logs and telemetry.

Pass a plain function as `on_event`. It runs in the event loop, so it must return quickly. If it raises, the error is
logged and the batch continues. Only a `KeyboardInterrupt` or a `SystemExit` ends the program, and the function is then
not called again. In the function `asyncio.current_task()` is None; it can start a task, or put the event into a queue.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TypeAlias

import attrs

from kling_async._callbacks import SafeLogger, call_safely
from kling_async._field_docs import describe_fields
from kling_async.errors import KlingError
from kling_async.jobs import Job, JobStatus
from kling_async.lines import quote_value
from kling_async.paths import ObjectUrl
from kling_async.results import ResultState

__all__ = [
    "Downloaded",
    "Downloading",
    "Event",
    "Finished",
    "Listener",
    "NotSubmitted",
    "PollFailed",
    "Resumed",
    "Retrying",
    "Spent",
    "StatusChanged",
    "SubmitLost",
    "SubmitReconciled",
    "Submitted",
    "Throttled",
]

_log = SafeLogger("kling_async")


@attrs.frozen(kw_only=True)
class Event:
    """The fields of every event."""

    at: float = attrs.field(kw_only=False)
    """The time of the event, in Unix seconds by the clock of this machine."""
    index: int | None = None
    """The index of the item in the batch, from 0; None outside a batch."""
    request_id: str | None = None
    """The service's id of the job; None if it is not known."""


@attrs.frozen(kw_only=True)
class Submitted(Event):
    """The service accepted a job; from now on it may be charged."""

    job: Job
    """The job as the service answered it."""


@attrs.frozen(kw_only=True)
class StatusChanged(Event):
    """A job has a new status."""

    status: JobStatus
    """The new status."""
    previous: JobStatus
    """The status that was seen before."""


@attrs.frozen(kw_only=True)
class Finished(Event):
    """An item has its final state; a download may still follow."""

    state: ResultState
    """The final state."""
    job: Job | None = None
    """The last known job; None if the service never gave one."""
    error: KlingError | None = None
    """Why the item did not succeed; None if it did."""


@attrs.frozen(kw_only=True)
class Downloading(Event):
    """A download has started, or has made progress: about twice a second while bytes arrive."""

    size_bytes: int
    """Bytes on the disk so far, with those of an earlier try."""
    total_bytes: int | None = None
    """Bytes of the whole video; None if not known yet."""


@attrs.frozen(kw_only=True)
class Downloaded(Event):
    """A finished video was saved completely."""

    path: Path | ObjectUrl
    """The file, or the URL of the object."""
    size_bytes: int
    """Its size in bytes."""


@attrs.frozen(kw_only=True)
class Retrying(Event):
    """A call that is safe to repeat failed, and is sent again after `delay` seconds."""

    call: str
    """The call of the service, such as `status`; `store` for an object store."""
    attempt: int
    """The number of the next try: 1 for the first repetition."""
    delay: float
    """Seconds until the next try."""
    error: KlingError
    """The error of the last try."""


@attrs.frozen(kw_only=True)
class Throttled(Event):
    """No submit of this client is sent for `delay` seconds: the service asked to slow down, or has an outage.

    In an outage, after ten submits in a row without an answer, one submit leaves every half minute. Each batch and each single
    submit that begins then, or that has a submit slot and waits for its turn, has this event, and one more with each turn that
    another submit takes while it has the slot.
    """

    delay: float
    """Seconds for which nothing is submitted."""
    error: KlingError
    """The answer of the service; in an outage the error of the last submit."""


@attrs.frozen(kw_only=True)
class PollFailed(Event):
    """A poll failed; the job is polled again after `delay` seconds. The wait goes on."""

    delay: float
    """Seconds until the next poll of the job."""
    error: KlingError
    """The error of the poll."""


@attrs.frozen(kw_only=True)
class SubmitLost(Event):
    """A paid POST was sent, and whether the service has a job is unknown."""

    error: KlingError
    """What happened to the reply."""


@attrs.frozen(kw_only=True)
class SubmitReconciled(Event):
    """The job of a lost submit was found at the service; the item continues with it."""

    job: Job
    """The job that was found."""


@attrs.frozen(kw_only=True)
class Resumed(Event):
    """An item continues where an earlier run stopped: it was found in the journal, or its job was given to `wait_many`."""

    job: Job | None = None
    """The last known job; None for a submit whose reply the earlier run did not get."""
    path: Path | ObjectUrl | None = None
    """The saved video, or its URL in an object store; None if it must still be made or downloaded."""


@attrs.frozen(kw_only=True)
class Spent(Event):
    """A submit of a known price was accepted, or may have been."""

    cost_usd: Decimal
    """US dollars for this submit."""
    total_usd: Decimal
    """US dollars so far, in this batch and in earlier runs with its journal."""


@attrs.frozen(kw_only=True)
class NotSubmitted(Event):
    """The service never accepted the item, and nothing was charged for it."""

    error: KlingError
    """Why the item was not submitted."""


Listener: TypeAlias = Callable[[Event], object]
"""The type of `on_event`."""


def check_listener(listener: object) -> None:
    """Do nothing if a value can be called with each event; call this before anything is paid for.

    Raises:
        TypeError: It is not callable, or is a coroutine function, which would never run.
    """
    if not callable(listener):
        raise TypeError(
            f"on_event={quote_value(listener)} is not callable: give a function that takes one event."
        )
    for function in (listener, type(listener).__call__):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"on_event={quote_value(listener)} is async, and events are not awaited: give a plain function, which can put "
                "the event into an asyncio.Queue for a task that awaits."
            )


@attrs.define(eq=False)
class _SafeListener:
    """A listener of the caller that neither raises nor cancels anything: its errors are logged, each kind of error once."""

    listener: Listener
    _logged: set[tuple[type, type]] = attrs.field(init=False, factory=set)
    _has_left: bool = attrs.field(init=False, default=False)
    """Whether it has ended the program. A second `SystemExit` would interrupt the end, and with it the journal's last write."""

    def __call__(self, event: Event) -> None:
        if self._has_left:
            return
        error = call_safely(partial(self._call, event))
        if error is not None and (type(event), type(error)) not in self._logged:
            self._logged.add((type(event), type(error)))
            _log.error("on_event raised for %s; the batch continues", type(event).__name__, exc_info=error)

    def _call(self, event: Event) -> None:
        try:
            answer = self.listener(event)
        except (KeyboardInterrupt, SystemExit):
            self._has_left = True
            raise
        if inspect.iscoroutine(answer):
            answer.close()
            raise TypeError("on_event returned a coroutine, and events are not awaited")


class Notifier:
    """Calls every listener with each event; false if there are no listeners, so that no event need be made."""

    def __init__(self, *listeners: Listener | None) -> None:
        self.listeners: tuple[Listener, ...] = ()
        """All listeners, with those of other notifiers."""
        for listener in listeners:
            if isinstance(listener, Notifier):
                self.listeners += listener.listeners
            elif listener is not None:
                check_listener(listener)
                # One of this package cancels nothing, and a batch calls it four times for each item.
                is_own = getattr(listener, "_is_own", False)
                self.listeners += (listener if is_own else _SafeListener(listener),)

    def __bool__(self) -> bool:
        return bool(self.listeners)

    def __call__(self, event: Event) -> None:
        """Call all listeners; an error of one is logged, and the others are still called."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - of this package's own: it must not hurt a batch
                _log.exception("a count of %s failed; the batch continues", type(event).__name__)


describe_fields(__name__)
