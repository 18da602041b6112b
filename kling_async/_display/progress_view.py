"""The progress of a batch as HTML for a notebook, and as one line of text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum, auto

import attrs
from markupsafe import Markup, escape

from kling_async._display.colors import AMBER, RED, SLATE, TEAL
from kling_async._display.markup import isolate
from kling_async._display.page import duration_text
from kling_async._display.progress_counts import ProgressCounts
from kling_async._display.tiles import FAINT, GROUND, dot_before, faint, wrap
from kling_async.lines import money_text

_PALE_TEAL = "rgba(20,145,127,.5)"
_PALE_GREY = "rgba(128,128,128,.5)"
_MAX_WIDTH = "max-width:640px"
_MAX_IDS = 20
_MINUTE = 60.0
_HOUR = 3600.0
_SOON = 10.0


class BatchPhase(Enum):
    """Whether a batch is running, done or stopped."""

    RUNNING = auto()
    DONE = auto()
    STOPPED = auto()
    """The caller or an error ended it before all items had ended."""


@attrs.frozen(kw_only=True)
class ProgressView:
    """The progress of a batch at one moment."""

    counts: ProgressCounts
    seconds: float
    """Seconds since the batch started."""
    pace: float = 0.0
    """Finished jobs per second; 0 before the first."""
    seconds_left: float | None = None
    """The estimated seconds until the end; None before there is an estimate."""
    has_journal: bool = False
    """Whether the batch has a journal, from which the same call continues."""
    phase: BatchPhase = BatchPhase.RUNNING

    def html(self) -> Markup:
        """Some lines and a bar."""
        counts = Markup("&emsp;").join(_count_html(*count) for count in self._labelled_counts())
        return wrap(
            Markup(
                '<div style="display:flex;justify-content:space-between;gap:16px;{}"><strong>{}</strong>{}</div>'
            ).format(_MAX_WIDTH, self._headline(), faint(self._times())),
            _bar(self.counts),
            _line(counts) if counts else Markup(),
            _line(dot_before(isolate(self._note), AMBER.any_ground)) if self._note else Markup(),
            self._next_steps() if self.phase is BatchPhase.STOPPED and self.counts.pending_ids else Markup(),
        )

    def text(self) -> str:
        """The same as one line of text."""
        words = [f"{count:,} {word}" for count, word, _ in self._labelled_counts()]
        return _join([self._headline(), *words, self._times(), self._note or ""])

    @property
    def _note(self) -> str | None:
        return self.counts.note if self.phase is BatchPhase.RUNNING else None

    def _headline(self) -> str:
        counts = self.counts
        total = f" of {counts.total:,}" if counts.total is not None else ""
        if self.phase is BatchPhase.RUNNING:
            return f"{counts.ended:,}{total} ended"
        stopped = "Stopped: " if self.phase is BatchPhase.STOPPED else ""
        return f"{stopped}{counts.succeeded:,}{total} videos made"

    def _times(self) -> str:
        """The cost, the pace, the time so far, and the time left."""
        spent = self.counts.spent_usd
        is_open = self.phase is BatchPhase.RUNNING and self.counts.total is not None
        return _join(
            [
                f"{money_text(spent)} spent" if spent is not None else "",
                pace_text(self.pace),
                _clock(self.seconds),
                left_text(self.seconds_left) if is_open else "",
            ]
        )

    def _next_steps(self) -> Markup:
        """What continues at the service without this program, and how to resume it."""
        in_flight = len(self.counts.in_flight_ids)
        made = len(self.counts.pending_ids) - in_flight
        sentences = [
            f"{in_flight:,} {'job goes' if in_flight == 1 else 'jobs go'} on at the service"
            if in_flight
            else "",
            f"{made:,} {'video is' if made == 1 else 'videos are'} made and not saved" if made else "",
        ]
        sentence = f"{'; '.join(filter(None, sentences))}."
        advice = (
            escape("Run the cell again: the journal picks up everything.")
            if self.has_journal
            else _lines_to_run(self.counts)
        )
        return _line(dot_before(sentence, AMBER.any_ground)) + advice

    def _labelled_counts(self) -> list[tuple[int, str, str | None]]:
        """Each count that is not zero, with its word and its colour, in the order of an item's life."""
        counts = self.counts
        is_over, is_done = self.phase is not BatchPhase.RUNNING, self.phase is BatchPhase.DONE
        unsaved = counts.unsaved
        kept = counts.succeeded - unsaved
        parts = (
            (counts.waiting, "waiting", None),
            (counts.queued, "queued", _PALE_GREY),
            (counts.running, "running", _PALE_TEAL),
            (unsaved, "not saved" if is_over else "being saved", (AMBER if is_over else TEAL).any_ground),
            (0 if is_done else kept, "saved" if counts.saves else "made", TEAL.any_ground),
            (counts.failed, "failed", RED.any_ground),
            (counts.not_submitted, "not submitted", SLATE.any_ground),
        )
        return [part for part in parts if part[0] > 0]


