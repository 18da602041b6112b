"""A batch's tally as HTML for a notebook, and as one line of text where no HTML is shown. Knows no notebook."""

from __future__ import annotations

import math
from enum import Enum, auto

import attrs

from kling_async._display.page import duration_text, escape, isolated, money_text
from kling_async._display.tally import Tally
from kling_async._display.tiles import AMBER, FAINT, GROUND, RED, TEAL, dot, framed, joined

_PALE_TEAL = "rgba(20,145,127,.5)"
_PALE_GREY = "rgba(128,128,128,.5)"
_WIDEST = "max-width:640px"
_MOST_IDS = 20
_MINUTE = 60.0
_HOUR = 3600.0
_SOON = 10.0


class Stage(Enum):
    """How far a batch is as a whole."""

    UNDER_WAY = auto()
    DONE = auto()
    STOPPED = auto()
    """Left before its end, by the caller or by an error."""


@attrs.frozen(kw_only=True)
class View:
    """A batch as it stands at one moment."""

    tally: Tally
    seconds: float
    """Since it began."""
    pace: float = 0.0
    """Jobs that ended for each second; 0 before any has."""
    seconds_left: float | None = None
    """Until it ends, if all goes on as it went; None where nobody can know yet."""
    is_kept: bool = False
    """Whether a journal knows all of it, so that the same call goes on where it stopped."""
    stage: Stage = Stage.UNDER_WAY

    def html(self) -> str:
        """Some lines and a bar."""
        counts = "&emsp;".join(_spot(*count) for count in self._counts())
        return framed(
            f'<div style="display:flex;justify-content:space-between;gap:16px;{_WIDEST}">'
            f"<strong>{self._headline()}</strong>"
            f'<span style="{FAINT}">{self._times()}</span></div>',
            _bar(self.tally),
            f'<div style="{_WIDEST}">{counts}</div>' if counts else "",
            f'<div style="{_WIDEST}">{dot(AMBER)} {isolated(self._note)}</div>' if self._note else "",
            self._way_on() if self.stage is Stage.STOPPED and self.tally.open_ids else "",
        )

    def text(self) -> str:
        """The same in one line."""
        counts = [f"{count:,} {word}" for count, word, _ in self._counts()]
        return joined([self._headline(), *counts, self._times(), self._note or ""])

    @property
    def _note(self) -> str | None:
        return self.tally.note if self.stage is Stage.UNDER_WAY else None

    def _headline(self) -> str:
        tally = self.tally
        total = f" of {tally.total:,}" if tally.total is not None else ""
        if self.stage is Stage.UNDER_WAY:
            return f"{tally.ended:,}{total} ended"
        stopped = "Stopped: " if self.stage is Stage.STOPPED else ""
        return f"{stopped}{tally.succeeded:,}{total} videos made"

    def _times(self) -> str:
        """What was spent, how fast, how long, and how long still."""
        spent = self.tally.spent_usd
        is_open = self.stage is Stage.UNDER_WAY and self.tally.total is not None
        return joined(
            [
                f"{money_text(spent)} spent" if spent is not None else "",
                pace_text(self.pace),
                _clock(self.seconds),
                left_text(self.seconds_left) if is_open else "",
            ]
        )

    def _way_on(self) -> str:
        """What goes on without us, and what picks it up."""
        tally = self.tally
        alive = len(tally.running_ids)
        made = len(tally.open_ids) - alive
        told = [
            f"{alive:,} {'job goes' if alive == 1 else 'jobs go'} on at the service" if alive else "",
            f"{made:,} {'video is' if made == 1 else 'videos are'} made and not saved" if made else "",
        ]
        advice = (
            "Run the cell again: the journal picks up everything." if self.is_kept else _lines_to_run(tally)
        )
        return f'<div style="{_WIDEST}">{dot(AMBER)} {"; ".join(filter(None, told))}.</div>{advice}'

    def _counts(self) -> list[tuple[int, str, str | None]]:
        """Each count that is not zero, its word and its colour, from the start of an item's life to its end."""
        tally = self.tally
        is_over, is_done = self.stage is not Stage.UNDER_WAY, self.stage is Stage.DONE
        unsaved = tally.unsaved
        kept = tally.succeeded - unsaved
        counts = (
            (tally.waiting, "waiting", None),
            (tally.queued, "queued", _PALE_GREY),
            (tally.running, "running", _PALE_TEAL),
            (unsaved, "not saved" if is_over else "being saved", AMBER if is_over else TEAL),
            (0 if is_done else kept, "saved" if tally.saves else "made", TEAL),
            (tally.failed, "failed", RED),
        )
        return [count for count in counts if count[0] > 0]


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


def _spot(count: int, word: str, tone: str | None) -> str:
    spot = dot(tone) if tone else f'<span aria-hidden="true" style="{FAINT}">\N{WHITE CIRCLE}</span>'
    return f'<span style="white-space:nowrap">{spot} {count:,} {word}</span>'


def _bar(tally: Tally) -> str:
    """Shares of the whole, side by side; nothing where nobody knows how much the whole is."""
    if not tally.total:
        return ""
    shares = (
        (tally.succeeded, TEAL),
        (tally.failed, RED),
        (tally.running, _PALE_TEAL),
        (tally.queued, _PALE_GREY),
    )
    pieces = "".join(
        f'<span style="display:inline-block;height:8px;width:{100 * count / tally.total:.3f}%;background:{tone}">'
        "</span>"
        for count, tone in shares
        if count
    )
    style = (
        f"height:8px;margin:6px 0;border-radius:4px;overflow:hidden;white-space:nowrap;font-size:0;line-height:0;"
        f"{_WIDEST};{GROUND}"
    )
    return (
        f'<div role="progressbar" aria-label="videos ended" aria-valuemin="0" aria-valuemax="{tally.total}" '
        f'aria-valuenow="{tally.ended}" style="{style}">{pieces}</div>'
    )


def _lines_to_run(tally: Tally) -> str:
    """A cell that waits for the jobs by their ids."""
    ids = tally.open_ids
    more = f"  # and {len(ids) - _MOST_IDS:,} more" if len(ids) > _MOST_IDS else ""
    listed = "".join(f"    {request_id!r},\n" for request_id in ids[:_MOST_IDS])
    step = 'await client.download(job, "videos/")' if tally.saves else "print(job.video_url)"
    code = f"for request_id in [\n{listed}]:{more}\n    job = await client.wait(request_id)\n    {step}"
    return (
        f'<details style="{_WIDEST}"><summary style="cursor:pointer">Pick up with these lines</summary>'
        f'<pre style="margin:4px 0;padding:8px;border-radius:6px;font-size:12px;overflow:auto;{GROUND}">'
        f"{escape(code)}</pre></details>"
    )
