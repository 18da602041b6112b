"""The time line of a batch: a row of segments for each job, laid out in lanes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from statistics import median

import attrs

from kling_async._display.colors import UNSAVED
from kling_async.history import BatchHistory, TimeSpan
from kling_async.results import Result, ResultState

WIDTH = 10_000
"""The width of a picture, in units."""
_MAX_OWN_LANES = 40
_PITCHES = ((_MAX_OWN_LANES, 16), (110, 8), (240, 4), (480, 2))
"""A number of lanes, and the height in pixels of each lane up to that number."""
_SMALLEST_PITCH = 1
_SLOW = 3.0
"""A job is slow if it takes this many times the usual time."""
_MIN_JOBS_FOR_USUAL = 5
QUEUED, RUNNING, UNSEEN, SAVING = "queued", "running", "unseen", "saving"
PHASES = (QUEUED, RUNNING, UNSEEN, SAVING, UNSAVED)


@attrs.frozen
class Segment:
    """A part of a job's time that is drawn in one colour."""

    kind: str
    """Such as `queued`; the last segment of a job that did not succeed has its state as its kind."""
    span: TimeSpan


@attrs.frozen
class Row:
    """One job on the time line."""

    result: Result
    segments: tuple[Segment, ...]
    lane: int = 0
    """The lane of its bar, from 0 at the top."""
    is_resumed: bool = False
    """Whether an earlier run submitted the job: its bar begins when this run resumed it."""

    @property
    def began(self) -> float:
        """When the service accepted the job."""
        return self.segments[0].span.began

    @property
    def ended(self) -> float:
        """When its last segment ended."""
        return self.segments[-1].span.ended

    @property
    def seconds(self) -> float:
        """Seconds from the submit to the end, without the download."""
        return sum(
            segment.span.ended - segment.span.began for segment in self.segments if segment.kind != SAVING
        )


@attrs.frozen(kw_only=True)
class TimeLine:
    """All jobs that the service accepted, laid out in lanes."""

    whole: TimeSpan
    rows: tuple[Row, ...]
    pauses: Sequence[TimeSpan] = ()
    outages: Sequence[TimeSpan] = ()

    @cached_property
    def lanes(self) -> int:
        """The number of lanes."""
        return max((row.lane for row in self.rows), default=-1) + 1

    @property
    def has_row_each(self) -> bool:
        """Whether each job has a lane of its own."""
        return len(self.rows) <= _MAX_OWN_LANES

    @property
    def pitch(self) -> int:
        """The height of a lane, in pixels."""
        return next((pitch for lanes, pitch in _PITCHES if self.lanes <= lanes), _SMALLEST_PITCH)

    @cached_property
    def usual_seconds(self) -> float | None:
        """The median of the `seconds` of jobs that this run submitted; None if there are too few."""
        times = [row.seconds for row in self.rows if not row.is_resumed]
        return median(times) if len(times) >= _MIN_JOBS_FOR_USUAL else None

    def slow_rows(self) -> list[Row]:
        """The jobs that took much longer than usual, the longest first."""
        usual = self.usual_seconds
        if not usual:
            return []
        slow = [row for row in self.rows if row.seconds > _SLOW * usual]
        return sorted(slow, key=lambda row: -row.seconds)

    def kinds(self) -> set[str]:
        """The kinds of all segments."""
        return {segment.kind for row in self.rows for segment in row.segments}

    def units(self, at: float) -> int:
        """The position of a moment on the picture, from 0 to 10,000."""
        share = (at - self.whole.began) / (self.whole.ended - self.whole.began)
        return round(min(max(share, 0.0), 1.0) * WIDTH)


def time_line(results: Iterable[Result], history: BatchHistory) -> TimeLine | None:
    """The time line of a batch; None if the service accepted no job."""
    rows = [row for result in results if (row := _row(result, history)) is not None]
    if not rows:
        return None
    rows.sort(key=lambda row: (row.began, row.result.index))
    # The machine's clock may be set back while a batch runs, and `units` divides by the length of the time line.
    ended = max(history.ended, history.started + 0.001)
    return TimeLine(
        whole=TimeSpan(history.started, ended),
        rows=tuple(_assign_lanes(rows)),
        pauses=history.pauses,
        outages=history.outages,
    )


def _row(result: Result, history: BatchHistory) -> Row | None:
    times = history.times_of(result.index)
    if times.submitted is None:
        return None
    finished = times.finished if times.finished is not None else history.ended
    segments = []
    last = RUNNING if result.ok else str(result.state)
    if times.running is not None:
        if times.running > times.submitted:  # else this run resumed a job that was running
            segments.append(Segment(QUEUED, TimeSpan(times.submitted, times.running)))
        segments.append(Segment(last, TimeSpan(times.running, finished)))
    else:
        segments.append(Segment(UNSEEN if result.ok else last, TimeSpan(times.submitted, finished)))
    if times.saved is not None:
        segments.append(Segment(SAVING, TimeSpan(finished, times.saved)))
    elif result.is_unsaved:
        segments.append(Segment(UNSAVED, TimeSpan(finished, finished)))
    return Row(result, tuple(segments), is_resumed=times.is_resumed)


def _assign_lanes(rows: Sequence[Row]) -> list[Row]:
    """The rows, each in the first lane that is free when the row begins; few rows get a lane each."""
    if len(rows) <= _MAX_OWN_LANES:
        return [attrs.evolve(row, lane=lane) for lane, row in enumerate(rows)]
    placed: list[Row] = []
    free: list[int] = []
    taken: list[tuple[float, int]] = []
    for row in rows:
        while taken and taken[0][0] <= row.began:
            heapq.heappush(free, heapq.heappop(taken)[1])
        lane = heapq.heappop(free) if free else len(taken)
        heapq.heappush(taken, (row.ended, lane))
        placed.append(attrs.evolve(row, lane=lane))
    return placed


def most_at_once(line: TimeLine) -> int:
    """The largest number of jobs in flight at the same time; a job whose video is being saved has ended."""
    spans = [(row.began, row.began + row.seconds) for row in line.rows]
    changes = sorted(change for began, ended in spans for change in ((began, 1), (ended, -1)))
    return max(1, *accumulate(change for _, change in changes))


WORDS: Mapping[str, str] = {
    QUEUED: "queued",
    RUNNING: "running",
    UNSEEN: "queued or running",
    SAVING: "until saved",
    UNSAVED: "not saved",
    ResultState.FAILED: "to its failure",
    ResultState.CANCELLED: "to its end",
    ResultState.TIMED_OUT: "to the end of the wait",
    ResultState.AMBIGUOUS: "to the lost answer of a further submit",
    ResultState.NOT_SUBMITTED: "to its end",
}
"""What a job does during a segment of each kind: a phase, or any state but success."""
