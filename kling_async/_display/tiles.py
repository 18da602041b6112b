"""Videos as tiles for a notebook: player, prompt, state and facts.

Front ends remove style sheets, scripts and classes, some more and some less, so each element carries its own style.
A cell cannot know whether the theme is light or dark. So text keeps the colour of the theme, lines and backgrounds are
half transparent, and colours are used only for dots and bars that stand out from both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
from markupsafe import Markup

from kling_async._display.colors import SLATE, STATE_COLORS, state_class
from kling_async._display.markup import isolate, join_facts, replace_unprintable
from kling_async._display.page import (
    NOTHING_SIGNED,
    duration_text,
    is_inlined,
    is_remote,
    media_source,
    picture_source,
    web_source,
)
from kling_async.jobs import Job, JobStatus
from kling_async.lines import money_text, one_line
from kling_async.paths import ObjectUrl
from kling_async.results import Result

WIDTH = 256
"""Pixels of a tile among others."""
ALONE = 480
"""Pixels of a tile that stands alone."""
FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-size:13px;line-height:1.5"
FAINT = "opacity:.72"
GROUND = "background:rgba(128,128,128,.14)"

_LONGEST_STATE = 50
_SHORT_TEXT = 110
_LONG_TEXT = 280


@attrs.frozen(kw_only=True)
class Tile:
    """What a notebook shows of one video, as plain text."""

    name: str
    """The item's place in the batch, or the job's id."""
    prompt: str | None
    state: str
    """The state in words."""
    color: str
    """The colour of the state."""
    facts: tuple[str, ...]
    trouble: str | None
    source: str | None
    """The address of the video; None if there is no video."""
    path: Path | None
    """The saved file, if the tile plays it."""
    picture: str | None


def make_tile(
    result: Result,
    *,
    beside: Path,
    inline_bytes: int = 0,
    seconds: float | None = None,
    signed: Mapping[str, str] = NOTHING_SIGNED,
) -> Tile:
    """The tile of one item of a batch.

    Args:
        result: The item.
        beside: Relative addresses start from this folder.
        inline_bytes: A local file of at most this size becomes part of the page.
        seconds: How long the job took, if the client measured it; None uses the times in the job's record.
        signed: The signed URLs of objects.
    """
    job = result.job
    source = media_source(result, beside=beside, inline_bytes=inline_bytes, signed=signed)
    is_local = source is not None and not is_remote(source)
    picture = picture_source(job)
    if is_local and picture is not None and picture.startswith("http:"):
        picture = (
            None  # an emulator's address, which dies with the emulator; the file itself has a first frame
        )
    took = seconds if seconds is not None else job_seconds(job)
    return Tile(
        name=f"#{result.index}",
        prompt=result.prompt,
        state=result.label,
        color=STATE_COLORS[state_class(result)].any_ground,
        facts=(
            *([duration_text(took)] if took is not None else []),
            *([money_text(result.cost_usd)] if result.cost_usd is not None else []),
            *([str(result.path)] if isinstance(result.path, ObjectUrl) else []),
        ),
        trouble=failure_text(result),
        source=source,
        path=result.path if is_local and isinstance(result.path, Path) else None,
        picture=picture,
    )


def make_job_tile(job: Job) -> Tile:
    """The tile of a job by itself."""
    took = job_seconds(job)
    source = web_source(job.video_url)
    word = job.raw.get("status") if job.status is JobStatus.UNKNOWN else None
    return Tile(
        name=one_line(job.request_id),
        prompt=job.prompt,
        state=one_line(str(word or job.status))[:_LONGEST_STATE],
        color=STATE_COLORS.get(job.status.value, SLATE).any_ground,
        facts=(duration_text(took),) if took is not None else (),
        trouble=job.failure_reason,
        source=source,
        path=None,
        picture=picture_source(job),
    )


def job_seconds(job: Job | None) -> float | None:
    """Seconds from the submit to the end by the service's clock; None if the job has not ended or has no times."""
    if job is None or not job.is_final or job.created_at is None or job.updated_at is None:
        return None
    return (job.updated_at - job.created_at).total_seconds()


