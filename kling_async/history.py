"""When each item of a batch was submitted, running, finished and saved: a frozen value, and a listener that makes one."""

from __future__ import annotations

import math
from array import array
from struct import Struct
from typing import ClassVar

import attrs

from kling_async._field_docs import describe_fields
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

_SUBMITTED, _RUNNING, _FINISHED, _SAVED, _SUBMITS, _FAILED_POLLS = range(6)
"""The columns of an item's row."""
_ROW = Struct("6d")
_EMPTY_ROW = (math.nan, math.nan, math.nan, math.nan, 0.0, 0.0)
_GROWTH = 256
"""Rows that are added at once: events come nearly in the order of the items, and adding single rows is slow."""
_SMALLEST_GAP = 1 / 500
"""Two time spans become one if the gap between them is a smaller share of the batch: a picture cannot show it."""


@attrs.frozen
class TimeSpan:
    """From one moment to another, in Unix seconds."""

    began: float
    ended: float


@attrs.frozen(kw_only=True)
class ItemTimes:
    """When an item reached each state, in Unix seconds by this machine's clock; None for a state that was not seen."""

    submitted: float | None = None
    """When the service accepted its first job. For a job of an earlier run: when this run resumed it."""
    running: float | None = None
    """When a poll first saw its job running. None also if the job finished before the first poll."""
    finished: float | None = None
    """When its final state was known."""
    saved: float | None = None
    """When its video was complete on disk."""
    submits: int = 0
    """How many jobs the service accepted for it in this run; more than one if jobs failed because of a rate limit."""
    failed_polls: int = 0
    """How many status calls for it failed."""

    @property
    def is_resumed(self) -> bool:
        """Whether this run only waited for the end of an earlier run's job, so that no time here is that of the whole job."""
        return self.submitted is not None and self.submits == 0


@attrs.frozen(kw_only=True)
class BatchHistory:
    """What happened during a batch, and when; a report draws its time line from this."""

    started: float
    """When the first event came, in Unix seconds."""
    ended: float
    """When the last event came, in Unix seconds."""
    saved_bytes: int = 0
    """The size of all saved videos."""
    retries: int = 0
    """How many calls were sent again."""
    throttles: int = 0
    """How many times all submits paused."""
    failed_polls: int = 0
    """How many status calls failed, for all items together."""
    pauses: tuple[TimeSpan, ...] = ()
    """When the batch submitted nothing, because the service had asked to slow down or had an outage."""
    outages: tuple[TimeSpan, ...] = ()
    """When status calls failed."""
    rows: bytes = attrs.field(default=b"", repr=False)
    """The times of all items, packed: 48 bytes an item. Read them with `times_of`."""

    def times_of(self, index: int) -> ItemTimes:
        """The times of one item; all None if no event named the item.

        Args:
            index: The item's place in the input, from 0.
        """
        if not 0 <= index < len(self.rows) // _ROW.size:
            return ItemTimes()
        submitted, running, finished, saved, submits, failed_polls = _ROW.unpack_from(
            self.rows, index * _ROW.size
        )
        return ItemTimes(
            submitted=_none_if_nan(submitted),
            running=_none_if_nan(running),
            finished=_none_if_nan(finished),
            saved=_none_if_nan(saved),
            submits=int(submits),
            failed_polls=int(failed_polls),
        )


@attrs.define(eq=False)
class HistoryRecorder:
    """Makes a `BatchHistory` from a batch's events; pass it as `on_event`.

    It keeps 48 bytes an item, because a batch may have a hundred thousand.
    """

    _is_own: ClassVar[bool] = True  # see `Notifier`
    _started: float | None = attrs.field(init=False, default=None)
    _ended: float = attrs.field(init=False, default=0.0)
    _saved_bytes: int = attrs.field(init=False, default=0)
    _retries: int = attrs.field(init=False, default=0)
    _throttles: int = attrs.field(init=False, default=0)
    _failed_polls: int = attrs.field(init=False, default=0)
    _pauses: list[TimeSpan] = attrs.field(init=False, factory=list)
    _outages: list[TimeSpan] = attrs.field(init=False, factory=list)
    _rows: array[float] = attrs.field(init=False, factory=lambda: array("d"))

    def build(self) -> BatchHistory | None:
        """The history so far; None before the first event."""
        if self._started is None:
            return None
        return BatchHistory(
            started=self._started,
            ended=self._ended,
            saved_bytes=self._saved_bytes,
            retries=self._retries,
            throttles=self._throttles,
            failed_polls=self._failed_polls,
            pauses=tuple(self._pauses),
            outages=tuple(self._outages),
            rows=self._rows.tobytes(),
        )

    def __call__(self, event: Event) -> None:
        """Record one event."""
        if self._started is None:
            self._started = event.at
        self._ended = event.at
        if event.index is None:
            self._record_trouble(event)
            return
        row = event.index * len(_EMPTY_ROW)
        if row >= len(self._rows):
            missing = event.index - len(self._rows) // len(_EMPTY_ROW)
            self._rows.extend(_EMPTY_ROW * (missing + _GROWTH))
        # These patterns name classes only: patterns that read attributes take several times as long.
        match event:
            case StatusChanged():
                if event.status is JobStatus.PROCESSING:
                    self._rows[row + _RUNNING] = event.at
            case Submitted() | SubmitReconciled():
                self._record_submit(row, event.at, event.job)
            case Finished():
                self._rows[row + _FINISHED] = event.at
            case _:
                self._record_rare(event, row)

    def _record_rare(self, event: Event, row: int) -> None:
        match event:
            case Resumed() if event.job is not None and not event.job.is_final:
                self._rows[row + _SUBMITTED] = event.at
                if event.job.status is JobStatus.PROCESSING:
                    self._rows[row + _RUNNING] = event.at
            case Downloaded():
                self._rows[row + _SAVED] = event.at
                self._saved_bytes += event.size_bytes
            case PollFailed():
                self._rows[row + _FAILED_POLLS] += 1
                self._failed_polls += 1
                self._add_span(self._outages, TimeSpan(event.at, event.at + event.delay))
            case _:
                self._record_trouble(event)

    def _record_trouble(self, event: Event) -> None:
        """Record what happens to the whole batch and not to one item."""
        match event:
            case Throttled():
                self._throttles += 1
                self._add_span(self._pauses, TimeSpan(event.at, event.at + event.delay))
            case Retrying():
                self._retries += 1

    def _record_submit(self, row: int, at: float, job: Job) -> None:
        if self._rows[row + _SUBMITS] == 0:
            self._rows[row + _SUBMITTED] = at
        self._rows[row + _RUNNING] = at if job.status is JobStatus.PROCESSING else math.nan
        self._rows[row + _SUBMITS] += 1

    def _add_span(self, spans: list[TimeSpan], span: TimeSpan) -> None:
        """Add a time span, or extend the last one if it reaches up to the new one."""
        assert self._started is not None
        gap = (span.began - self._started) * _SMALLEST_GAP
        if spans and span.began <= spans[-1].ended + gap:
            spans[-1] = TimeSpan(spans[-1].began, max(spans[-1].ended, span.ended))
        else:
            spans.append(span)


def _none_if_nan(at: float) -> float | None:
    return None if math.isnan(at) else at


describe_fields(__name__)
