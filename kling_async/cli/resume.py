"""`kling-async resume`: goes on with a journal, without the prompts that it is from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter, validators

from kling_async._engine.batch.resume import FAILURES
from kling_async._engine.download.downloader import check_folder
from kling_async._journal.entry import Entry, EntryState
from kling_async._journal.journal import Journal
from kling_async.cli.batch_command import BatchCommand
from kling_async.cli.budget_options import BudgetOptions
from kling_async.cli.journals import (
    count_states,
    describe_resume,
    find_journal,
    open_journal,
    read_entries,
    step_name,
)
from kling_async.cli.output import print_text, stderr
from kling_async.cli.preview import Preview
from kling_async.cli.run_config import DEFAULT_CONCURRENCY, RunConfig
from kling_async.cli.service import Service, open_client
from kling_async.results import Result

FAILED = 1


async def resume(
    journal: Annotated[Path, Parameter(name="JOURNAL")],
    /,
    *,
    out: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    report: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    max_concurrency: Annotated[
        int, Parameter(metavar="N", validator=validators.Number(gte=1))
    ] = DEFAULT_CONCURRENCY,
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
    budget: BudgetOptions = BudgetOptions(),  # noqa: B008 - a frozen value
    service: Service = Service(),  # noqa: B008 - a frozen value
) -> int:
    """Go on with a journal where its last run stopped, without the prompts.

    What runs at the service is waited for, a submit without an answer is looked for, videos that are missing are
    fetched, and what was not sent is submitted. Nothing is paid for twice.

    Args:
        journal: The file, or a folder with a run.db in it.
        out: The folder for the videos; made if it is missing [default: the journal's own].
        report: Write a page about the batch there when it is over: videos, figures, and a time line of every job.
        max_concurrency: How many jobs may be alive at the service at once.
        dry_run: Show what would be sent and what it would cost; send nothing and write nothing.
        json: Print one JSON object a line for each result, as it ends, and nothing else on stdout.
        quiet: Print nothing but complaints.
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
    )
    if dry_run:
        entries = _without_dropped(read_entries(path))
        return Preview.of_entries(entries).show(_with_prices(config, entries), is_json=json)
    async with open_journal(path) as opened:
        entries = _without_dropped(opened.entries())
        if all(step_name(entry, config) == "nothing" for entry in entries):
            return _print_nothing_to_do(entries, path, is_quiet=quiet)
        command = BatchCommand(
            config=_with_prices(config, entries), total=len(entries), is_json=json, is_quiet=quiet
        )
        return await command.run(_batch(opened, entries, command))


def _without_dropped(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.state is not EntryState.DROPPED]


def _with_prices(config: RunConfig, entries: Sequence[Entry]) -> RunConfig:
    models = tuple(dict.fromkeys(entry.model for entry in entries))
    return attrs.evolve(config, models=models, prices=config.budget.prices(models))


def _print_nothing_to_do(entries: Sequence[Entry], path: Path, *, is_quiet: bool) -> int:
    has_failed = any(entry.state in FAILURES for entry in entries)
    if not is_quiet:
        advice = "; --retry-failed submits again what failed" if has_failed else ""
        print_text(f"Nothing to do: {path} holds {count_states(entries) or 'no videos'}{advice}.", stderr())
    return FAILED if has_failed else 0


@asynccontextmanager
async def _batch(
    journal: Journal, entries: Sequence[Entry], command: BatchCommand
) -> AsyncIterator[AsyncIterator[Result]]:
    """The results of all entries."""
    async with open_client(command.config.service, on_event=command) as client:
        await check_folder(command.config.folder)
        command.print_note(describe_resume(entries, command.config))
        async with command.open_batch(client, entries, journal) as stream:
            yield stream
