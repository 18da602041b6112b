"""`kling-async resume`: finishes the batch of a journal, without its prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter, validators

from kling_async.cli.batch_command import BatchCommand
from kling_async.cli.budget_options import BudgetOptions
from kling_async.cli.journals import (
    count_states,
    describe_resume,
    find_journal,
    read_entries,
    step_of,
)
from kling_async.cli.output import print_text, stderr
from kling_async.cli.preview import Preview
from kling_async.cli.run_config import (
    DEFAULT_CONCURRENCY,
    DEFAULT_FOLDER,
    JournalPlace,
    RunConfig,
    SignReport,
    read_journal,
    read_path,
    read_place,
)
from kling_async.cli.service import Service, open_client
from kling_async.journal import Entry, EntryState, Journal, NextStep
from kling_async.paths import is_object_url
from kling_async.results import Result
from kling_async.types import ObjectUrl

FAILED = 1


async def resume(
    journal: Annotated[JournalPlace, Parameter(name="JOURNAL", converter=read_journal, accepts_keys=False)],
    /,
    *,
    out: Annotated[Path | ObjectUrl | None, Parameter(metavar="DIR", converter=read_place)] = None,
    ascii_names: bool = False,
    direct_upload: bool = False,
    report: Annotated[Path | None, Parameter(metavar="FILE", converter=read_path)] = None,
    sign_report: SignReport = None,
    max_concurrency: Annotated[
        int, Parameter(metavar="N", validator=validators.Number(gte=1))
    ] = DEFAULT_CONCURRENCY,
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
    budget: BudgetOptions = BudgetOptions(),  # noqa: B008 - a frozen value
    service: Service = Service(),  # noqa: B008 - a frozen value
) -> int:
    """Continue the batch of a journal where its last run stopped, without the prompts.

    It waits for running jobs, reconciles submits without a reply, downloads missing videos, and submits the rest.
    Nothing is paid for twice.

    Args:
        journal: The file, or a folder with a run.db in it; or the postgresql:// URL of a database.
        out: The folder for the videos, made if it is missing; or the URL of an object store [default: where the last
            video of the journal was stored, or the journal's own folder, or videos for a database].
        ascii_names: Name the files with ASCII letters and digits only.
        direct_upload: Send each video to the object store while it comes, without a file on this machine.
        report: Write an HTML report of the batch to this file: videos, figures, and a time line of every job.
        sign_report: Let the report play videos from an object store for so many seconds. It then holds signed URLs: who has
            the report can read the videos.
        max_concurrency: How many jobs may be in flight at the service.
        dry_run: Show what would be sent and what it would cost; send nothing and write nothing.
        json: Print one line of JSON for each result as soon as it ends, and nothing else on stdout.
        quiet: Print errors only.
        budget: See `BudgetOptions`.
        service: See `Service`.
    """
    path = find_journal(journal)
    entries = [entry for entry in read_entries(path) if entry.state is not EntryState.DROPPED]
    config = RunConfig(
        folder=_place_of(entries, path) if out is None else out,
        service=service,
        journal=path,
        budget=budget,
        max_concurrency=max_concurrency,
        report=report,
        sign_report=sign_report,
        ascii_names=ascii_names,
        direct_upload=direct_upload,
    )
    if dry_run:
        return Preview.of_journal(entries).show(_with_prices(config, entries), is_json=json)
    # About an object store the journal can be wrong: the batch itself asks the store.
    if isinstance(config.folder, Path) and all(
        step_of(entry, config) is NextStep.REPORT for entry in entries
    ):
        return _print_nothing_to_do(entries, path, is_quiet=quiet)
    command = BatchCommand(
        config=_with_prices(config, entries), total=len(entries), is_json=json, is_quiet=quiet
    )
    return await command.run(_batch(entries, command))


def _place_of(entries: Sequence[Entry], journal: JournalPlace) -> Path | ObjectUrl:
    """Where the videos of a journal go: to the object store that has its last one, or beside the journal."""
    paths = [entry.path for entry in entries if entry.path is not None and is_object_url(entry.path)]
    if paths:
        return ObjectUrl(paths[-1]).with_name("")
    return DEFAULT_FOLDER if isinstance(journal, Journal) else journal.parent


def _with_prices(config: RunConfig, entries: Sequence[Entry]) -> RunConfig:
    models = tuple(dict.fromkeys(entry.model for entry in entries))
    return attrs.evolve(config, models=models, prices=config.budget.prices(models))


def _print_nothing_to_do(entries: Sequence[Entry], path: JournalPlace, *, is_quiet: bool) -> int:
    has_failed = any(entry.state.is_failure for entry in entries)
    if not is_quiet:
        advice = "; --retry-failed submits again what failed" if has_failed else ""
        print_text(f"Nothing to do: {path} holds {count_states(entries) or 'no videos'}{advice}.", stderr())
    return FAILED if has_failed else 0


@asynccontextmanager
async def _batch(entries: Sequence[Entry], command: BatchCommand) -> AsyncIterator[AsyncIterator[Result]]:
    """The results of all entries."""
    async with open_client(command.config.service, on_event=command) as client:
        await client.check_output(command.config.output_folder)
        async with command.open_batch(client, entries) as stream:
            command.print_note(describe_resume(entries, command.config))
            yield stream
