"""`kling-async download`: videos of jobs that were submitted earlier, here or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kling_async.cli.exit_status import FAILED
from kling_async.cli.jobs import describe_error
from kling_async.cli.output import choose_progress, print_error, print_json, print_line
from kling_async.cli.run_config import DEFAULT_FOLDER, OutputOptions, RunConfig, read_place
from kling_async.cli.service import Service, open_client
from kling_async.cli.summary import print_interrupted
from kling_async.client import KlingClient
from kling_async.errors import KlingError
from kling_async.progress import ProgressCounts, show_progress
from kling_async.types import ObjectUrl


async def download(
    request_ids: Annotated[list[str], Parameter(name="ID")],
    /,
    *,
    out: Annotated[Path | ObjectUrl, Parameter(metavar="DIR", converter=read_place)] = DEFAULT_FOLDER,
    ascii_names: bool = False,
    json: bool = False,
    service: Service = Service(),  # noqa: B008 - a frozen value
) -> int:
    """Wait for jobs, where they are not finished yet, and save their videos.

    Args:
        request_ids: The ids that the service gave.
        out: The folder for the videos, made if it is missing; or the URL of an object store, such as s3://bucket/videos.
        ascii_names: Name the files with ASCII letters and digits only.
        json: Print one JSON object a line for each job, as it ends.
        service: See `Service`.
    """
    ids = list(dict.fromkeys(request_ids))
    config = RunConfig(folder=out, service=service, output=OutputOptions(ascii_names=ascii_names))
    ends: dict[str, Path | ObjectUrl | KlingError] = {}
    bar = ExitStack()
    counts = bar.enter_context(
        show_progress(total=len(ids), saves=True, progress=choose_progress(is_json=json))
    )
    try:
        with bar:
            async with open_client(service, on_event=counts) as client:
                await client.check_output(config.output_folder)
                async with aclosing(_download_each(client, ids, config, counts)) as fetched:
                    async for request_id, end in fetched:
                        ends[request_id] = end
                        if json:
                            print_json(_json_record(request_id, end))
    except (asyncio.CancelledError, OSError):
        print_interrupted(counts, config)
        raise
    for request_id in ids:
        end = ends[request_id]
        if isinstance(end, KlingError):
            print_error(describe_error(end))
        elif not json:
            print_line(str(end))
    return 0 if counts.saved == len(ids) else FAILED


async def _download_each(
    client: KlingClient, ids: Sequence[str], config: RunConfig, counts: ProgressCounts
) -> AsyncGenerator[tuple[str, Path | ObjectUrl | KlingError], None]:
    """The file of each job, or its error, as soon as the job ends."""

    async def fetch(request_id: str) -> tuple[str, Path | ObjectUrl | KlingError]:
        counts.follow(request_id)
        try:
            job = await client.wait(request_id)
            path = await client.download(job, config.folder, ascii_names=config.output.ascii_names)
        except KlingError as error:
            return request_id, error
        return request_id, path

    # Not a task group: an error of the code that reads this generator must come out as it is.
    tasks = [asyncio.create_task(fetch(request_id)) for request_id in ids]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _json_record(request_id: str, end: Path | ObjectUrl | KlingError) -> dict[str, str | None]:
    error = end if isinstance(end, KlingError) else None
    return {
        "request_id": request_id,
        "path": None if isinstance(end, KlingError) else str(end),
        "error": error.message if error else None,
        "error_type": type(error).__name__ if error else None,
    }
