"""`kling-async status`, `list` and `models`: what the service knows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter, validators
from rich.table import Table
from rich.text import Text

from kling_async._display.terminal import is_drawable
from kling_async.cli.records import job_record
from kling_async.cli.screen import (
    STYLES,
    complain,
    cut,
    plain,
    put,
    say,
    stdout,
    tell,
)
from kling_async.cli.service import Service, client_of
from kling_async.errors import KlingError
from kling_async.models import Job

FAILED = 1
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


async def status(
    request_ids: Annotated[list[str], Parameter(name="ID")],
    /,
    *,
    json: bool = False,
    service: Service = Service(),  # noqa: B008 - a frozen value
) -> int:
    """Show jobs as they are now.

    Args:
        request_ids: The ids that the service gave.
        json: Print one JSON object a line.
        service: See `Service`.
    """
    has_failed = False
    async with client_of(service) as client:
        for request_id in dict.fromkeys(request_ids):
            try:
                job = await client.get(request_id)
            except KlingError as error:
                has_failed = True
                if json:
                    tell({"request_id": request_id, "error": str(error), "error_type": type(error).__name__})
                complain(str(error))
                continue
            if json:
                tell(job_record(job))
            else:
                _show(job)
    return FAILED if has_failed else 0


async def list_jobs(
    *,
    model: str = "kling-v2-6",
    limit: Annotated[int, Parameter(metavar="N", validator=validators.Number(gte=1))] = 20,
    json: bool = False,
    service: Service = Service(),  # noqa: B008 - a frozen value
) -> int:
    """List jobs of a model, in the service's own order.

    On a terminal a table; elsewhere one line a job, with tabs between id, status, age, prompt and address.

    Args:
        model: The model's id; the service lists by model.
        limit: How many at most.
        json: Print one JSON object a line.
        service: See `Service`.
    """
    jobs: list[Job] = []
    async with client_of(service) as client:
        async for job in client.list_jobs(model, page_size=min(limit, 100)):
            jobs.append(job)
            if json:
                tell(job_record(job))
            if len(jobs) == limit:
                break
    if json:
        return 0
    console = stdout()
    if is_drawable(console):
        console.print(table(jobs) if jobs else Text(f"The service shows no job of {plain(model)}.", "dim"))
        return 0
    for job in jobs:
        cells = (job.request_id, job.status, age(job), _prompt(job), job.video_url or "")
        put("\t".join(map(plain, cells)))
    return 0


async def models(*, json: bool = False, service: Service = Service()) -> int:  # noqa: B008 - a frozen value
    """List the ids of all models that the service names, one a line.

    Args:
        json: Print one JSON object a line.
        service: See `Service`.
    """
    async with client_of(service) as client:
        for model in await client.models():
            if json:
                tell({"id": model})
            else:
                put(plain(model))
    return 0


def _show(job: Job) -> None:
    console = stdout()
    say(Text.assemble((plain(job.request_id), "bold"), "  ", _status(job), f"  {age(job)}"), console)
    for name, value in (
        ("prompt", job.payload.get("prompt")),
        ("video", job.video_url),
        ("reason", job.failure_reason),
    ):
        if value:
            say(Text.assemble((f"  {name:7}", "dim"), plain(str(value))), console)


def table(jobs: list[Job]) -> Table:
    """The jobs for a terminal; ids stay whole, prompts are cut."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    for name in ("id", "status", "age"):
        table.add_column(name, no_wrap=True)
    table.add_column("prompt, or why it failed", no_wrap=True, overflow="ellipsis", ratio=1)
    for job in jobs:
        told = Text(plain(job.failure_reason), "red") if job.failure_reason else Text(_prompt(job))
        table.add_row(Text(plain(job.request_id)), _status(job), age(job), told)
    return table


def _status(job: Job) -> Text:
    return Text(job.status, STYLES.get(job.status, "dim"))


def _prompt(job: Job) -> str:
    return cut(str(job.payload.get("prompt") or ""), 200)


def age(job: Job) -> str:
    """How long ago the service took it, such as `5 min`; empty where it does not say."""
    if job.created_at is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - job.created_at).total_seconds()))
    size, unit = next(((size, unit) for size, unit in _AGES if seconds >= size), _AGES[-1])
    return f"{seconds // size} {unit}"