def pace_text(per_second: float) -> str:
    """Such as `12 a minute`; empty for 0."""
    if per_second * _MINUTE >= 1:
        return f"{per_second * _MINUTE:,.0f} a minute"
    return f"{per_second * _HOUR:,.1f} an hour" if per_second > 0 else ""


def _clock(seconds: float) -> str:
    """Such as `42 s`: whole seconds, so that the display changes little."""
    return f"{seconds:.0f} s" if seconds < _MINUTE else duration_text(seconds)


def left_text(seconds: float | None) -> str:
    """Such as `about 4 min left`: no finer than the estimate is."""
    if seconds is None:
        return "time left not known yet"
    if seconds < _SOON:
        return "a few seconds left"
    if seconds < _MINUTE:
        return f"about {math.ceil(seconds / _SOON) * _SOON:.0f} s left"
    if seconds < _HOUR:
        return f"about {seconds / _MINUTE:.0f} min left"
    return f"about {seconds / _HOUR:,.1f} h left"


def _join(words: Iterable[str]) -> str:
    return " · ".join(filter(None, words))


def _line(content: Markup) -> Markup:
    return Markup('<div style="{}">{}</div>').format(_MAX_WIDTH, content)


def _count_html(count: int, word: str, color: str | None) -> Markup:
    text = f"{count:,} {word}"
    return Markup('<span style="white-space:nowrap">{}</span>').format(
        dot_before(text, color)
        if color
        else Markup('<span aria-hidden="true" style="{}">\N{WHITE CIRCLE}</span> {}').format(FAINT, text)
    )


def _bar(counts: ProgressCounts) -> Markup:
    """The shares of all items, side by side; empty if the number of all items is not known.

    Heights tell them apart for a reader who sees no difference between the colours.
    """
    if not counts.total:
        return Markup()
    shares = (
        (counts.succeeded, TEAL.any_ground, 8),
        (counts.failed, RED.any_ground, 6),
        (counts.not_submitted, SLATE.any_ground, 3),
        (counts.running, _PALE_TEAL, 4),
        (counts.queued, _PALE_GREY, 2),
    )
    pieces = Markup().join(
        Markup(
            '<span style="display:inline-block;vertical-align:bottom;height:{}px;width:{:.3f}%;background:{}"></span>'
        ).format(height, 100 * count / counts.total, color)
        for count, color, height in shares
        if count
    )
    return Markup(
        '<div role="progressbar" aria-label="videos ended" aria-valuemin="0" aria-valuemax="{}" aria-valuenow="{}" '
        'style="height:8px;margin:6px 0;border-radius:4px;overflow:hidden;white-space:nowrap;font-size:0;'
        'line-height:0;{};{}">{}</div>'
    ).format(counts.total, counts.ended, _MAX_WIDTH, GROUND, pieces)


def _lines_to_run(counts: ProgressCounts) -> Markup:
    """A cell that waits for the jobs by their ids."""
    ids = counts.pending_ids
    more = f"  # and {len(ids) - _MAX_IDS:,} more" if len(ids) > _MAX_IDS else ""
    listed = "".join(f"    {request_id!r},\n" for request_id in ids[:_MAX_IDS])
    step = 'await client.download(job, "videos/")' if counts.saves else "print(job.video_url)"
    code = f"for request_id in [\n{listed}]:{more}\n    job = await client.wait(request_id)\n    {step}"
    return Markup(
        '<details style="{}"><summary style="cursor:pointer">Pick up with these lines</summary>'
        '<pre style="margin:4px 0;padding:8px;border-radius:6px;font-size:12px;overflow:auto;{}">{}</pre></details>'
    ).format(_MAX_WIDTH, GROUND, code)
