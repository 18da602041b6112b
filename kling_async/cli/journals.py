"""Journals as the commands find, read and show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from kling_async.cli.run_config import JournalPlace, RunConfig
from kling_async.errors import ConfigurationError, JournalError
from kling_async.journal import Entry, EntryState, Journal, NextStep
from kling_async.paths import is_object_url
from kling_async.types import ObjectUrl

NAME = "run.db"
"""The name of the journal that `generate` writes beside the videos."""


def find_journal(path: JournalPlace) -> JournalPlace:
    """The journal at a path, or in the folder there; a database is asked when it is read.

    Raises:
        ConfigurationError: There is none.
    """
    if isinstance(path, Journal):
        return path
    wanted = path / NAME if path.is_dir() else path
    if wanted.is_file():
        return wanted
    journals = [file.name for pattern in ("*.db", "*.db-saved") for file in wanted.parent.glob(pattern)]
    near = get_close_matches(wanted.name, journals, n=1)
    advice = f"did you mean {str(wanted.with_name(near[0]))!r}?" if near else "check its name."
    raise ConfigurationError(f"There is no journal {str(path)!r}: {advice}")


@contextmanager
def refuse_unusable_journal() -> Iterator[None]:
    """A block before anything is sent, in which a `JournalError` is raised as a `ConfigurationError`.

    Raises:
        ConfigurationError: The journal is in use, is no journal, is damaged, or cannot be read or written.
    """
    try:
        yield
    except JournalError as error:
        raise ConfigurationError(error.message) from error


def read_entries(path: JournalPlace) -> Iterator[Entry]:
    """The entries of a journal, also while another process writes it.

    Raises:
        ConfigurationError: It is no journal, or cannot be read.
    """
    with refuse_unusable_journal():
        yield from Journal(path).entries()


def step_of(entry: Entry, config: RunConfig) -> NextStep:
    """What the command does first with an entry."""
    if is_kept_elsewhere(entry, config):
        return NextStep.REPORT
    return Journal.next_step(entry, retry_failed=config.budget.retry_failed, output=config.folder)


def is_kept_elsewhere(entry: Entry, config: RunConfig) -> bool:
    """Whether a video stays outside the command's folder: it is where the journal says, and the user named no folder."""
    if config.is_folder_named or entry.path is None:
        return False
    place = ObjectUrl(entry.path).with_name("") if is_object_url(entry.path) else Path(entry.path).parent
    return (
        Journal.next_step(entry, output=config.folder) is NextStep.DOWNLOAD
        and Journal.next_step(entry, output=place) is NextStep.REPORT
    )


def describe_resume(entries: Sequence[Entry], config: RunConfig) -> str:
    """What the command resumes, in a sentence; empty if nothing of it was ever sent."""
    words = count_states(entries, is_shared=isinstance(config.journal, Journal))
    if not words:
        return ""
    unsent = sum(step_of(entry, config) is NextStep.SUBMIT for entry in entries)
    return f"Resuming {config.journal}: {words}, {unsent:,} of {len(entries):,} to submit."


def count_states(entries: Iterable[Entry], *, is_shared: bool = False) -> str:
    """Such as `12 made before, 3 in flight, 1 failed before`; empty if nothing was ever sent.

    Args:
        entries: Of one journal.
        is_shared: Other processes may use the journal now: a submit without a reply may be one that waits for the reply.
    """
    counts = Counter(map(_state_words, entries))
    order = ("made before", "in flight", "without a reply", "failed before")
    shown = {"without a reply": "being sent or without a reply"} if is_shared else {}
    return ", ".join(f"{counts[words]:,} {shown.get(words, words)}" for words in order if counts[words])


def _state_words(entry: Entry) -> str:
    """The words for the state of an entry before a run; empty for one that is to be submitted."""
    if Journal.next_step(entry) is NextStep.SUBMIT:
        return ""
    if entry.state is EntryState.SUCCEEDED:
        return "made before"
    if entry.state.is_failure:
        return "failed before"
    return "in flight" if entry.request_id is not None else "without a reply"
