"""A batch's time line as a picture: where each job waited, ran and was saved, and what was in the way."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from statistics import median

import attrs
from markupsafe import Markup

from kling_async._display.colors import UNSAVED
from kling_async._display.page import clock_text
from kling_async.history import BatchHistory, TimeSpan
from kling_async.results import Result, ResultState

_WIDE = 10_000
"""Units across a picture."""
_LEAST = 14
"""Units that a stretch gets at least, or nobody would see it."""
_MARK = 50
"""Units at the end of a job whose video could not be saved; when that was given up is not known."""
_STEPS = 400
"""Points in time for which the jobs are counted."""
_AREA_HEIGHT = 96
_HEADROOM = 24
"""Pixels above the areas, for what is written there."""
_PADDING = 6
_ROWS_OF_THEIR_OWN = 40
_PITCHES = ((_ROWS_OF_THEIR_OWN, 16), (110, 8), (240, 4), (480, 2))
"""Up to so many lanes, each of so many pixels; more are thinner still."""
_FINEST_PITCH = 1
_MAX_TICKS = 6
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_LAST_MIDDLE = 97
"""Per cent of the width up to which a word has room on both sides."""
_MAX_BANDS = 300
_SLOW = 3.0
"""Times the usual time that make a job stand out."""
_FEWEST_FOR_USUAL = 5
QUEUED, RUNNING, UNSEEN, SAVING = "queued", "running", "unseen", "saving"
PHASES = (QUEUED, RUNNING, UNSEEN, SAVING, UNSAVED)
_AREAS = (RUNNING, QUEUED, SAVING)
"""What is stacked upon what."""


@attrs.frozen
class Segment:
    """A part of a job's time that is drawn in one colour."""

    kind: str
    """Such as `queued`; a job that did not succeed ends in its state's colour."""
    span: TimeSpan


@attrs.frozen
class Row:
    """One job on the time line."""

    result: Result
    segments: tuple[Segment, ...]
    lane: int = 0
    """The line that it is drawn on, from the top."""

    @property
    def began(self) -> float:
        """When the service took it."""
        return self.segments[0].span.began

    @property
    def ended(self) -> float:
        """When the last of it was over."""
        return self.segments[-1].span.ended

    @property
    def seconds(self) -> float:
        """How long the service had it."""
        return sum(
            segment.span.ended - segment.span.began for segment in self.segments if segment.kind != SAVING
        )


@attrs.frozen(kw_only=True)
class TimeLine:
    """Every job that the service took, laid out in lanes."""

    whole: TimeSpan
    rows: tuple[Row, ...]
    pauses: Sequence[TimeSpan] = ()
    outages: Sequence[TimeSpan] = ()

    @cached_property
    def lanes(self) -> int:
        """How many lines there are."""
        return max((row.lane for row in self.rows), default=-1) + 1

    @property
    def has_row_each(self) -> bool:
        """Whether each job has a line to itself."""
        return len(self.rows) <= _ROWS_OF_THEIR_OWN

    @property
    def pitch(self) -> int:
        """Pixels from line to line."""
        return next((pitch for lanes, pitch in _PITCHES if self.lanes <= lanes), _FINEST_PITCH)

    @cached_property
    def usual_seconds(self) -> float | None:
        """The median of the time that the service had a job; None for a handful of jobs."""
        times = [row.seconds for row in self.rows]
        return median(times) if len(times) >= _FEWEST_FOR_USUAL else None

    def slow_rows(self) -> list[Row]:
        """The jobs that took far longer than usual, the longest first."""
        usual = self.usual_seconds
        if not usual:
            return []
        slow = [row for row in self.rows if row.seconds > _SLOW * usual]
        return sorted(slow, key=lambda row: -row.seconds)

    def kinds(self) -> set[str]:
        """The kinds of stretches that occur."""
        return {segment.kind for row in self.rows for segment in row.segments}

    def units(self, at: float) -> int:
        """Where a moment is on the picture, from 0 to 10,000."""
        share = (at - self.whole.began) / (self.whole.ended - self.whole.began)
        return round(min(max(share, 0.0), 1.0) * _WIDE)


