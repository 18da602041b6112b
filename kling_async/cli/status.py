"""`kling-async status`: the present state of jobs at the service, and of journals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from kling_async.cli.exit_status import FAILED
from kling_async.cli.jobs import describe_error, job_age
from kling_async.cli.journals import find_journal, read_entries
from kling_async.cli.json_records import entry_record, sent_at
from kling_async.cli.output import (
    age_text,
    is_terminal,
    one_line,
    print_error,
    print_json,
    print_line,
    print_text,
    state_text,
    stderr,
    stdout,
)
from kling_async.cli.run_config import JournalPlace
from kling_async.cli.service import Service, open_client
from kling_async.errors import KlingError, NotFoundError
from kling_async.jobs import Job
from kling_async.journal import Entry, Journal
from kling_async.lines import id_line, money_text
from kling_async.paths import is_database_url, local_path

_BESIDE_AN_ID = 84
"""Columns of a terminal that are left for the rest of an entry where its id is shown."""


async def status(
    names: Annotated[list[str], Parameter(name="ID|JOURNAL")],
    /,
    *,
    json: bool = False,
    service: Service = Service(),  # noqa: B008 - a frozen value
) -> int:
    """Show jobs as they are now, or what a journal holds, also while a batch writes it.

    A journal gives a line for each video; elsewhere than on a terminal with tabs between index, state, id, age,
    prompt, file and reason. The number of videos in each state goes to stderr.

    Args:
        names: Ids that the service gave; or journals: files, folders with a run.db in them, or postgresql:// URLs.
        json: Print one JSON object a line.
        service: See `Service`.
    """
    names = list(dict.fromkeys(map(_read_name, names)))
    journals = list(filter(_is_journal, names))
    for place in [find_journal(Journal(name) if is_database_url(name) else Path(name)) for name in journals]:
        _show_journal(place, is_json=json)
    ids = [name for name in names if name not in journals]
    return await _show_jobs(ids, service, is_json=json) if ids else 0


def _read_name(name: str) -> str:
    return name if is_database_url(name) else local_path(name, name="ID or JOURNAL")


def _is_journal(name: str) -> bool:
    return is_database_url(name) or Path(name).exists() or name.endswith(".db")


async def _show_jobs(ids: Sequence[str], service: Service, *, is_json: bool) -> int:
    has_failed = False
    async with open_client(service) as client:
        for request_id in ids:
            try:
                job = await client.get_job(request_id)
            except KlingError as error:
                has_failed = True
                if is_json:
                    print_json(
                        {"request_id": request_id, "error": error.message, "error_type": type(error).__name__}
                    )
                print_error(_add_no_journal(describe_error(error), error))
                continue
            if is_json:
                print_json(job.to_dict())
            else:
                _show_job(job)
    return FAILED if has_failed else 0


def _add_no_journal(sentence: str, error: KlingError) -> str:
    """The sentence about a name that is no job, which could be meant as a folder or a journal."""
    if not isinstance(error, NotFoundError):
        return sentence
    return f"{sentence.rstrip('.')}, and no folder or journal of this name is here."


def _show_job(job: Job) -> None:
    console = stdout()
    print_text(
        Text.assemble((id_line(job.request_id), "bold"), "  ", state_text(job.status), f"  {job_age(job)}"),
        console,
    )
    for name, value in (
        ("prompt", job.prompt),
        ("video", job.video_url),
        ("reason", job.failure_reason),
    ):
        if value:
            print_text(Text.assemble((f"  {name:7}", "dim"), one_line(str(value))), console)


def _show_journal(path: JournalPlace, *, is_json: bool) -> None:
    """Entry by entry, for there may be many, then how many there are."""
    console = stdout()
    states: Counter[str] = Counter()
    spent: Decimal | None = None
    unpriced = 0
    for entry in read_entries(path):
        states[entry.state] += 1
        spent = entry.cost_usd if spent is None else spent + (entry.cost_usd or 0)
        unpriced += entry.is_unpriced
        if is_json:
            print_json(entry_record(entry))
        elif is_terminal(console):
            console.print(entry_line(entry, console), no_wrap=True, overflow="ellipsis", crop=True)
        else:
            print_line("\t".join(map(one_line, _cells(entry))))
    counts = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in states.items())
    money = f"; {money_text(spent)} spent" if spent is not None else ""
    if spent is not None and unpriced:
        money += f", and the price of {unpriced:,} is not known"
    print_text(f"{one_line(str(path))}: {counts or 'no videos'}{money}", stderr())


def entry_line(entry: Entry, console: Console) -> Text:
    """One line for a terminal, to be cut at its end; an id that does not fit is left out, and never cut."""
    _, _, request_id, age, prompt, path, error = map(one_line, _cells(entry))
    name = state_text(entry.state)
    name.pad_right(14 - name.cell_len)
    told = Text(error, "red") if error else Text(prompt)
    file = Text(f"{Path(path).name}  ", "dim") if path else Text()
    id_width = max(cell_len(request_id), 36)
    shown_id = f"{request_id:36}  " if console.width >= _BESIDE_AN_ID + id_width else ""
    return Text.assemble(f"{entry.index:>5}  ", name, f"{age:>6}  ", shown_id, file, told)


def _cells(entry: Entry) -> tuple[str, ...]:
    at = sent_at(entry)
    return (
        str(entry.index),
        entry.state,
        id_line(entry.request_id or ""),
        age_text(at.timestamp()) if at else "",
        str(entry.payload.get("prompt") or ""),
        entry.path or "",
        entry.error or "",
    )
