"""`kling-async list` and `models`: the jobs and models of the service."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kling_async.cli.exit_status import FAILED
from kling_async.cli.output import (
    age_text,
    is_terminal,
    one_line,
    print_error,
    print_json,
    print_line,
    state_text,
    stdout,
    truncate,
)
from kling_async.cli.service import Service, open_client
from kling_async.client import KlingClient
from kling_async.errors import InvalidRequestError, KlingError, NotFoundError
from kling_async.jobs import Job
from kling_async.lines import id_line, nearest_name

_BESIDE_AN_ID = 40
"""Columns that the status, the age and the beginning of the prompt need beside an id."""


async def list_jobs(
    *,
    model: str = "kling-v2-6",
    limit: Annotated[int, Parameter(metavar="N", validator=validators.Number(gte=1))] = 20,
    json: bool = False,
    service: Service = Service(),  # noqa: B008 - a frozen value
) -> int:
    """List jobs of a model, in the service's own order; a model that the service does not name is an error.

    On a terminal a table; elsewhere one line a job, with tabs between id, status, age, prompt and address.

    Args:
        model: The model's id; the service lists by model.
        limit: How many at most.
        json: Print one JSON object a line.
        service: See `Service`.
    """
    jobs: list[Job] = []
    async with open_client(service) as client:
        async for job in client.list_jobs(model, page_size=min(limit, 100)):
            jobs.append(job)
            if json:
                print_json(job.to_dict())
            if len(jobs) == limit:
                break
        if not jobs and (sentence := await _describe_unknown_model(client, model)):
            print_error(sentence)
            return FAILED
    if json:
        return 0
    console = stdout()
    if is_terminal(console):
        if jobs:
            print_jobs(jobs, console)
        else:
            console.print(Text(f"The service shows no job of {one_line(model)}.", "dim"))
        return 0
    for job in jobs:
        cells = (id_line(job.request_id), job.status, job_age(job), _prompt(job), job.video_url or "")
        print_line("\t".join(map(one_line, cells)))
    return 0


async def _describe_unknown_model(client: KlingClient, model: str) -> str | None:
    """What is wrong with a model's id, with the nearest one; None if the service names the model."""
    try:
        known = await client.list_models()
    except KlingError:  # an empty list of jobs is true all the same
        return None
    if model in known:
        return None
    near = nearest_name(model, known)
    hint = "" if near is None else f"did you mean {near!r}? "
    return f"The service has no model {one_line(model)!r}: {hint}`kling-async models` lists all."


async def models(*, json: bool = False, service: Service = Service()) -> int:  # noqa: B008 - a frozen value
    """List the ids of all models that the service names, one a line.

    Args:
        json: Print one JSON object a line.
        service: See `Service`.
    """
    async with open_client(service) as client:
        for model in await client.list_models():
            if json:
                print_json({"id": model})
            else:
                print_line(one_line(model))
    return 0


def print_jobs(jobs: list[Job], console: Console) -> None:
    """Print jobs as a table. Prompts are cut; ids are not, so in a narrow terminal the lines are longer than it is wide."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    for name in ("id", "status", "age"):
        table.add_column(name, no_wrap=True)
    table.add_column("prompt, or why it failed", no_wrap=True, overflow="ellipsis", ratio=1)
    ids = [Text(id_line(job.request_id)) for job in jobs]
    for job, shown_id in zip(jobs, ids, strict=True):
        told = Text(one_line(job.failure_reason), "red") if job.failure_reason else Text(_prompt(job))
        table.add_row(shown_id, state_text(job.status), job_age(job), told)
    needed = max(shown_id.cell_len for shown_id in ids) + _BESIDE_AN_ID
    console.width = max(console.width, needed)
    console.print(table)


def _prompt(job: Job) -> str:
    return truncate(job.prompt or "", 200)


def describe_error(error: KlingError) -> str:
    """Why a job cannot be shown or saved, and where the ids of jobs are if the service does not know this one."""
    is_unknown = isinstance(error, NotFoundError | InvalidRequestError)
    return f"{error.message} `kling-async list` shows the ids of jobs." if is_unknown else error.message


def job_age(job: Job) -> str:
    """How long ago the service took it, such as `5 min`; empty where it does not say."""
    return "" if job.created_at is None else age_text(job.created_at.timestamp())
