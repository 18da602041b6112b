"""Batches and videos as HTML for Jupyter and its relatives.

A `BatchResult`, a `Result` and a `Job` that end a cell show themselves. A `Gallery` shows a choice of them:

    from kling_async.notebook import Gallery

    Gallery(batch.failed)
    Gallery(batch[36:72])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from kling_async._display.cell import running_shell
from kling_async._display.page import duration_text, escape, money_text, state_label
from kling_async._display.tiles import (
    ALONE,
    FAINT,
    Tile,
    make_job_tile,
    make_tile,
    render_tile,
    wrap,
)
from kling_async.history import BatchHistory, ItemTimes
from kling_async.jobs import Job
from kling_async.results import Result, ResultState

__all__ = ["Gallery"]

_FEW_DOZEN = 36
_INLINE_BYTES = 512 * 1024
_INLINE_BYTES_IN_ALL = 3 * 512 * 1024
"""Jupyter's server drops an output of more than 3 MB.

Source: `iopub_data_rate_limit` of jupyter_server, 1 MB a second, over its `rate_limit_window` of 3 s. What is
inlined grows by a third.
"""


def render_html(value: Result | Job) -> str:
    """The HTML of one result or job at the end of a cell."""
    tile = (
        make_job_tile(value)
        if isinstance(value, Job)
        else make_tile(value, beside=Path.cwd(), inline_bytes=_INLINE_BYTES)
    )
    return wrap(render_tile(tile, width=ALONE))


def register_formatters() -> None:
    """Let a running IPython show `Result` and `Job` as HTML; does nothing outside IPython.

    `kling_async` calls this when it is imported, so that the values themselves need to know nothing of HTML.
    """
    shell = running_shell()
    if shell is not None and shell.display_formatter is not None:
        formatter = shell.display_formatter.formatters["text/html"]
        formatter.for_type(Result, render_html)
        formatter.for_type(Job, render_html)


@attrs.frozen(init=False)
class Gallery:
    """Videos to look at: a player, or the reason why there is no video, for each of the first few dozen items.

    A saved video that is small becomes part of the notebook. A larger one is played from its file, whose address is
    relative to the working directory. A video that was not saved is played from the service.

    Args:
        items: Results, jobs, or both; a `BatchResult` brings its history.
        limit: How many items the gallery shows; a line below them says how many more there are.
    """

    items: tuple[Result | Job, ...]
    """All items, shown or not."""
    limit: int
    """How many items the gallery shows."""
    history: BatchHistory | None = attrs.field(repr=False)
    """When the items of a batch were submitted and finished; None measures a job by the service's own times."""

    def __init__(self, items: Iterable[Result | Job], *, limit: int = _FEW_DOZEN) -> None:
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit!r}.")
        history = getattr(items, "history", None)  # a `BatchResult` has one, and `tuple` drops it
        self.__attrs_init__(tuple(items), limit, history if isinstance(history, BatchHistory) else None)

    def __repr__(self) -> str:
        return f"<Gallery: {self._extent()}>"

    def _repr_html_(self) -> str:
        parts = [f'<p style="margin:0 0 10px">{self._summary()}</p>']
        parts += [render_tile(tile) for tile in self._tiles()]
        if len(self.items) > self.limit:
            end = min(2 * self.limit, len(self.items))
            parts.append(
                f'<p style="margin:0;{FAINT}">{self._extent()}. '
                f"<code>kling_async.notebook.Gallery(…[{self.limit}:{end}])</code> shows the next.</p>"
            )
        return wrap(*parts)

    def _extent(self) -> str:
        count, shown = len(self.items), min(len(self.items), self.limit)
        return f"{shown:,} of {count:,} shown" if shown < count else f"{count:,} shown"

    def _summary(self) -> str:
        """What they add up to, in one line."""
        words = Counter(_item_label(item) for item in self.items)
        made = words.pop(str(ResultState.SUCCEEDED), 0) + words.pop("success", 0)
        costs = [
            item.cost_usd for item in self.items if isinstance(item, Result) and item.cost_usd is not None
        ]
        took = self.history.ended - self.history.started if self.history else None
        rest = (
            *(f"{count:,} {escape(word)}" for word, count in words.items()),
            money_text(sum(costs[1:], costs[0])) if costs else "",
            duration_text(took) if took is not None else "",
        )
        head = f"{made:,} of {len(self.items):,} videos made"
        return f"<strong>{head}</strong>" + "".join(
            f' · <span style="{FAINT}">{word}</span>' for word in rest if word
        )

    def _tiles(self) -> Iterator[Tile]:
        beside, left = Path.cwd(), _INLINE_BYTES_IN_ALL
        for item in self.items[: self.limit]:
            if isinstance(item, Job):
                yield make_job_tile(item)
                continue
            tile = make_tile(
                item,
                beside=beside,
                inline_bytes=min(left, _INLINE_BYTES),
                seconds=_run_seconds(self.history.times_of(item.index)) if self.history else None,
            )
            if tile.source and tile.source.startswith("data:"):
                left -= len(tile.source) * 3 // 4
            yield tile


def _item_label(item: Result | Job) -> str:
    return state_label(item) if isinstance(item, Result) else item.status


def _run_seconds(times: ItemTimes) -> float | None:
    if times.submitted is None or times.finished is None:
        return None
    return times.finished - times.submitted
