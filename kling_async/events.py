"""What happens to a batch, as one stream of frozen values: for progress bars, tables, logs and telemetry.

Pass a plain callable as `on_event`. It is called in the event loop, so it must be quick. One that raises is
logged and never hurts the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

import attrs

from kling_async.errors import KlingError
from kling_async.jobs import Job, JobStatus
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
    "SubmitAmbiguous",
    "SubmitReconciled",
    "Submitted",
    "Throttled",
]

_log = logging.getLogger("kling_async")


@attrs.frozen(kw_only=True)
class Event:
    """What every event says."""

    at: float = attrs.field(kw_only=False)
    """When it happened, in Unix seconds by this machine's clock."""
    index: int | None = None
    """The item's place in the batch, from 0; None outside a batch."""
    request_id: str | None = None
    """The service's id of the job, where it has one."""


@attrs.frozen(kw_only=True)
class Submitted(Event):
    """The service took a job; from here on it may be charged."""

    job: Job
    """The record that it answered."""


@attrs.frozen(kw_only=True)
class StatusChanged(Event):
    """A job was seen in another status than before."""

    status: JobStatus
    """Where it stands now."""
    previous: JobStatus
    """Where it stood when it was last seen."""


@attrs.frozen(kw_only=True)
class Finished(Event):
    """An item has its final state; a download may still follow."""

    state: ResultState
    """How it ended."""
    job: Job | None = None
    """The last known record; None where the service never gave one."""
    error: KlingError | None = None
    """Why it did not succeed."""


@attrs.frozen(kw_only=True)
class Downloading(Event):
    """A video is being fetched: told when that begins, and then about twice a second while more of it comes."""

    size_bytes: int
    """How much of it is here, what an earlier try left included."""
    total_bytes: int | None = None
    """How large it is; None where that is not known yet."""


@attrs.frozen(kw_only=True)
class Downloaded(Event):
    """A finished video was saved whole."""

    path: Path
    """Where it is."""
    size_bytes: int
    """How large it is."""


@attrs.frozen(kw_only=True)
class Retrying(Event):
    """A call that is safe to repeat failed and will be sent again after `delay` seconds."""

    call: str
    """Which call of the service, such as `status`."""
    attempt: int
    """The number of the try that comes, from 1 for the first repetition."""
    delay: float
    """Seconds until then."""
    error: KlingError
    """What the last try ended with."""


@attrs.frozen(kw_only=True)
class Throttled(Event):
    """The service asked to slow down: no submit of this client is sent for `delay` seconds."""

    delay: float
    """Seconds for which nothing is submitted."""
    error: KlingError
    """What the service answered."""


@attrs.frozen(kw_only=True)
class PollFailed(Event):
    """A status call failed; the job is asked about again after `delay` seconds."""

    delay: float
    """Seconds until the job is asked about again."""
    error: KlingError
    """What the call ended with."""


@attrs.frozen(kw_only=True)
class SubmitAmbiguous(Event):
    """A paid POST was sent and its fate is unknown."""

    error: KlingError
    """What is known of it."""


@attrs.frozen(kw_only=True)
class SubmitReconciled(Event):
    """The job of an ambiguous submit was found at the service and taken over."""

    job: Job
    """The job that was found."""


@attrs.frozen(kw_only=True)
class Resumed(Event):
    """An item was found in the journal and goes on from where an earlier run left it."""

    job: Job | None = None
    """The last known record; None for a submit whose reply that run did not see."""
    path: Path | None = None
    """Where its video is, saved whole; None where it has still to be fetched, or made."""


@attrs.frozen(kw_only=True)
class Spent(Event):
    """A submit of a known price was accepted, or may have been."""

    cost_usd: Decimal
    """US dollars for this one."""
    total_usd: Decimal
    """US dollars so far: of this batch, and of the earlier runs of its journal."""


@attrs.frozen(kw_only=True)
class NotSubmitted(Event):
    """An item was never accepted by the service, and nothing was charged for it."""

    error: KlingError
    """Why not."""


Listener: TypeAlias = Callable[[Event], object]
"""What `on_event` takes."""


class Notifier:
    """Tells every listener about an event; falsy where nobody listens, so that no event need be made."""

    def __init__(self, *listeners: Listener | None) -> None:
        self.listeners: tuple[Listener, ...] = ()
        """All of them, those of other notifiers among them."""
        for listener in listeners:
            if isinstance(listener, Notifier):
                self.listeners += listener.listeners
            elif listener is not None:
                self.listeners += (listener,)

    def __bool__(self) -> bool:
        return bool(self.listeners)

    def __call__(self, event: Event) -> None:
        """Tell all; an error of one is logged and kept from the rest."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a broken listener must not hurt the batch
                _log.exception("on_event raised for %s; the batch goes on", type(event).__name__)
