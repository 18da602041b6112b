"""Journals as the commands open, read and show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TypeGuard

import anyio
import anyio.to_thread

from kling_async._engine.batch.resume import FAILURES, NextStep, next_step, saved_file
from kling_async._journal.entry import Entry, EntryState
from kling_async._journal.journal import Journal
from kling_async.cli.run_config import RunConfig
from kling_async.errors import ConfigurationError, JournalError

NAME = "run.db"
"""What `generate` calls the journal that it puts beside the videos."""


def find_journal(path: Path) -> Path:
    """The journal at a path, or in the folder there.

    Raises:
        ConfigurationError: There is none.
    """
    if path.is_file():
        return path
    if (path / NAME).is_file():
        return path / NAME
    near = get_close_matches(path.name, [file.name for file in path.parent.glob("*.db")], n=1)
    advice = f"did you mean {str(path.with_name(near[0]))!r}?" if near else "check its name."
    raise ConfigurationError(f"There is no journal {str(path)!r}: {advice}")


def journal_exists(path: Path | None) -> TypeGuard[Path]:
    """Whether a journal was named and is there."""
    return path is not None and path.exists()


@asynccontextmanager
async def open_journal(path: Path) -> AsyncIterator[Journal]:
    """A journal that is this process's alone for as long as the block lasts; made if it is missing.

    Raises:
        ConfigurationError: It is in use, no journal, damaged, of a newer version, or cannot be made there.
    """
    try:
        journal = await anyio.to_thread.run_sync(Journal, path)
    except JournalError as error:
        raise ConfigurationError(error.message) from error
    try:
        yield journal
    finally:
        # What could not be written, the batch has told with its results.
        with anyio.CancelScope(shield=True), suppress(JournalError):
            await anyio.to_thread.run_sync(journal.close)


def read_entries(path: Path) -> Iterator[Entry]:
    """What a journal holds, also while another process writes it.

    Raises:
        ConfigurationError: It is no journal, or cannot be read.
    """
    try:
        yield from Journal.read(path)
    except JournalError as error:
        raise ConfigurationError(error.message) from error


def step_name(entry: Entry | None, config: RunConfig) -> str:
    """What a run on this errand does with an item, in one word."""
    step = next_step(entry, retry_failed=config.budget.retry_failed)
    if step is NextStep.REPORT and entry is not None and entry.state is EntryState.SUCCEEDED:
        return "nothing" if saved_file(entry, config.folder) else "fetch"
    return "nothing" if step is NextStep.REPORT else step


def describe_resume(entries: Sequence[Entry | None], config: RunConfig) -> str:
    """What an errand goes on with, in a sentence; empty where nothing of it was ever sent."""
    words = count_states(entries)
    if not words:
        return ""
    left = sum(step_name(entry, config) == NextStep.SUBMIT for entry in entries)
    return f"Going on with {config.journal}: {words}, {left:,} of {len(entries):,} to submit."


def count_states(entries: Iterable[Entry | None]) -> str:
    """Such as `12 made before, 3 under way, 1 failed before`; empty where nothing of it was ever sent."""
    counts = Counter(map(_state_words, entries))
    kinds = ("made before", "under way", "without an answer", "failed before")
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds if counts[kind])


def _state_words(entry: Entry | None) -> str:
    """The words for where an item stands before a run; empty for one that is to be submitted."""
    if entry is None or next_step(entry, retry_failed=False) is NextStep.SUBMIT:
        return ""
    if entry.state is EntryState.SUCCEEDED:
        return "made before"
    if entry.state in FAILURES:
        return "failed before"
    return "under way" if entry.request_id is not None else "without an answer"
