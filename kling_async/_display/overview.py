"""What a page says of a batch as a whole: its figures, why videos were not made, what was in the way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from statistics import median

from kling_async._display.page import (
    duration_text,
    isolate,
    money_text,
    size_text,
    state_class,
    state_label,
)
from kling_async._display.timeline import (
    PHASES,
    WORDS,
    TimeLine,
    area_picture,
    axis_picture,
    most_at_once,
    rows_picture,
)
from kling_async.errors import DownloadError, KlingError
from kling_async.history import BatchHistory, ItemTimes, TimeSpan
from kling_async.requests import model_of
from kling_async.results import Result, ResultState

_MOST_NAMED = 12
_SECONDS_IN_MINUTE = 60.0
_SECONDS_IN_HOUR = 3600.0
_SECONDS_IN_DAY = 86_400.0


def when_html(results: Sequence[Result], history: BatchHistory | None) -> str:
    """The line under the headline: when the batch ran, and which models made it."""
    models = sorted({model_of(result.request) for result in results if result.request is not None})
    parts = []
    if history is not None:
        parts.append(_between(history.started, history.ended))
    if models:
        parts.append(isolate(", ".join(models)))
    return " · ".join(parts)


def _between(began: float, ended: float) -> str:
    """Two moments by this machine's clock, with the offset that it has from UTC."""
    first, last = (datetime.fromtimestamp(at).astimezone() for at in (began, ended))
    day, end_day = (f"{at.day} {at:%B %Y}" for at in (first, last))
    until = f"{last:%H:%M:%S}" if day == end_day else f"{end_day}, {last:%H:%M:%S}"
    return f"{day}, {first:%H:%M:%S} to {until} (UTC{first:%z})"


def interrupted_html(missing: int) -> str:
    """A paragraph about the items that had not ended when the batch was interrupted; empty where there are none."""
    if not missing:
        return ""
    told = "1 video" if missing == 1 else f"{missing:,} videos"
    return f'<p class="interrupted">Interrupted: {told} had not ended yet, and cannot be shown here.</p>'


def figures_html(results: Sequence[Result], history: BatchHistory | None, *, missing: int = 0) -> str:
    """The figures, each as a term and its value; those that are missing are counted among all."""
    made = [result for result in results if result.ok]
    figures = [("Videos", f"{len(made):,} <small>of {len(results) + missing:,}</small>")]
    figures.append(("Spend", _spend(results)))
    if history is not None:
        seconds = history.ended - history.started
        figures.append(("Time", duration_text(seconds)))
        times = [history.times_of(result.index) for result in made]
        here = sum(one.submitted is not None for one in times)
        if here and seconds > 0:
            figures.append(("Pace", _pace(here / seconds)))
        if runs := _run_times(times):
            figures.append(("Usual run", duration_text(median(runs))))
        if history.saved_bytes:
            figures.append(("Saved", size_text(history.saved_bytes)))
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures)


def _spend(results: Sequence[Result]) -> str:
    """The sum of what is known; a job without a known cost makes it a lower bound."""
    costs = [result.cost_usd for result in results if result.cost_usd is not None]
    if not costs:
        return "<small>not known</small>"
    is_partial = any(result.cost_usd is None and result.job is not None for result in results)
    return f"{'<small>at least</small> ' if is_partial else ''}{money_text(sum(costs, Decimal(0)))}"


def _pace(per_second: float) -> str:
    for unit, seconds in (("s", 1.0), ("min", _SECONDS_IN_MINUTE), ("h", _SECONDS_IN_HOUR)):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:.3g} <small>a{'n' if unit == 'h' else ''} {unit}</small>"
    return f"{per_second * _SECONDS_IN_DAY:.2g} <small>a day</small>"


def _run_times(times: Iterable[ItemTimes]) -> list[float]:
    """Seconds from being seen running to the end, of the jobs of which both were seen."""
    return [
        one.finished - one.running for one in times if one.running is not None and one.finished is not None
    ]


