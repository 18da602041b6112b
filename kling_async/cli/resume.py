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
from kling_async.cli.output import make_folder, print_text, stderr
from kling_async.cli.preview import Preview
from kling_async.cli.run_config import DEFAULT_CONCURRENCY, RunConfig, read_path
from kling_async.cli.service import Service, open_client
from kling_async.journal import Entry, EntryState, NextStep
from kling_async.results import Result

FAILED = 1


async def resume(
    journal: Annotated[Path, Parameter(name="JOURNAL", converter=read_path)],
    /,
    *,
    out: Annotated[Path | None, Parameter(metavar="DIR", converter=read_path)] = None,
    ascii_names: bool = False,
    report: Annotated[Path | None, Parameter(metavar="FILE", converter=read_path)] = None,
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
        journal: The file, or a folder with a run.db in it.
        out: The folder for the videos; made if it is missing [default: the journal's own].
        ascii_names: Name the files with ASCII letters and digits only.
        report: Write an HTML report of the batch to this file: videos, figures, and a time line of every job.
        max_concurrency: How many jobs may be in flight at the service.
        dry_run: Show what would be sent and what it would cost; send nothing and write nothing.
        json: Print one line of JSON for each result as soon as it ends, and nothing else on stdout.
        quiet: Print errors only.
        budget: See `BudgetOptions`.
        service: See `Service`.
    """
    path = find_journal(journal)
    config = RunConfig(
        folder=path.parent if out is None else out,
        service=service,
        journal=path,
        budget=budget,
        max_concurrency=max_concurrency,
        report=report,
        ascii_names=ascii_names,
    )
    entries = [entry for entry in read_entries(path) if entry.state is not EntryState.DROPPED]
    if dry_run:
        return Preview.of_journal(entries).show(_with_prices(config, entries), is_json=json)
    if all(step_of(entry, config) is NextStep.REPORT for entry in entries):
        return _print_nothing_to_do(entries, path, is_quiet=quiet)
    command = BatchCommand(
        config=_with_prices(config, entries), total=len(entries), is_json=json, is_quiet=quiet
    )
    return await command.run(_batch(entries, command))


def _with_prices(config: RunConfig, entries: Sequence[Entry]) -> RunConfig:
    models = tuple(dict.fromkeys(entry.model for entry in entries))
    return attrs.evolve(config, models=models, prices=config.budget.prices(models))


def _print_nothing_to_do(entries: Sequence[Entry], path: Path, *, is_quiet: bool) -> int:
    has_failed = any(entry.state.is_failure for entry in entries)
    if not is_quiet:
        advice = "; --retry-failed submits again what failed" if has_failed else ""
        print_text(f"Nothing to do: {path} holds {count_states(entries) or 'no videos'}{advice}.", stderr())
    return FAILED if has_failed else 0


@asynccontextmanager
async def _batch(entries: Sequence[Entry], command: BatchCommand) -> AsyncIterator[AsyncIterator[Result]]:
    """The results of all entries."""
    async with open_client(command.config.service, on_event=command) as client:
        make_folder(command.config.folder)
        async with command.open_batch(client, entries) as stream:
            command.print_note(describe_resume(entries, command.config))
            yield stream
