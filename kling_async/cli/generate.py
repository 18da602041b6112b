"""`kling-async generate`: prompts in, videos out."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping
from operator import attrgetter
from typing import Annotated, Any

import attrs
from cyclopts import Group, Parameter, validators

from kling_async._display.forecast import Forecast
from kling_async._display.history import History
from kling_async._display.tally import Tally
from kling_async._display.terminal import Bar, drawn
from kling_async.cli.order import Order, explained, order_from
from kling_async.cli.records import result_record
from kling_async.cli.screen import complain, is_free_for_drawing, say, stderr, stdout, tell
from kling_async.cli.service import Service, client_of, emulated
from kling_async.cli.summary import Errand, say_interrupted, summarise
from kling_async.errors import ConfigurationError
from kling_async.events import Notifier
from kling_async.models import BatchResult, Result
from kling_async.report import check_target

UNUSABLE = 2


@Parameter(name="*", group=Group("Video", sort_key=1))
@attrs.frozen(kw_only=True)
class Video:
    """What every prompt leaves open; not given means the service's own default."""

    model: str | None = None
    """The model's id, case-sensitive [default: kling-v2-6]."""
    duration: int | None = None
    """Seconds of video: 5 or 10."""
    sound: Annotated[bool | None, Parameter(negative="--no-sound")] = None
    """Whether it has sound."""
    mode: str | None = None
    """The quality mode: pro."""
    cfg_scale: float | None = None
    """How closely it follows the prompt, from 0 (freely) to 1."""
    image: str | None = None
    """The first picture: a URL, or a file, which is uploaded."""
    negative_prompt: str | None = None
    """What it must not show, for models that take it."""
    aspect_ratio: str | None = None
    """Such as 16:9, for models that take it."""
    resolution: str | None = None
    """Such as 1080p, for models that take it."""

    def options(self) -> Mapping[str, Any]:
        """The fields that were given."""
        return attrs.asdict(self, filter=lambda _, value: value is not None)


async def generate(
    *prompts: str,
    source: Annotated[str | None, Parameter(name="--from", metavar="FILE", allow_leading_hyphen=True)] = None,
    out: Annotated[str, Parameter(metavar="DIR")] = "videos",
    report: Annotated[str | None, Parameter(metavar="FILE")] = None,
    max_concurrency: Annotated[int, Parameter(metavar="N", validator=validators.Number(gte=1))] = 20,
    skip_invalid: bool = False,
    emulate: bool = False,
    json: bool = False,
    quiet: bool = False,
    video: Video = Video(),
    service: Service = Service(),  # noqa: B008 - a frozen value
) -> int:
    """Make videos from prompts and save each as soon as it is finished.

    Every prompt is checked before the first is sent: if one cannot be used, none is sent, unless --skip-invalid.
    Ctrl-C stops submitting; what runs goes on at the service, and the command that picks it up is told.

    Args:
        prompts: What the videos show; one in quotes for each video.
        source: A file of prompts: .txt (one a line), .csv (a header with a column prompt, others named like the
            options) or .jsonl (an object or a string a line); - reads lines from stdin.
        out: The folder for the videos; made if it is missing.
        report: Write a page about the batch there when it is over: videos, figures, and a time line of every job.
        max_concurrency: How many jobs may be alive at the service at once.
        skip_invalid: Leave out prompts that cannot be used; they count as not made.
        emulate: Use an emulator on this machine instead of the service: no key, no cost, stand-in pictures.
        json: Print one JSON object a line for each result, as it ends, and nothing else on stdout.
        quiet: Print nothing but complaints.
        video: See `Video`.
        service: See `Service`.
    """
    if emulate and service.base_url is not None:
        raise ConfigurationError("--emulate brings its own service: leave out --base-url, or --emulate.")
    order = order_from(prompts, source, video.options())
    if order.problems and not skip_invalid:
        complain(*explained(order))
        return UNUSABLE
    if report is not None:
        check_target(report)
    tally, history = Tally(total=len(order), saves=True), History()
    forecast = Forecast()
    listen = Notifier(tally, forecast, None if report is None else history)
    errand = Errand(folder=out, service=service, is_emulated=emulate)
    opened = emulated(on_event=listen) if emulate else client_of(service, on_event=listen)
    started = time.monotonic()
    try:
        with drawn(
            Bar(tally, forecast), console=stderr(), is_wanted=not quiet and is_free_for_drawing(is_json=json)
        ):
            async with (
                opened as client,
                client.batch(
                    order.items(),
                    max_concurrency=max_concurrency,
                    output=out,
                    skip_invalid=skip_invalid,
                    progress=False,
                ) as stream,
            ):
                results = await _collected(stream, order, tally, is_json=json)
    except (asyncio.CancelledError, OSError):
        say_interrupted(tally, errand, is_hasty=_is_loop_over())
        raise
    console = None if quiet else stderr() if json else stdout()
    status = summarise(results, tally, errand, seconds=time.monotonic() - started, console=console)
    if report is not None:
        page = BatchResult(tuple(results), history=history).write_report(report)
        if console is not None:
            say(f"Report: {page}", console)
    return status


async def _collected(
    stream: AsyncIterator[Result], order: Order, tally: Tally, *, is_json: bool
) -> list[Result]:
    """All results, each told as it comes."""
    results = []
    try:
        async for result in stream:
            problem = order.problem_at(result.index)
            results.append(attrs.evolve(result, error=problem) if problem else result)
            if is_json:
                tell(result_record(results[-1]))
    except asyncio.CancelledError:
        tally.note = "stopping: waiting for the answers to what was just sent"
        raise
    return sorted(results, key=attrgetter("index"))


def _is_loop_over() -> bool:
    """Whether a second Ctrl-C cut short what the first one still waited for: only that ends the event loop at once.

    Source: `asyncio.Runner` handles SIGINT for as long as its loop runs, and cancels what is left after that.
    """
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
