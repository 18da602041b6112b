"""Results as cards of a report: the video, the prompt, the state, and the times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
from markupsafe import Markup

from kling_async._display.colors import UNSAVED, state_class
from kling_async._display.markup import isolate
from kling_async._display.page import NOTHING_SIGNED, duration_text, is_remote, media_source, picture_source
from kling_async._display.timeline import WORDS, Row, Segment
from kling_async._display.timeline_svg import mini_picture
from kling_async.lines import money_text, one_line
from kling_async.paths import ObjectUrl
from kling_async.results import Result

_LONG = 220
"""How many characters of a prompt the card shows at first."""


@attrs.frozen(kw_only=True)
class Card:
    """One result on a page."""

    result: Result
    source: str | None
    """The address of its video."""
    picture: str | None
    """The address of a still, for a video that is not saved here."""
    row: Row | None
    """The job's row on the time line; None if the card has no times."""
    is_signed: bool = False
    """Whether the address is the signed one of an object."""


def make_cards(
    results: Iterable[Result],
    *,
    beside: Path,
    rows: Mapping[int, Row],
    signed: Mapping[str, str] = NOTHING_SIGNED,
) -> list[Card]:
    """A card for each result.

    Args:
        results: The results, in the order of the page.
        beside: The folder of the page.
        rows: The rows of the time line, by the indices of the results.
        signed: The signed URLs of objects.
    """
    cards = []
    for result in results:
        source = media_source(result, beside=beside, signed=signed)
        picture = picture_source(result.job) if source is not None and is_remote(source) else None
        cards.append(
            Card(
                result=result,
                source=source,
                picture=picture,
                row=rows.get(result.index),
                is_signed=result.path in signed,
            )
        )
    return cards


def card_html(card: Card) -> Markup:
    """The card as an item of a list."""
    result, row = card.result, card.row
    prompt = result.prompt or "This item could not be read as a request."
    times = (
        Markup(' data-bar="{} {:.3f} {:.3f}" data-seconds="{:.3f}"').format(
            row.lane, row.began, row.ended, row.seconds
        )
        if row
        else ""
    )
    return Markup(
        '<li class="card" id="job-{0}" data-state="{1}"{2} tabindex="-1">{3}'
        '<div class="about"><h3 id="name-{0}">#{0} <span class="state {1}">{4}</span></h3>{5}</div></li>'
    ).format(
        result.index,
        state_class(result),
        times,
        _screen(card),
        result.label,
        Markup().join((_prompt(prompt), _error(result), _times(row) if row else "", _facts(card))),
    )


def _screen(card: Card) -> Markup:
    """A link. The page's script replaces it with a player when it comes near the view: a thousand players are slow."""
    if card.source is None:
        return Markup('<div class="screen empty">no video</div>')
    poster = Markup(' data-poster="{}"').format(card.picture) if card.picture else ""
    return Markup('<a class="screen" href="{}"{}>Play #{}</a>').format(card.source, poster, card.result.index)


def _prompt(prompt: str) -> Markup:
    if len(prompt) <= _LONG:
        return Markup('<p class="prompt" dir="auto">{}</p>').format(prompt)
    return Markup(
        '<details class="prompt" dir="auto"><summary>{}… <span class="more">more</span></summary><p>{}</p></details>'
    ).format(prompt[:_LONG].rsplit(maxsplit=1)[0], prompt)


def _error(result: Result) -> Markup:
    """Why there is no video or no saved file; the service's own words if it said why the job failed."""
    if result.error is None:
        return Markup()
    reason = result.job.failure_reason if result.job else None
    return Markup('<p class="error">{}</p>').format(isolate(reason or result.error.message))


def _times(row: Row) -> Markup:
    since = ", since this run resumed it" if row.is_resumed else ""
    return Markup('<div class="times">{}<p>{}{}</p></div>').format(
        mini_picture(row), ", ".join(map(_segment_text, row.segments)), since
    )


def _segment_text(segment: Segment) -> str:
    words = WORDS[segment.kind]
    if segment.kind == UNSAVED:
        return words
    return f"{duration_text(segment.span.ended - segment.span.began)} {words}"


def _facts(card: Card) -> Markup:
    """The file, the cost and the job's id, as far as they are known."""
    result = card.result
    facts = []
    if card.source is not None:
        facts.append(Markup('<a href="{}">{}</a>').format(card.source, isolate(_source_name(card))))
    if isinstance(result.path, ObjectUrl) and not card.is_signed:
        facts.append(Markup("<code>{}</code>").format(str(result.path)))
    if result.cost_usd is not None:
        facts.append(Markup('<span class="cost">{}</span>').format(money_text(result.cost_usd)))
    request_id = result.job.request_id if result.job else result.error.request_id if result.error else None
    if request_id:
        facts.append(Markup("<code>{}</code>").format(one_line(request_id)))
    return Markup('<p class="facts">{}</p>').format(Markup().join(facts)) if facts else Markup()


def _source_name(card: Card) -> str:
    """The name of the place that the video is played from."""
    path = card.result.path
    if isinstance(path, ObjectUrl):
        return str(path) if card.is_signed else "at the service"
    return path.name if path is not None else "at the service"
