"""The time line of a batch as SVG: areas of jobs over time, a bar for each job, and the axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from markupsafe import Markup

from kling_async._display.colors import UNSAVED
from kling_async._display.timeline import QUEUED, RUNNING, SAVING, WIDTH, Row, TimeLine, most_at_once
from kling_async.lines import clock_text

_MIN_WIDTH = 14
"""The smallest width of a segment, in units; a smaller one would be invisible."""
_MARK = 50
"""The width of the mark at the end of a job whose video could not be saved; no event says when the save failed."""
_STEPS = 400
"""The number of moments at which the areas count the jobs."""
_AREA_HEIGHT = 96
_HEADROOM = 24
"""Pixels above the areas, for their label."""
_PADDING = 6
_MAX_TICKS = 6
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
_FIRST_MIDDLE, _LAST_MIDDLE = 8, 92
"""Per cent of the width; from the one to the other, a word has room on both sides, also on a phone."""
_MAX_BANDS = 300
_AREAS = (RUNNING, QUEUED)
"""The areas, from the bottom to the top."""
_LABEL_ROOM = 0.15
"""The share of the width that a number needs beside its bar, on the narrowest phone."""


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
            paths.setdefault(segment.kind, []).append(f"M{begin} {y:g}H{max(end, begin + _MIN_WIDTH)}")
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
    """The number of each job beside its bar, on the side that has room; on the bar if neither has."""
    labels = []
    for row in line.rows:
        begin, end = line.units(row.began), line.units(row.ended)
        y = _PADDING + (row.lane + 0.5) * line.pitch
        x, anchor, shift = begin, "start", 6
        if end <= WIDTH * (1 - _LABEL_ROOM):
            x = end
        elif begin >= WIDTH * _LABEL_ROOM:
            anchor, shift = "end", -6
        labels.append(
            Markup('<text x="{:g}%" y="{:g}" dx="{}" dy=".34em" text-anchor="{}">#{}</text>').format(
                x / 100, y, shift, anchor, row.result.index
            )
        )
    return Markup().join(labels)


def area_picture(line: TimeLine) -> Markup:
    """An SVG of how many jobs were queued and running at each moment."""
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


def _counts(line: TimeLine) -> Mapping[str, list[int]]:
    """For each area, its number of jobs in the middle of each step."""
    changes = {kind: [0] * (_STEPS + 1) for kind in _AREAS}
    for row in line.rows:
        for segment in row.segments:
            if segment.kind == SAVING:
                continue
            column = changes[segment.kind if segment.kind in changes else RUNNING]
            column[_step(line, segment.span.began)] += 1
            column[_step(line, segment.span.ended)] -= 1
    return {kind: list(accumulate(column))[:_STEPS] for kind, column in changes.items()}


def _step(line: TimeLine, at: float) -> int:
    """The first step whose middle is not before a moment."""
    return math.ceil(line.units(at) * _STEPS / WIDTH - 0.5)


def _area(floor: Sequence[int], top: Sequence[int], most: int) -> str:
    """A closed path between two lines of steps."""
    wide = WIDTH // _STEPS

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
    ).format(attributes, height, _bands(line, height), grid, WIDTH, drawing, labels)


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
    """Round times since the beginning: the position in per cent, and the text."""
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
    """The end of a word that stands at its position, so that no word leaves the picture."""
    if x < _FIRST_MIDDLE:
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
