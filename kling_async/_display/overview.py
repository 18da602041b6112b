"""The parts of a report about the whole batch: its figures, the reasons of failures, its time line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from statistics import median

from markupsafe import Markup, escape

from kling_async._display.colors import STATE_COLORS, state_class
from kling_async._display.markup import isolate, join_facts
from kling_async._display.page import count_from_earlier_runs, duration_text, size_text
from kling_async._display.timeline import PHASES, WORDS, TimeLine, most_at_once
from kling_async._display.timeline_svg import area_picture, axis_picture, rows_picture
from kling_async.history import BatchHistory, ItemTimes, TimeSpan
from kling_async.lines import count_text, money_text
from kling_async.requests import model_of
from kling_async.results import Result, ResultState

_MAX_NAMED = 12
_SECONDS_IN_MINUTE = 60.0
_SECONDS_IN_HOUR = 3600.0
_SECONDS_IN_DAY = 86_400.0


def when_html(results: Sequence[Result], history: BatchHistory | None) -> Markup:
    """The line under the headline: when the batch ran, or its last run, and with which models."""
    models = sorted({model_of(result.request) for result in results if result.request is not None})
    parts = []
    if history is not None:
        last = "Last run: " if count_from_earlier_runs(results, history) else ""
        parts.append(escape(last + _period_text(history.started, history.ended)))
    if models:
        parts.append(isolate(", ".join(models)))
    return join_facts(parts)


def _period_text(began: float, ended: float) -> str:
    """The two moments in the time zone of this machine, with its offset from UTC."""
    first, last = (datetime.fromtimestamp(at).astimezone() for at in (began, ended))
    day, end_day = (f"{at.day} {at:%B %Y}" for at in (first, last))
    until = f"{last:%H:%M:%S}" if day == end_day else f"{end_day}, {last:%H:%M:%S}"
    return f"{day}, {first:%H:%M:%S} to {until} (UTC{first:%z})"


def interrupted_html(missing: int) -> Markup:
    """A paragraph about the items that had not ended when the batch was interrupted; empty if all had ended."""
    if not missing:
        return Markup()
    return Markup(
        '<p class="interrupted">Interrupted: {} had not ended yet, and cannot be shown here.</p>'
    ).format(count_text(missing, "video"))


def figures_html(results: Sequence[Result], history: BatchHistory | None, *, missing: int = 0) -> Markup:
    """The figures, each as a term and its value; the number of all videos includes the missing ones.

    A history tells of one run. If some jobs are of earlier runs, the terms say which figures are of the last one.
    """
    made = [result for result in results if result.ok]
    figures: list[tuple[str, str]] = [
        ("Videos", Markup("{:,} <small>of {:,}</small>").format(len(made), len(results) + missing)),
        ("Spend", _spend(results)),
    ]
    if history is not None:
        of_run = " of the last run" if count_from_earlier_runs(results, history) else ""
        seconds = history.ended - history.started
        figures.append((f"Time{of_run}", duration_text(seconds)))
        times = [history.times_of(result.index) for result in made]
        here = sum(one.submits > 0 for one in times)
        if here and seconds > 0:
            figures.append((f"Pace{of_run}", _pace(here / seconds)))
        if runs := _run_times(times):
            figures.append(("Usual run", duration_text(median(runs))))
        if history.saved_bytes:
            figures.append(("Saved by the last run" if of_run else "Saved", size_text(history.saved_bytes)))
    return Markup().join(Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*figure) for figure in figures)


def _spend(results: Sequence[Result]) -> Markup:
    """The sum of the known costs; a lower bound if the cost of a job is not known."""
    costs = [result.cost_usd for result in results if result.cost_usd is not None]
    if not costs:
        return Markup("<small>not known</small>")
    is_partial = any(result.cost_usd is None and result.job is not None for result in results)
    bound = Markup("<small>at least</small> ") if is_partial else Markup()
    return bound + money_text(sum(costs, Decimal(0)))


def _pace(per_second: float) -> Markup:
    for unit, seconds in (
        ("a second", 1.0),
        ("a minute", _SECONDS_IN_MINUTE),
        ("an hour", _SECONDS_IN_HOUR),
    ):
        if per_second * seconds >= 1:
            return Markup("{:.3g} <small>{}</small>").format(per_second * seconds, unit)
    return Markup("{:.2g} <small>a day</small>").format(per_second * _SECONDS_IN_DAY)


def _run_times(times: Iterable[ItemTimes]) -> list[float]:
    """Seconds from the first poll that saw the job running to its end, for all jobs of this run that have both times."""
    return [
        one.finished - one.running
        for one in times
        if one.running is not None and one.finished is not None and not one.is_resumed
    ]


def failures_html(results: Iterable[Result]) -> Markup:
    """A table of the reasons why videos were not made or not saved, the most frequent first; empty if there are none."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.error is not None or not result.ok:
            groups.setdefault((result.label, result.failure_reason or "no reason given"), []).append(result)
    if not groups:
        return Markup()
    rows = Markup().join(
        Markup(
            '<tr><td class="count">{:,}</td><td><span class="state {}">{}</span></td>'
            '<td class="reason">{}</td><td class="which">{}</td></tr>'
        ).format(len(group), state_class(group[0]), label, isolate(reason), links_to(group))
        for (label, reason), group in sorted(groups.items(), key=lambda item: -len(item[1]))
    )
    return Markup(
        '<section aria-labelledby="failures"><h2 id="failures">What went wrong</h2>'
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of reasons"><table>'
        '<thead><tr><th scope="col" class="count">Videos</th><th scope="col">State</th>'
        '<th scope="col">Reason</th><th scope="col">Which</th></tr></thead>'
        "<tbody>{}</tbody></table></div></section>"
    ).format(rows)


