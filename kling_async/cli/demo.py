"""`kling-async demo`: six videos from prompts to files, against an emulator in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kling_async.cli.output import is_terminal, one_line, print_text, state_text, stdout
from kling_async.cli.run_config import RunConfig, read_path
from kling_async.cli.service import Service, open_emulated_client
from kling_async.cli.summary import print_summary
from kling_async.events import Downloaded, Event, Finished, StatusChanged, Submitted
from kling_async.jobs import JobStatus
from kling_async.progress import show_progress
from kling_async.requests import VideoRequest
from kling_async.results import ResultState

_DEFAULT_DURATION = 5
_TIME_SCALE = 40.0
_WORKERS = 3
_MAX_COLUMNS = 120
"""A wider table is hard to read across."""
_WIDE = 60
"""Columns from which on there is room for the options."""

PROMPTS = (
    VideoRequest(
        "A paper boat crosses a rain-soaked street at dusk, neon signs trembling in the puddles", duration=5
    ),
    VideoRequest(
        "Aerial view of a lighthouse in a winter storm, waves climb the rocks, its beam turns through flying snow",
        duration=10,
        sound=True,
    ),
    VideoRequest(
        "水墨风格的长卷：一只白鹤掠过晨雾中的湖面，远山若隐若现，笔触随风晕开",  # noqa: RUF001 - Chinese punctuation
        duration=5,
        sound=True,
    ),
    VideoRequest(
        "Macro shot: a dandelion lets go of its seeds one by one, each carrying a tiny lantern into the night",
        cfg_scale=0.7,
    ),
    VideoRequest(
        "A retired astronaut waters tomatoes in a glass greenhouse on the Moon, the Earth rising behind her",
        duration=10,
    ),
    VideoRequest(
        "Stop motion: a night market built of folded paper wakes up, steam curls from the stalls, lanterns sway",
        duration=5,
        sound=True,
        cfg_scale=0.5,
    ),
)


@attrs.define(eq=False)
class Board:
    """A table with the status and the file of each video; pass it as `on_event`."""

    requests: Sequence[VideoRequest]
    _status: list[str] = attrs.field(init=False)
    _files: dict[int, Downloaded] = attrs.field(init=False, factory=dict)
    _spinner: Spinner = attrs.field(init=False, factory=lambda: Spinner("dots", "processing", style="cyan"))

    def __attrs_post_init__(self) -> None:
        self._status = ["waiting"] * len(self.requests)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.index is None:
            return
        match event:
            case Submitted(job=job):
                self._status[event.index] = job.status
            case StatusChanged(status=status):
                self._status[event.index] = status
            case Finished(state=state):
                self._status[event.index] = "success" if state is ResultState.SUCCEEDED else state
            case Downloaded():
                self._files[event.index] = event

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(
            box=None,
            header_style="dim",
            pad_edge=False,
            padding=(0, 2, 0, 0),
            width=min(options.max_width, _MAX_COLUMNS),
        )
        table.add_column("#", justify="right")
        table.add_column("prompt and file", no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("status", width=12)
        is_wide = options.max_width >= _WIDE
        for name in ("length", "sound") if is_wide else ():
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("size", justify="right", no_wrap=True, min_width=8)
        for index, request in enumerate(self.requests):
            file = self._files.get(index)
            table.add_row(
                str(index),
                Text.assemble(one_line(request.prompt), "\n", (file.path.name if file else "", "dim")),
                self._status_cell(self._status[index]),
                *self._options(request, is_wide=is_wide),
                f"{file.size_bytes / 1000:,.0f} kB" if file else "",
            )
        yield table

    def _options(self, request: VideoRequest, *, is_wide: bool) -> tuple[str, ...]:
        length = f"{request.duration or _DEFAULT_DURATION} s"
        return (length, "yes" if request.sound else "no") if is_wide else ()

    def _status_cell(self, status: str) -> RenderableType:
        return self._spinner if status == JobStatus.PROCESSING else state_text(status)


async def demo(
    *, out: Annotated[Path, Parameter(metavar="DIR", converter=read_path)] = Path("kling-demo")
) -> int:
    """Make six videos without a key and without cost: an emulator in this process makes stand-in pictures.

    Args:
        out: The folder for the videos; made if it is missing.
    """
    return await run_demo(out, stdout())


async def run_demo(folder: Path, console: Console, *, time_scale: float = _TIME_SCALE) -> int:
    """The exit status of the demo, printed on a console."""
    board = Board(PROMPTS)
    live = Live(board, console=console, transient=True) if is_terminal(console) else nullcontext()
    started = time.monotonic()
    async with open_emulated_client(on_event=board, time_scale=time_scale, workers=_WORKERS) as client:
        with live, show_progress(total=len(PROMPTS), saves=True, progress=False) as counts:
            results = await client.generate_many(PROMPTS, output=folder, progress=False, on_event=counts)
    seconds = time.monotonic() - started
    console.print(board)
    print_text("", console)
    config = RunConfig(folder=folder, service=Service(), is_emulated=True)
    status = print_summary(results, counts, config, seconds=seconds, console=console)
    print_text("Stand-in pictures from a local emulator: nothing was sent away, nothing charged.", console)
    print_text('For real ones, set GMI_API_KEY and run: kling-async generate "…"', console)
    return status