def time_line(results: Iterable[Result], history: BatchHistory) -> TimeLine | None:
    """The time line of a batch; None where the service took no job."""
    rows = [row for result in results if (row := _row(result, history)) is not None]
    if not rows:
        return None
    rows.sort(key=lambda row: (row.began, row.result.index))
    # A machine's clock may be set while a batch runs; a picture of no width would divide by nothing.
    ended = max(history.ended, history.started + 0.001)
    return TimeLine(
        whole=TimeSpan(history.started, ended),
        rows=tuple(_in_lanes(rows)),
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
        segments.append(Segment(QUEUED, TimeSpan(times.submitted, times.running)))
        segments.append(Segment(last, TimeSpan(times.running, finished)))
    else:
        segments.append(Segment(UNSEEN if result.ok else last, TimeSpan(times.submitted, finished)))
    if times.saved is not None:
        segments.append(Segment(SAVING, TimeSpan(finished, times.saved)))
    elif result.ok and result.error is not None:
        segments.append(Segment(UNSAVED, TimeSpan(finished, finished)))
    return Row(result, tuple(segments))


def _in_lanes(rows: Sequence[Row]) -> list[Row]:
    """The rows, each in the first lane that is free when it begins; few rows get a lane each."""
    if len(rows) <= _ROWS_OF_THEIR_OWN:
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


def rows_picture(line: TimeLine) -> Markup:
    """An SVG with a bar for each job, as wide as its container."""
    pitch, height = line.pitch, line.lanes * line.pitch + 2 * _PADDING
    paths: dict[str, list[str]] = {}
    for row in line.rows:
        y = _PADDING + row.lane * pitch + pitch / 2
        for segment in row.segments:
            begin, end = line.units(segment.span.began), line.units(segment.span.ended)
            if segment.kind == UNSAVED:
                begin = max(begin - _MARK, line.units(row.began))
            paths.setdefault(segment.kind, []).append(f"M{begin} {y:g}H{max(end, begin + _LEAST)}")
    marks_last = sorted(paths.items(), key=lambda path: path[0] == UNSAVED)
    bars = Markup('<g stroke-width="{:g}">{}</g>').format(
        max(pitch * 0.7, pitch - 4), Markup().join(_path(kind, "".join(parts)) for kind, parts in marks_last)
    )
    labels = _row_labels(line) if line.has_row_each else Markup()
    scale = Markup(
        'class="rows" data-pitch="{}" data-padding="{}" data-began="{:.3f}" data-ended="{:.3f}"'
    ).format(pitch, _PADDING, line.whole.began, line.whole.ended)
    return _picture(line, height, bars, labels, attributes=scale)


def _path(kind: str, commands: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(kind, commands)


def _row_labels(line: TimeLine) -> Markup:
    """The number of each job beside its bar, on the side that has room."""
    labels = []
    for row in line.rows:
        begin, end = line.units(row.began), line.units(row.ended)
        y = _PADDING + (row.lane + 0.5) * line.pitch
        x, anchor, shift = (end, "start", 6) if end < _WIDE * 0.92 else (begin, "end", -6)
        labels.append(
            Markup('<text x="{:g}%" y="{:g}" dx="{}" dy=".34em" text-anchor="{}">#{}</text>').format(
                x / 100, y, shift, anchor, row.result.index
            )
        )
    return Markup().join(labels)


def area_picture(line: TimeLine) -> Markup:
    """An SVG of how many jobs were queued, running and being saved at each moment."""
    counts = _counts(line)
    most = most_at_once(line)
    height = _AREA_HEIGHT + _HEADROOM
    floor = [0] * _STEPS
    paths = []
    for kind in _AREAS:
        top = [low + count for low, count in zip(floor, counts[kind], strict=True)]
        if any(counts[kind]):
            paths.append(_path(kind, _area(floor, top, most)))
        floor = top
    label = Markup('<text x="0" y="{}" dx="6">{:,} at once</text>').format(_HEADROOM - 8, most)
    return _picture(line, height, Markup().join(paths), label, attributes=Markup('class="areas"'))


def most_at_once(line: TimeLine) -> int:
    """How many jobs there were at the same time, at most: those being downloaded too."""
    changes = sorted(change for row in line.rows for change in ((row.began, 1), (row.ended, -1)))
    return max(1, *accumulate(change for _, change in changes))


def _counts(line: TimeLine) -> Mapping[str, list[int]]:
    """For each area, how many jobs it holds in the middle of each step."""
    changes = {kind: [0] * (_STEPS + 1) for kind in _AREAS}
    for row in line.rows:
        for segment in row.segments:
            column = changes[segment.kind if segment.kind in changes else RUNNING]
            column[_step(line, segment.span.began)] += 1
            column[_step(line, segment.span.ended)] -= 1
    return {kind: list(accumulate(column))[:_STEPS] for kind, column in changes.items()}


def _step(line: TimeLine, at: float) -> int:
    """The first step whose middle is not before a moment."""
    return math.ceil(line.units(at) * _STEPS / _WIDE - 0.5)


def _area(floor: Sequence[int], top: Sequence[int], most: int) -> str:
    """A closed path between two lines of steps."""
    wide = _WIDE // _STEPS

    def y(count: int) -> str:
        return f"{_HEADROOM + _AREA_HEIGHT * (1 - count / most):.1f}"

    there = "".join(f"V{y(count)}H{(step + 1) * wide}" for step, count in enumerate(top))
    back = "".join(f"V{y(count)}H{step * wide}" for step, count in reversed(list(enumerate(floor))))
    return f"M0 {y(floor[0])}{there}{back}Z"


def _picture(line: TimeLine, height: float, drawing: Markup, labels: Markup, *, attributes: Markup) -> Markup:
    """The drawing over its grid and bands. Only its width is stretched, and its text is not."""
    grid = Markup().join(
        Markup('<line x1="{0:g}%" x2="{0:g}%" y1="0" y2="{1:g}"/>').format(x, height) for x, _ in ticks(line)
    )
    return Markup(
        '<svg {0} width="100%" height="{1:g}" aria-hidden="true" focusable="false">{2}<g class="grid">{3}</g>'
        '<svg width="100%" height="{1:g}" viewBox="0 0 {4} {1:g}" preserveAspectRatio="none">{5}</svg>{6}</svg>'
    ).format(attributes, height, _bands(line, height), grid, _WIDE, drawing, labels)


def _bands(line: TimeLine, height: float) -> Markup:
    """A band across all rows for each pause and each outage."""
    bands = []
    for name, spans in (("pause", line.pauses), ("outage", line.outages)):
        for span in spans[:_MAX_BANDS]:
            begin, end = line.units(span.began) / 100, line.units(span.ended) / 100
            bands.append(
                Markup('<rect class="{}" x="{:g}%" y="0" width="{:.4g}%" height="{:g}"/>').format(
                    name, begin, max(end - begin, 0.1), height
                )
            )
    return Markup().join(bands)


def ticks(line: TimeLine) -> list[tuple[float, str]]:
    """Round times since the beginning: where, in per cent, and what is written there."""
    seconds = line.whole.ended - line.whole.began
    days = _TICKS[-1] * (1 + seconds // (_TICKS[-1] * _MAX_TICKS))
    step = next((step for step in _TICKS if seconds / step <= _MAX_TICKS), days)
    count = int(seconds // step)
    return [(100 * step * tick / seconds, clock_text(step * tick)) for tick in range(count + 1)]


def axis_picture(line: TimeLine) -> Markup:
    """An SVG of the round times since the beginning."""
    words = Markup().join(
        Markup('<text x="{:g}%" y="14" text-anchor="{}">{}</text>').format(x, _anchor(x), word)
        for x, word in ticks(line)
    )
    return Markup(
        '<svg class="axis" width="100%" height="20" aria-hidden="true" focusable="false">{}</svg>'
    ).format(words)


def _anchor(x: float) -> str:
    """Which end of a word stands at its place, so that none leaves the picture."""
    if x == 0:
        return "start"
    return "middle" if x < _LAST_MIDDLE else "end"


def mini_picture(row: Row) -> Markup:
    """An SVG of one job's own time, from its submit to its end."""
    began, seconds = row.began, max(row.ended - row.began, 0.001)
    bars = []
    for segment in row.segments:
        x = 1000 * (segment.span.began - began) / seconds
        width = max(1000 * (segment.span.ended - segment.span.began) / seconds, 8)
        if segment.kind == UNSAVED:
            x, width = 1000 - _MARK, _MARK
        bars.append(
            Markup('<rect class="{}" x="{:.0f}" width="{:.0f}" height="1"/>').format(segment.kind, x, width)
        )
    return Markup(
        '<svg class="mini" viewBox="0 0 1000 1" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        "{}</svg>"
    ).format(Markup().join(bars))


WORDS: Mapping[str, str] = {
    QUEUED: "queued",
    RUNNING: "running",
    UNSEEN: "queued or running",
    SAVING: "downloading",
    UNSAVED: "not saved",
    ResultState.FAILED: "to its failure",
    ResultState.CANCELLED: "to its end",
    ResultState.TIMED_OUT: "to the end of the wait",
}
"""What a job did for the seconds of a stretch."""
