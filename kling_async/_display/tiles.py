"""Videos as tiles for a notebook: player, prompt, state and facts, as HTML that survives what notebooks do to it.

Front ends throw away style sheets, scripts and classes in different measure, so each element carries its own style.
They have light and dark themes that a page cannot ask for, so text has the theme's own ink, lines and grounds are
half transparent, and a colour is only ever a dot or a bar that stands out from both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from kling_async._display.page import (
    duration_text,
    escape,
    isolate,
    media_source,
    money_text,
    picture_source,
    state_label,
    web_source,
)
from kling_async.jobs import Job, JobStatus
from kling_async.results import Result, ResultState

WIDTH = 256
"""Pixels of a tile among others."""
ALONE = 480
"""Pixels of a tile that stands alone."""
FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-size:13px;line-height:1.5"
FAINT = "opacity:.72"
GROUND = "background:rgba(128,128,128,.14)"
LINE = "rgba(128,128,128,.28)"

TEAL = "#14917f"
AMBER = "#b97a10"
RED = "#d9534a"
VIOLET = "#9a63cf"
SLATE = "#6f8299"
GREY = "#7f888e"
"""Each stands out from a white ground and from a black one: a contrast of 3 and more."""

COLORS: Mapping[ResultState | JobStatus, str] = {
    ResultState.SUCCEEDED: TEAL,
    ResultState.FAILED: RED,
    ResultState.CANCELLED: GREY,
    ResultState.TIMED_OUT: AMBER,
    ResultState.AMBIGUOUS: VIOLET,
    ResultState.NOT_SUBMITTED: SLATE,
    JobStatus.SUCCESS: TEAL,
    JobStatus.FAILED: RED,
    JobStatus.CANCELLED: GREY,
    JobStatus.PROCESSING: AMBER,
}
_SHORT_TEXT = 110
_LONG_TEXT = 280


@attrs.frozen(kw_only=True)
class Tile:
    """What is shown of one video; texts as they came, not yet escaped."""

    name: str
    """Its place in the batch, or the job's id."""
    prompt: str | None
    words: str
    """How it stands, or how it ended."""
    color: str
    facts: tuple[str, ...]
    trouble: str | None
    source: str | None
    """The video's address, as a page may name it."""
    path: Path | None
    """Where it was saved, if it is played from there."""
    picture: str | None


def make_tile(result: Result, *, beside: Path, inline_bytes: int = 0, seconds: float | None = None) -> Tile:
    """The tile of a batch's item.

    Args:
        result: The item.
        beside: The folder that the page's relative addresses begin at.
        inline_bytes: A local file of at most this size becomes part of the page.
        seconds: How long it took, where that was measured; else the service's own times count.
    """
    job = result.job
    source = media_source(result, beside=beside, inline_bytes=inline_bytes)
    is_local = source is not None and source != web_source(job.video_url if job else None)
    picture = picture_source(job)
    if is_local and picture is not None and picture.startswith("http:"):
        picture = None  # an emulator's, gone before the page is read again; the file has a beginning to show
    took = seconds if seconds is not None else job_seconds(job)
    return Tile(
        name=f"#{result.index}",
        prompt=result.request.prompt if result.request else echoed_prompt(job),
        words=state_label(result),
        color=AMBER if result.ok and result.error else COLORS[result.state],
        facts=(
            *([duration_text(took)] if took is not None else []),
            *([money_text(result.cost_usd)] if result.cost_usd is not None else []),
        ),
        trouble=failure_text(result),
        source=source,
        path=result.path if is_local else None,
        picture=picture,
    )


def make_job_tile(job: Job) -> Tile:
    """The tile of a job by itself."""
    took = job_seconds(job)
    source = web_source(job.video_url)
    word = job.raw.get("status") if job.status is JobStatus.UNKNOWN else None
    return Tile(
        name=job.request_id,
        prompt=echoed_prompt(job),
        words=str(word or job.status),
        color=COLORS.get(job.status, SLATE),
        facts=(duration_text(took),) if took is not None else (),
        trouble=job.failure_reason,
        source=source,
        path=None,
        picture=picture_source(job),
    )