def failure_text(result: Result) -> str | None:
    """Why there is no video or no saved file, in the service's own words if it gave any; None if all is well."""
    reason = result.job.failure_reason if result.job and not result.ok else None
    return reason or (result.error.message if result.error else None)


def render_tile(tile: Tile, *, width: int = WIDTH) -> Markup:
    """The tile as an element that stands in a row with others.

    Args:
        tile: What it shows.
        width: Its width in pixels.
    """
    state = dot_before(tile.state, tile.color) if tile.source else Markup()
    return Markup(
        '<div style="display:inline-block;vertical-align:top;width:{}px;max-width:100%;margin:0 16px 20px 0;'
        'overflow-wrap:anywhere">{}'
        '<div style="margin-top:6px">{} {}</div>'
        '<div style="margin-top:2px">{}</div>{}</div>'
    ).format(
        width,
        _player(tile, width) if tile.source else _blank(tile, width),
        faint(tile.name),
        fold(tile.prompt, _SHORT_TEXT) if tile.prompt else faint("no prompt known"),
        join_facts([state, *map(faint, tile.facts), faint(_link(tile)) if tile.source else Markup()]),
        Markup("<div>{}</div>").format(fold(tile.trouble, _LONG_TEXT)) if tile.trouble else "",
    )


def wrap(*parts: Markup) -> Markup:
    """The element around everything that a notebook shows: the font, and no character that a page cannot hold.

    The classes tell MathJax that two amounts in dollars are no formula.
    Source: https://docs.mathjax.org/en/v3.2/options/document.html (`ignoreHtmlClass`), and version 2's `tex2jax`.
    """
    return replace_unprintable(
        Markup(
            '<div class="mathjax_ignore tex2jax_ignore" '
            'style="{};text-align:left;white-space:normal;margin:4px 0">{}</div>'
        ).format(FONT, Markup().join(parts))
    )


def faint(text: str) -> Markup:
    """Text, or HTML, that stands back."""
    return Markup('<span style="{}">{}</span>').format(FAINT, text) if text else Markup()


def dot_before(text: str, color: str) -> Markup:
    """The text, or HTML, after a dot of a colour."""
    return Markup('<span aria-hidden="true" style="color:{}">\N{BLACK CIRCLE}</span> {}').format(color, text)


def fold(text: str, length: int) -> Markup:
    """The text; if it is longer than `length`, its beginning, with the whole of it a click away."""
    if len(text) <= length:
        return isolate(text)
    return Markup(
        '<details style="display:inline"><summary style="display:inline;cursor:pointer">{} {}</summary>{}</details>'
    ).format(isolate(f"{text[:length].rstrip()}…"), faint("more"), isolate(text))


def _height(width: int) -> int:
    return width * 9 // 16


def _player(tile: Tile, width: int) -> Markup:
    assert tile.source is not None
    return Markup(
        '<video controls playsinline preload="{}" width="{}" height="{}"{} src="{}" aria-label="{}" '
        'style="display:block;max-width:100%;border-radius:8px;object-fit:contain;{}"></video>'
    ).format(
        "none" if is_remote(tile.source) and tile.picture else "metadata",
        width,
        _height(width),
        Markup(' poster="{}"').format(tile.picture) if tile.picture else "",
        tile.source,
        (tile.prompt or tile.name)[:_SHORT_TEXT],
        GROUND,
    )


def _blank(tile: Tile, width: int) -> Markup:
    """What a tile without a video shows in its place."""
    return Markup(
        '<div style="height:{0}px;line-height:{0}px;text-align:center;border-radius:8px;{1}">{2}</div>'
    ).format(_height(width), GROUND, dot_before(tile.state, tile.color))


def _link(tile: Tile) -> Markup:
    """A link to the video's file or address; empty for a video that is part of the page."""
    if tile.source is None or is_inlined(tile.source):
        return Markup()
    title, word = (tile.path, "file") if tile.path else (tile.source, "video")
    return Markup(
        '<a href="{}" title="{}" target="_blank" rel="noopener noreferrer" '
        'style="color:inherit;text-decoration:underline">{}</a>'
    ).format(tile.source, title, word)
