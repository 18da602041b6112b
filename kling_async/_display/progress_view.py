"""A batch's tally as HTML for a notebook, and as one line of text where no HTML is shown. Knows no notebook."""

from __future__ import annotations

import math
from enum import Enum, auto

import attrs

from kling_async._display.page import duration_text, escape, isolate, money_text
from kling_async._display.progress_counts import ProgressCounts
from kling_async._display.tiles import AMBER, FAINT, GROUND, RED, TEAL, dot, join, wrap

_PALE_TEAL = "rgba(20,145,127,.5)"
_PALE_GREY = "rgba(128,128,128,.5)"
_WIDEST = "max-width:640px"
_MOST_IDS = 20
_MINUTE = 60.0
_HOUR = 3600.0
_SOON = 10.0


class BatchPhase(Enum):
    """How far a batch is as a whole."""

    RUNNING = auto()
    DONE = auto()
    STOPPED = auto()
    """Left before its end, by the caller or by an error."""


@attrs.frozen(kw_only=True)
class ProgressView:
    """A batch as it stands at one moment."""

    counts: ProgressCounts
    seconds: float
    """Since it began."""
    pace: float = 0.0
    """Jobs that ended for each second; 0 before any has."""
    seconds_left: float | None = None
    """Until it ends, if all goes on as it went; None where nobody can know yet."""
    is_kept: bool = False
    """Whether a journal knows all of it, so that the same call goes on where it stopped."""
    phase: BatchPhase = BatchPhase.RUNNING

    def html(self) -> str:
        """Some lines and a bar."""
        line = "&emsp;".join(_spot(*count) for count in self._labelled_counts())
        return wrap(
            f'<div style="display:flex;justify-content:space-between;gap:16px;{_WIDEST}">'
            f"<strong>{self._headline()}</strong>"
            f'<span style="{FAINT}">{self._times()}</span></div>',
            _bar(self.counts),
            f'<div style="{_WIDEST}">{line}</div>' if line else "",
            f'<div style="{_WIDEST}">{dot(AMBER)} {isolate(self._note)}</div>' if self._note else "",
            self._way_on() if self.phase is BatchPhase.STOPPED and self.counts.open_ids else "",
        )

    def text(self) -> str:
        """The same in one line."""
        words = [f"{count:,} {word}" for count, word, _ in self._labelled_counts()]
        return join([self._headline(), *words, self._times(), self._note or ""])

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
        """What was spent, how fast, how long, and how long still."""
        spent = self.counts.spent_usd
        is_open = self.phase is BatchPhase.RUNNING and self.counts.total is not None
        return join(
            [
                f"{money_text(spent)} spent" if spent is not None else "",
                pace_text(self.pace),
                _clock(self.seconds),
                left_text(self.seconds_left) if is_open else "",
            ]
        )

    def _way_on(self) -> str:
        """What goes on without us, and what picks it up."""
        counts = self.counts
        alive = len(counts.running_ids)
        made = len(counts.open_ids) - alive
        told = [
            f"{alive:,} {'job goes' if alive == 1 else 'jobs go'} on at the service" if alive else "",
            f"{made:,} {'video is' if made == 1 else 'videos are'} made and not saved" if made else "",
        ]
        advice = (
            "Run the cell again: the journal picks up everything." if self.is_kept else _lines_to_run(counts)
        )
        return f'<div style="{_WIDEST}">{dot(AMBER)} {"; ".join(filter(None, told))}.</div>{advice}'

    def _labelled_counts(self) -> list[tuple[int, str, str | None]]:
        """Each count that is not zero, its word and its colour, from the start of an item's life to its end."""
        counts = self.counts
        is_over, is_done = self.phase is not BatchPhase.RUNNING, self.phase is BatchPhase.DONE
        unsaved = counts.unsaved
        kept = counts.succeeded - unsaved
        parts = (
            (counts.waiting, "waiting", None),
            (counts.queued, "queued", _PALE_GREY),
            (counts.running, "running", _PALE_TEAL),
            (unsaved, "not saved" if is_over else "being saved", AMBER if is_over else TEAL),
            (0 if is_done else kept, "saved" if counts.saves else "made", TEAL),
            (counts.failed, "failed", RED),
        )
        return [part for part in parts if part[0] > 0]


def pace_text(per_second: float) -> str:
    """Such as `12 a minute`; empty before there is anything to tell."""
    if per_second * _MINUTE >= 1:
        return f"{per_second * _MINUTE:,.0f} a minute"
    return f"{per_second * _HOUR:,.1f} an hour" if per_second > 0 else ""


def _clock(seconds: float) -> str:
    """Whole seconds, so that little changes from one look to the next."""
    return f"{seconds:.0f} s" if seconds < _MINUTE else duration_text(seconds)


def left_text(seconds: float | None) -> str:
    """Such as `about 4 min left`: no finer than anyone can know."""
    if seconds is None:
        return "time left not known yet"
    if seconds < _SOON:
        return "a few seconds left"
    if seconds < _MINUTE:
        return f"about {math.ceil(seconds / _SOON) * _SOON:.0f} s left"
    if seconds < _HOUR:
        return f"about {seconds / _MINUTE:.0f} min left"
    return f"about {seconds / _HOUR:,.1f} h left"


def _spot(count: int, word: str, color: str | None) -> str:
    spot = dot(color) if color else f'<span aria-hidden="true" style="{FAINT}">\N{WHITE CIRCLE}</span>'
    return f'<span style="white-space:nowrap">{spot} {count:,} {word}</span>'


def _bar(counts: ProgressCounts) -> str:
    """Shares of the whole, side by side; nothing where nobody knows how much the whole is."""
    if not counts.total:
        return ""
    shares = (
        (counts.succeeded, TEAL),
        (counts.failed, RED),
        (counts.running, _PALE_TEAL),
        (counts.queued, _PALE_GREY),
    )
    pieces = "".join(
        f'<span style="display:inline-block;height:8px;width:{100 * count / counts.total:.3f}%;background:{color}">'
        "</span>"
        for count, color in shares
        if count
    )
    style = (
        f"height:8px;margin:6px 0;border-radius:4px;overflow:hidden;white-space:nowrap;font-size:0;line-height:0;"
        f"{_WIDEST};{GROUND}"
    )
    return (
        f'<div role="progressbar" aria-label="videos ended" aria-valuemin="0" aria-valuemax="{counts.total}" '
        f'aria-valuenow="{counts.ended}" style="{style}">{pieces}</div>'
    )


def _lines_to_run(counts: ProgressCounts) -> str:
    """A cell that waits for the jobs by their ids."""
    ids = counts.open_ids
    more = f"  # and {len(ids) - _MOST_IDS:,} more" if len(ids) > _MOST_IDS else ""
    listed = "".join(f"    {request_id!r},\n" for request_id in ids[:_MOST_IDS])
    step = 'await client.download(job, "videos/")' if counts.saves else "print(job.video_url)"
    code = f"for request_id in [\n{listed}]:{more}\n    job = await client.wait(request_id)\n    {step}"
    return (
        f'<details style="{_WIDEST}"><summary style="cursor:pointer">Pick up with these lines</summary>'
        f'<pre style="margin:4px 0;padding:8px;border-radius:6px;font-size:12px;overflow:auto;{GROUND}">'
        f"{escape(code)}</pre></details>"
    )