def echoed_prompt(job: Job | None) -> str | None:
    """The prompt that the service echoes, where it does."""
    prompt = job.payload.get("prompt") if job else None
    return prompt if isinstance(prompt, str) else None


def job_seconds(job: Job | None) -> float | None:
    """From the submit to the end by the service's clock; None for a job that has no end, or no times."""
    if job is None or not job.is_final or job.created_at is None or job.updated_at is None:
        return None
    return (job.updated_at - job.created_at).total_seconds()


def failure_text(result: Result) -> str | None:
    """Why it has no video, or no file, in the service's own words where there are any."""
    reason = result.job.failure_reason if result.job and not result.ok else None
    return reason or (result.error.message if result.error else None)


def render_tile(tile: Tile, *, width: int = WIDTH) -> str:
    """A tile as an element that stands in a line with others."""
    state = f"{dot(tile.color)} {escape(tile.words)}" if tile.source else ""
    facts = [
        f'<span style="{FAINT}">{fact}</span>' for fact in (*map(escape, tile.facts), _link(tile)) if fact
    ]
    parts = (
        _player(tile, width) if tile.source else _blank(tile, width),
        f'<div style="margin-top:6px"><span style="{FAINT}">{escape(tile.name)}</span> {_prompt(tile)}</div>',
        f'<div style="margin-top:2px">{join([state, *facts])}</div>',
        f"<div>{fold(tile.trouble, _LONG_TEXT)}</div>" if tile.trouble else "",
    )
    style = f"display:inline-block;vertical-align:top;width:{width}px;max-width:100%;margin:0 16px 20px 0"
    return f'<div style="{style};overflow-wrap:anywhere">{"".join(parts)}</div>'


def wrap(*parts: str) -> str:
    """What stands around all that is shown in a notebook."""
    return f'<div style="{FONT};text-align:left;white-space:normal;margin:4px 0">{"".join(parts)}</div>'


def dot(color: str) -> str:
    """A spot of colour before a word."""
    return f'<span aria-hidden="true" style="color:{color}">\N{BLACK CIRCLE}</span>'


def fold(text: str, length: int) -> str:
    """The text; of one that is longer, its beginning, with the whole of it a click away."""
    if len(text) <= length:
        return isolate(text)
    beginning = isolate(f"{text[:length].rstrip()}…")
    return (
        f'<details style="display:inline"><summary style="display:inline;cursor:pointer">{beginning} '
        f'<span style="{FAINT}">more</span></summary>{isolate(text)}</details>'
    )


def join(words: Iterable[str]) -> str:
    """Facts in one line, those that are empty left out."""
    return " · ".join(word for word in words if word)


def _height(width: int) -> int:
    return width * 9 // 16


def _player(tile: Tile, width: int) -> str:
    assert tile.source is not None
    is_far = tile.source.startswith("http")
    preload = "none" if is_far and tile.picture else "metadata"
    poster = f' poster="{escape(tile.picture)}"' if tile.picture else ""
    label = escape((tile.prompt or tile.name)[:_SHORT_TEXT])
    style = f"display:block;max-width:100%;border-radius:8px;object-fit:contain;{GROUND}"
    return (
        f'<video controls playsinline preload="{preload}" width="{width}" height="{_height(width)}"'
        f'{poster} src="{escape(tile.source)}" aria-label="{label}" style="{style}"></video>'
    )


def _blank(tile: Tile, width: int) -> str:
    """Where a video would be."""
    height = _height(width)
    style = f"height:{height}px;line-height:{height}px;text-align:center;border-radius:8px;{GROUND}"
    return f'<div style="{style}">{dot(tile.color)} {escape(tile.words)}</div>'


def _prompt(tile: Tile) -> str:
    return fold(tile.prompt, _SHORT_TEXT) if tile.prompt else f'<span style="{FAINT}">no prompt known</span>'


def _link(tile: Tile) -> str:
    """To the file or the address of a video that is not within the page."""
    if tile.source is None or tile.source.startswith("data:"):
        return ""
    title, word = (str(tile.path), "file") if tile.path else (tile.source, "video")
    return (
        f'<a href="{escape(tile.source)}" title="{escape(title)}" target="_blank" rel="noopener noreferrer" '
        f'style="color:inherit;text-decoration:underline">{word}</a>'
    )
