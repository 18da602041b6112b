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
from kling_async.cli.errand import AT_ONCE, Errand
from kling_async.cli.journals import entries_of, found, going_on, held, standing, step_of
from kling_async.cli.making import Making
from kling_async.cli.preview import Preview
from kling_async.cli.screen import say, stderr
from kling_async.cli.service import Service, client_of
from kling_async.cli.terms import Terms
from kling_async.results import Result

FAILED = 1


async def resume(
    journal: Annotated[Path, Parameter(name="JOURNAL")],
    /,
    *,
    out: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    report: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    max_concurrency: Annotated[int, Parameter(metavar="N", validator=validators.Number(gte=1))] = AT_ONCE,
    dry_run: bool = False,
    json: bool = False,
    quiet: bool = False,
    terms: Terms = Terms(),  # noqa: B008 - a frozen value
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
        terms: See `Terms`.
        service: See `Service`.
    """
    path = found(journal)
    errand = Errand(
        folder=path.parent if out is None else out,
        service=service,
        journal=path,
        terms=terms,
        at_once=max_concurrency,
        report=report,
    )
    if dry_run:
        entries = _wanted(entries_of(path))
        return Preview.of_entries(entries).show(_priced(errand, entries), is_json=json)
    async with held(path) as opened:
        entries = _wanted(opened.entries())
        if all(step_of(entry, errand) == "nothing" for entry in entries):
            return _nothing_to_do(entries, path, is_quiet=quiet)
        making = Making(errand=_priced(errand, entries), total=len(entries), is_json=json, is_quiet=quiet)
        return await making.run(_batch(opened, entries, making))


def _wanted(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.state is not EntryState.DROPPED]


def _priced(errand: Errand, entries: Sequence[Entry]) -> Errand:
    models = tuple(dict.fromkeys(entry.model for entry in entries))
    return attrs.evolve(errand, models=models, prices=errand.terms.prices(models))


def _nothing_to_do(entries: Sequence[Entry], path: Path, *, is_quiet: bool) -> int:
    has_failed = any(entry.state in FAILURES for entry in entries)
    if not is_quiet:
        advice = "; --retry-failed submits again what failed" if has_failed else ""
        say(f"Nothing to do: {path} holds {standing(entries) or 'no videos'}{advice}.", stderr())
    return FAILED if has_failed else 0


@asynccontextmanager
async def _batch(
    journal: Journal, entries: Sequence[Entry], making: Making
) -> AsyncIterator[AsyncIterator[Result]]:
    """The results of all entries."""
    async with client_of(making.errand.service, on_event=making) as client:
        await check_folder(making.errand.folder)
        making.remark(going_on(entries, making.errand))
        async with making.batch(client, entries, journal) as stream:
            yield stream
