"""Results and jobs as HTML for Jupyter and other notebooks.

A `BatchResult`, a `Result` or a `Job` at the end of a cell shows its videos. A `Gallery` shows a selection:

    from kling_async.notebook import Gallery

    Gallery(batch.failed)
    Gallery(batch[36:72])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import attrs
from markupsafe import Markup

from kling_async._display.cell import running_shell
from kling_async._display.markup import join_facts
from kling_async._display.page import count_from_earlier_runs, duration_text, is_inlined
from kling_async._display.signed_sources import sign_sources
from kling_async._display.tiles import (
    ALONE,
    FAINT,
    Tile,
    faint,
    make_job_tile,
    make_tile,
    render_tile,
    wrap,
)
from kling_async._field_docs import describe_fields
from kling_async._stores import check_signed_for
from kling_async.history import BatchHistory, ItemTimes
from kling_async.jobs import Job, JobStatus
from kling_async.lines import money_text
from kling_async.results import Result, ResultState

__all__ = ["Gallery"]

_FEW_DOZEN = 36
_INLINE_BYTES = 512 * 1024
_INLINE_BYTES_IN_ALL = 3 * 512 * 1024
"""Jupyter's server drops an output of more than 3 MB.

Source: `iopub_data_rate_limit` of jupyter_server, 1 MB a second, over its `rate_limit_window` of 3 s. A file that
becomes part of an output grows by a third.
"""


def render_html(value: Result | Job) -> str:
    """The HTML of one result or job at the end of a cell."""
    tile = (
        make_job_tile(value)
        if isinstance(value, Job)
        else make_tile(value, beside=Path.cwd(), inline_bytes=_INLINE_BYTES)
    )
    return str(wrap(render_tile(tile, width=ALONE)))


def register_formatters() -> None:
    """Let a running IPython show `Result` and `Job` as HTML; does nothing outside IPython.

    `kling_async` calls this when it is imported, so that the values themselves need to know nothing of HTML.
    """
    shell = running_shell()
    if shell is not None and shell.display_formatter is not None:
        formatter = shell.display_formatter.formatters["text/html"]
        formatter.for_type(Result, render_html)
        formatter.for_type(Job, render_html)


def _as_sequence(items: Iterable[Result | Job]) -> Sequence[Result | Job]:
    """The items as they are, if they bring a history, as a `BatchResult` does; else a tuple of them."""
    return items if isinstance(items, Sequence) and hasattr(items, "history") else tuple(items)


def _check_signed_for(_gallery: object, _field: object, seconds: float | None) -> None:
    if seconds is not None:
        check_signed_for(seconds)


@attrs.frozen
class Gallery:
    """Videos to look at: a player, or the reason why there is no video, for each of the first few dozen items.

    A saved video that is small becomes part of the notebook. A larger one is played from its file, whose address is
    relative to the working directory. A video that was not saved, or is in an object store, is played from the service.
    """

    items: Sequence[Result | Job] = attrs.field(converter=_as_sequence)
    """Results, jobs, or both."""
    limit: int = attrs.field(default=_FEW_DOZEN, kw_only=True, validator=attrs.validators.ge(1))
    """How many items the gallery shows; a line below them says how many more there are."""
    signed_for: float | None = attrs.field(default=None, kw_only=True, validator=_check_signed_for)
    """Seconds, at most seven days, for which the gallery plays videos from an object store. The notebook then holds signed
    URLs: who has the notebook can read the videos for so long."""

    def __repr__(self) -> str:
        return f"<Gallery: {self._extent()}>"

    def _repr_html_(self) -> str:
        parts = [Markup('<p style="margin:0 0 10px">{}</p>').format(self._summary())]
        parts += [render_tile(tile) for tile in self._tiles()]
        if len(self.items) > self.limit:
            parts.append(self._rest())
        return str(wrap(*parts))

    @property
    def _history(self) -> BatchHistory | None:
        history = getattr(self.items, "history", None)
        return history if isinstance(history, BatchHistory) else None

    def _rest(self) -> Markup:
        """A line that says how many items are not shown, and how to see the next ones."""
        end = min(2 * self.limit, len(self.items))
        return Markup(
            '<p style="margin:0;{}">{}. <code>kling_async.notebook.Gallery(…[{}:{}])</code> shows the next.</p>'
        ).format(FAINT, self._extent(), self.limit, end)

    def _extent(self) -> str:
        count, shown = len(self.items), min(len(self.items), self.limit)
        return f"{shown:,} of {count:,} shown" if shown < count else f"{count:,} shown"

    def _summary(self) -> Markup:
        """How many videos were made, what became of the others, the cost and the time, in one line."""
        history = self._history
        labels = Counter(_item_label(item) for item in self.items)
        made = labels.pop(ResultState.SUCCEEDED.label, 0) + labels.pop(JobStatus.SUCCESS.value, 0)
        costs = [
            item.cost_usd for item in self.items if isinstance(item, Result) and item.cost_usd is not None
        ]
        facts = (
            *(f"{count:,} {label}" for label, count in labels.items()),
            money_text(sum(costs, Decimal(0))) if costs else "",
            self._time_text(history) if history else "",
        )
        headline = Markup("<strong>{:,} of {:,} videos made</strong>").format(made, len(self.items))
        return join_facts([headline, *map(faint, facts)])

    def _time_text(self, history: BatchHistory) -> str:
        results = [item for item in self.items if isinstance(item, Result)]
        which = " in the last run" if count_from_earlier_runs(results, history) else ""
        return f"{duration_text(history.ended - history.started)}{which}"

    def _tiles(self) -> Iterator[Tile]:
        beside, left, history = Path.cwd(), _INLINE_BYTES_IN_ALL, self._history
        signed = sign_sources(self.items[: self.limit], self.signed_for)
        for item in self.items[: self.limit]:
            if isinstance(item, Job):
                yield make_job_tile(item)
                continue
            tile = make_tile(
                item,
                beside=beside,
                inline_bytes=min(left, _INLINE_BYTES),
                seconds=_run_seconds(history.times_of(item.index)) if history else None,
                signed=signed,
            )
            if tile.source and is_inlined(tile.source):
                left -= len(tile.source) * 3 // 4
            yield tile


def _item_label(item: Result | Job) -> str:
    return item.label if isinstance(item, Result) else item.status.value


def _run_seconds(times: ItemTimes) -> float | None:
    if times.submitted is None or times.finished is None or times.is_resumed:
        return None
    return times.finished - times.submitted


describe_fields(__name__)