def failures_html(results: Iterable[Result]) -> str:
    """A table of the reasons for which videos were not made or not saved, the most frequent first; empty without any."""
    alike: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.error is not None or not result.ok:
            alike.setdefault((state_label(result), failure_reason(result)), []).append(result)
    if not alike:
        return ""
    rows = "".join(
        f'<tr><td class="count">{len(group):,}</td>'
        f'<td><span class="state {state_class(group[0])}">{words}</span></td>'
        f"<td>{isolate(reason)}</td><td>{links_to(group)}</td></tr>"
        for (words, reason), group in sorted(alike.items(), key=lambda item: -len(item[1]))
    )
    return (
        '<section aria-labelledby="failures"><h2 id="failures">What went wrong</h2>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of reasons"><table>'
        '<thead><tr><th scope="col" class="count">Videos</th><th scope="col">State</th>'
        '<th scope="col">Reason</th><th scope="col">Which</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def failure_reason(result: Result) -> str:
    """Why a result has no video or no file, without what only names the job or its file, so that equal reasons are equal."""
    if result.job is not None and result.job.failure_reason:
        return result.job.failure_reason
    error = result.error
    if error is None:
        return "no reason given"
    if isinstance(error, DownloadError) and isinstance(error.__cause__, KlingError | OSError):
        cause = error.__cause__
        return cause.message if isinstance(cause, KlingError) else cause.strerror or type(cause).__name__
    if not error.request_id:
        return error.message
    return re.sub(rf"(?<!\w){re.escape(error.request_id)}(?!\w)", "…", error.message)


def links_to(results: Sequence[Result]) -> str:
    """The numbers of results, each a link to its card; the first dozen of many."""
    links = ", ".join(f'<a href="#job-{one.index}">#{one.index}</a>' for one in results[:_MOST_NAMED])
    more = len(results) - _MOST_NAMED
    return f"{links} and {more:,} more" if more > 0 else links


def filters_html(results: Sequence[Result]) -> str:
    """A choice of each state that occurs, with its number of results."""
    counts = Counter((state_class(result), state_label(result)) for result in results)
    order = [str(ResultState.SUCCEEDED), "unsaved", *ResultState]
    choices = [("", "all", len(results))]
    choices += [
        (tone, words, count)
        for (tone, words), count in sorted(counts.items(), key=lambda choice: order.index(choice[0][0]))
    ]
    return "".join(
        f'<label><input type="radio" name="state" value="{value}"{"" if value else " checked"}>'
        f"<span>{words} <small>{count:,}</small></span></label>"
        for value, words, count in choices
    )


def time_line_html(line: TimeLine, history: BatchHistory) -> str:
    """The section with the pictures of a batch's time, and what they show in words."""
    peak = most_at_once(line)
    about = f"{len(line.rows):,} jobs over {duration_text(line.whole.ended - line.whole.began)}, at most {peak:,} at once."
    return (
        '<section aria-labelledby="time-line"><h2 id="time-line">Time line</h2>'
        f'{_legend(line)}<figure aria-labelledby="time-line">{area_picture(line)}{axis_picture(line)}'
        f"{rows_picture(line)}</figure>"
        f'<p id="pointed" class="pointed" aria-hidden="true"></p>'
        f'<ul class="notes">{"".join(f"<li>{note}</li>" for note in _notes(line, history, about))}</ul></section>'
    )


def _legend(line: TimeLine) -> str:
    kinds = line.kinds()
    named = [
        (kind, WORDS[kind] if kind in PHASES else kind.replace("_", " ")) for kind in WORDS if kind in kinds
    ]
    named += [("pause", "nothing submitted")] if line.pauses else []
    named += [("outage", "status calls failing")] if line.outages else []
    items = "".join(f'<li><i class="swatch {kind}"></i>{words}</li>' for kind, words in named)
    return f'<ul class="legend" aria-hidden="true">{items}</ul>'


def _notes(line: TimeLine, history: BatchHistory, about: str) -> list[str]:
    """What the pictures show, in words."""
    notes = [about]
    if not line.has_row_each:
        notes.append("A line holds one job after the other: each goes to the first line that is free.")
    if slow := line.slow_rows():
        assert line.usual_seconds is not None
        jobs = "1 job" if len(slow) == 1 else f"{len(slow):,} jobs"
        usual = duration_text(line.usual_seconds)
        slowest = links_to([row.result for row in slow])
        notes.append(f"{jobs} took more than three times the usual {usual}, the slowest first: {slowest}.")
    if history.throttles:
        paused = duration_text(_sum(line.pauses))
        notes.append(
            f"The service asked for patience {_times(history.throttles)}: nothing was submitted for {paused} in all."
        )
    if history.failed_polls:
        failing = duration_text(_sum(line.outages))
        notes.append(
            f"Status calls failed {_times(history.failed_polls)}, over {failing} in all; the jobs went on."
        )
    return notes


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _sum(spans: Iterable[TimeSpan]) -> float:
    return sum(span.ended - span.began for span in spans)
