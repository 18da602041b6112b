"""A batch's results as cards of a page: the video, what it was to show, how it ended, and when."""

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
    state_class,
    state_label,
)
from kling_async._display.timeline import UNSAVED, WORDS, Row, Segment, mini_picture
from kling_async.results import Result

_LONG = 220
"""Characters of a prompt that are shown at once."""


@attrs.frozen(kw_only=True)
class Card:
    """One result on a page."""

    result: Result
    source: str | None
    """The address of its video."""
    picture: str | None
    """The address of a still, for a video that is not at hand."""
    row: Row | None
    """Its place on the time line."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Every address that the card loads something from."""
        return tuple(source for source in (self.source, self.picture) if source is not None)


def make_cards(results: Iterable[Result], *, beside: Path, rows: Mapping[int, Row]) -> list[Card]:
    """A card for each result.

    Args:
        results: In the order of the page.
        beside: The folder of the page.
        rows: The time line's rows, by the results' indices.
    """
    cards = []
    for result in results:
        source = media_source(result, beside=beside)
        is_far = source is not None and source.startswith(("https:", "http:"))
        picture = picture_source(result.job) if is_far else None
        cards.append(Card(result=result, source=source, picture=picture, row=rows.get(result.index)))
    return cards


def card_html(card: Card) -> str:
    """The card as an item of a list."""
    result, row = card.result, card.row
    place = f' data-bar="{row.lane} {row.began:.3f} {row.ended:.3f}"' if row else ""
    seconds = f' data-seconds="{row.seconds:.3f}"' if row else ""
    prompt = result.request.prompt if result.request else "This item could not be read as a request."
    return (
        f'<li class="card" id="job-{result.index}" data-state="{state_class(result)}"{place}{seconds} tabindex="-1">'
        f"{_media(card)}"
        f'<div class="about"><h3 id="name-{result.index}">#{result.index} '
        f'<span class="state {state_class(result)}">{state_label(result)}</span></h3>'
        f"{_prompt(prompt)}{_error(result)}{_times(row) if row else ''}{_facts(card)}</div></li>"
    )


def _media(card: Card) -> str:
    """A link, which the page's script makes a player as soon as it is about to be seen: a thousand players are slow."""
    if card.source is None:
        return '<div class="screen empty">no video</div>'
    poster = f' data-poster="{escape(card.picture)}"' if card.picture else ""
    return f'<a class="screen" href="{escape(card.source)}"{poster}>Play #{card.result.index}</a>'


def _prompt(prompt: str) -> str:
    if len(prompt) <= _LONG:
        return f'<p class="prompt" dir="auto">{escape(prompt)}</p>'
    cut = prompt[:_LONG].rsplit(maxsplit=1)[0]
    return (
        f'<details class="prompt" dir="auto"><summary>{escape(cut)}… <span class="more">more</span></summary>'
        f"<p>{escape(prompt)}</p></details>"
    )


def _error(result: Result) -> str:
    """Why there is no video, or no file; the service's own words where it has said why a job failed."""
    if result.error is None:
        return ""
    reason = result.job.failure_reason if result.job else None
    return f'<p class="error">{isolate(reason or result.error)}</p>'


def _times(row: Row) -> str:
    told = ", ".join(map(_segment_text, row.segments))
    return f'<div class="times">{mini_picture(row)}<p>{told}</p></div>'


def _segment_text(segment: Segment) -> str:
    words = WORDS[segment.kind]
    if segment.kind == UNSAVED:
        return words
    return f"{duration_text(segment.span.ended - segment.span.began)} {words}"


def _facts(card: Card) -> str:
    """What is known beside: the file, the cost, the job's id."""
    result = card.result
    facts = []
    if card.source is not None:
        name = result.path.name if result.path is not None else "at the service"
        facts.append(f'<a href="{escape(card.source)}">{isolate(name)}</a>')
    if result.cost_usd is not None:
        facts.append(f'<span class="cost">{money_text(result.cost_usd)}</span>')
    request_id = result.job.request_id if result.job else result.error.request_id if result.error else None
    if request_id:
        facts.append(f"<code>{escape(request_id)}</code>")
    return f'<p class="facts">{"".join(facts)}</p>' if facts else ""
