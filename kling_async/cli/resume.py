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
from kling_async.cli.exit_status import FAILED
from kling_async.cli.journals import (
    count_states,
    describe_resume,
    find_journal,
    is_kept_elsewhere,
    read_entries,
    step_of,
)
from kling_async.cli.output import print_text, stderr
from kling_async.cli.preview import Preview
from kling_async.cli.run_config import (
    DEFAULT_CONCURRENCY,
    DEFAULT_FOLDER,
    JournalPlace,
    OutputOptions,
    RunConfig,
    read_journal_place,
    read_place,
)
from kling_async.cli.service import Service, open_client
from kling_async.journal import Entry, EntryState, Journal, NextStep
from kling_async.paths import is_object_url
from kling_async.results import Result
from kling_async.types import ObjectUrl


async def resume(
    journal: Annotated[
        JournalPlace, Parameter(name="JOURNAL", converter=read_journal_place, accepts_keys=False)
    ],
    /,
    *,
    out: Annotated[Path | ObjectUrl | None, Parameter(metavar="DIR", converter=read_place)] = None,
    output: OutputOptions = OutputOptions(),  # noqa: B008 - a frozen value
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
        out: The folder for the videos, made if it is missing; or the URL of an object store. All videos are saved there
            [default: the place of the journal's last video, or the folder of the journal file, or videos for a database;
            videos that are saved elsewhere stay there].
        output: See `OutputOptions`.
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
        is_folder_named=out is not None,
        service=service,
        journal=path,
        budget=budget,
        max_concurrency=max_concurrency,
        output=output,
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
    """Where the videos of a journal go: to the place of its last one, or beside the journal."""
    beside = DEFAULT_FOLDER if isinstance(journal, Journal) else journal.parent
    last = next((entry for entry in reversed(entries) if entry.path is not None), None)
    if last is None or last.path is None:
        return beside
    if is_object_url(last.path):
        return ObjectUrl(last.path).with_name("")
    folder = Path(last.path).parent
    # The videos may have moved with their journal.
    has_moved = Journal.next_step(last, output=beside) is NextStep.REPORT
    if has_moved or not folder.is_dir():
        return beside
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


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
    kept, others = list[Entry](), list[Entry]()
    index = 0
    for entry in entries:
        # As one batch counts them: two commands can have given the same index to two entries.
        index = max(index, entry.index)
        is_kept = is_kept_elsewhere(entry, command.config)
        (kept if is_kept else others).append(attrs.evolve(entry, index=index))
        index += 1
    async with open_client(command.config.service, on_event=command) as client:
        await client.check_output(command.config.output_folder)
        results = []
        if kept:
            async with command.open_batch(client, kept, saves=False) as stream:
                results = [result async for result in stream]
        async with command.open_batch(client, others) as stream:
            command.print_note(describe_resume(entries, command.config))
            yield _join(results, stream)


async def _join(before: Sequence[Result], stream: AsyncIterator[Result]) -> AsyncIterator[Result]:
    for result in before:
        yield result
    async for result in stream:
        yield result
