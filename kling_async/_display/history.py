"""What became of each item of a batch, and when: a few numbers an item, taken from the events."""

from __future__ import annotations

import math
from array import array

import attrs

from kling_async.events import (
    Downloaded,
    Event,
    Finished,
    PollFailed,
    Resumed,
    Retrying,
    StatusChanged,
    SubmitReconciled,
    Submitted,
    Throttled,
)
from kling_async.jobs import Job, JobStatus

_NEVER = math.nan
_AT_ONCE = 256
"""Rows by which the columns grow: items come nearly in order, and a row at a time costs as much as all the rest."""
_FINEST = 1 / 500
"""Spans with a gap of a smaller share of the batch become one: nobody could see it, and there may be many."""


@attrs.frozen
class Span:
    """A stretch of time, in Unix seconds."""

    began: float
    ended: float


@attrs.frozen(kw_only=True)
class ItemTimes:
    """When an item came to each stage, in Unix seconds as seen from here; None where it was not seen to."""

    submitted: float | None = None
    """When the service took it, for the first time if it was submitted again; for a job of an earlier run, when this
    one took it up."""
    running: float | None = None
    """When it was first seen running; None also for a job that was done before anyone asked."""
    finished: float | None = None
    """When its final state was known."""
    saved: float | None = None
    """When its video was whole on the disk."""
    submits: int = 0
    """Jobs that the service took for it; more than one where jobs failed for a rate limit."""
    failed_polls: int = 0
    """Status calls for it that failed."""


@attrs.define(eq=False)
class BatchHistory:
    """Hears a batch's events and remembers the moments; pass it as `on_event`.

    An item takes some forty bytes, for there may be a hundred thousand.
    """

    started: float | None = attrs.field(init=False, default=None)
    """When the first event came, in Unix seconds."""
    ended: float | None = attrs.field(init=False, default=None)
    """When the last one came."""
    saved_bytes: int = attrs.field(init=False, default=0)
    """The size of all videos that were saved."""
    retries: int = attrs.field(init=False, default=0)
    """Calls that were sent again."""
    throttles: int = attrs.field(init=False, default=0)
    """How often the service asked for patience."""
    failed_polls: int = attrs.field(init=False, default=0)
    """Status calls that failed, of all items."""
    pauses: list[Span] = attrs.field(init=False, factory=list)
    """When nothing was submitted, because the service had asked for patience."""
    outages: list[Span] = attrs.field(init=False, factory=list)
    """When status calls failed."""
    _submitted: array[float] = attrs.field(init=False, factory=lambda: array("d"))
    _running: array[float] = attrs.field(init=False, factory=lambda: array("d"))
    _finished: array[float] = attrs.field(init=False, factory=lambda: array("d"))
    _saved: array[float] = attrs.field(init=False, factory=lambda: array("d"))
    _submits: array[int] = attrs.field(init=False, factory=lambda: array("I"))
    _failed_polls: array[int] = attrs.field(init=False, factory=lambda: array("I"))

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        if self.started is None:
            self.started = event.at
        self.ended = event.at
        index = event.index
        if index is None:
            self._take_trouble(event)
            return
        if index >= len(self._finished):
            self._grow(index + _AT_ONCE - len(self._finished))
        # Classes alone are matched: to match what they hold as well costs several times as much.
        match event:
            case StatusChanged():
                if event.status is JobStatus.PROCESSING:
                    self._running[index] = event.at
            case Submitted() | SubmitReconciled():
                self._submit(index, event.at, event.job)
            case Finished():
                self._finished[index] = event.at
            case _:
                self._take_rare(event, index)

    def times_of(self, index: int) -> ItemTimes:
        """The moments of the item at an index of the input; all of them None for one that was never heard of."""
        if not 0 <= index < len(self._submitted):
            return ItemTimes()
        return ItemTimes(
            submitted=_known(self._submitted[index]),
            running=_known(self._running[index]),
            finished=_known(self._finished[index]),
            saved=_known(self._saved[index]),
            submits=self._submits[index],
            failed_polls=self._failed_polls[index],
        )

    def _grow(self, rows: int) -> None:
        for column in (self._submitted, self._running, self._finished, self._saved):
            column.extend([_NEVER] * rows)
        for count in (self._submits, self._failed_polls):
            count.extend([0] * rows)

    def _take_rare(self, event: Event, index: int) -> None:
        match event:
            case Resumed() if event.job is not None and not event.job.is_final:
                self._submit(index, event.at, event.job)
            case Downloaded():
                self._saved[index] = event.at
                self.saved_bytes += event.size_bytes
            case PollFailed():
                self._failed_polls[index] += 1
                self.failed_polls += 1
                self._extend(self.outages, Span(event.at, event.at + event.delay))
            case _:
                self._take_trouble(event)

    def _take_trouble(self, event: Event) -> None:
        """What befalls no item in particular."""
        match event:
            case Throttled():
                self.throttles += 1
                self._extend(self.pauses, Span(event.at, event.at + event.delay))
            case Retrying():
                self.retries += 1

    def _submit(self, index: int, at: float, job: Job) -> None:
        if self._submits[index] == 0:
            self._submitted[index] = at
        self._running[index] = at if job.status is JobStatus.PROCESSING else _NEVER
        self._submits[index] += 1

    def _extend(self, spans: list[Span], span: Span) -> None:
        """Add a span to those of its kind, the last of which may reach up to it."""
        assert self.started is not None
        blur = (span.began - self.started) * _FINEST
        if spans and span.began <= spans[-1].ended + blur:
            spans[-1] = Span(spans[-1].began, max(spans[-1].ended, span.ended))
        else:
            spans.append(span)


def _known(at: float) -> float | None:
    return None if math.isnan(at) else at