def links_to(results: Sequence[Result]) -> Markup:
    """The numbers of results, each a link to its card; of many results the first dozen."""
    links = Markup(", ").join(
        Markup('<a href="#job-{0}">#{0}</a>').format(result.index) for result in results[:_MAX_NAMED]
    )
    more = len(results) - _MAX_NAMED
    return links + f" and {more:,} more" if more > 0 else links


def filters_html(results: Sequence[Result]) -> Markup:
    """A choice for each state that occurs, with its number of results."""
    counts = Counter((state_class(result), result.label) for result in results)
    order = list(STATE_COLORS)
    choices = [("", "all", len(results))]
    choices += [
        (state, label, count)
        for (state, label), count in sorted(counts.items(), key=lambda choice: order.index(choice[0][0]))
    ]
    return Markup().join(
        Markup(
            '<label><input type="radio" name="state" value="{}"{}><span>{} <small>{:,}</small></span></label>'
        ).format(state, "" if state else " checked", label, count)
        for state, label, count in choices
    )


def time_line_html(line: TimeLine, history: BatchHistory) -> Markup:
    """The section with the pictures of a batch's time, and the same in words."""
    return Markup(
        '<section aria-labelledby="time-line"><h2 id="time-line">Time line</h2>'
        '{}<figure aria-labelledby="time-line">{}{}{}</figure>'
        '<p id="pointed" class="pointed" aria-hidden="true"></p><ul class="notes">{}</ul></section>'
    ).format(
        _legend(line),
        area_picture(line),
        axis_picture(line),
        rows_picture(line),
        Markup().join(Markup("<li>{}</li>").format(note) for note in _notes(line, history)),
    )


def _legend(line: TimeLine) -> Markup:
    kinds = line.kinds()
    named = [
        (kind, words if kind in PHASES else ResultState(kind).label)
        for kind, words in WORDS.items()
        if kind in kinds
    ]
    named += [("pause", "nothing submitted")] if line.pauses else []
    named += [("outage", "status calls failing")] if line.outages else []
    items = Markup().join(Markup('<li><i class="swatch {}"></i>{}</li>').format(*item) for item in named)
    return Markup('<ul class="legend" aria-hidden="true">{}</ul>').format(items)


def _notes(line: TimeLine, history: BatchHistory) -> list[str]:
    """The pictures in words."""
    seconds = line.whole.ended - line.whole.began
    notes: list[str] = [
        f"{count_text(len(line.rows), 'job')} over {duration_text(seconds)}, at most {most_at_once(line):,} at once."
    ]
    resumed = sum(row.is_resumed for row in line.rows)
    if resumed:
        notes.append(
            f"An earlier run submitted {count_text(resumed, 'job')} of these: the bar begins where this run resumed the job."
        )
    if not line.has_row_each:
        notes.append("A line holds one job after the other: each goes to the first line that is free.")
    if slow := line.slow_rows():
        assert line.usual_seconds is not None
        usual = duration_text(line.usual_seconds)
        slowest = links_to([row.result for row in slow])
        notes.append(
            Markup("{} took more than three times the usual {}, the slowest first: {}.").format(
                count_text(len(slow), "job"), usual, slowest
            )
        )
    if history.throttles:
        paused = duration_text(_sum(line.pauses))
        notes.append(
            f"Submits paused {_times(history.throttles)}: nothing was submitted for {paused} in all."
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
