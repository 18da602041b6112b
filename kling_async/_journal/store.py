"""The protocol of a store: read an entry, write a group of changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any, NoReturn, Protocol, TypeVar

import attrs

from kling_async._callbacks import SafeLogger
from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async.errors import JournalError
from kling_async.lines import one_line

H = TypeVar("H")

_log = SafeLogger("kling_async")


class Activity(StrEnum):
    """What a process does with an entry of a shared store, and other processes have to know."""

    POST = "post"
    """A paid POST of the entry is in flight, or about to leave."""
    RECONCILIATION = "reconciliation"
    """A lost submit of the entry is reconciled."""


EARLIER_COLUMNS: Mapping[str, str] = {
    "attempts": "attempt",
    **{
        name: name
        for name in (
            "state",
            "sent_at",
            "has_service_time",
            "timeout",
            "request_id",
            "record",
            "error",
            "payload",
        )
    },
    "attempt_cost_usd": "cost_usd",
}
"""By field of an entry, its column in the table of earlier attempts of every store, after the number of the entry.

An earlier attempt is the entry as it was before a new intent. Its other fields are those of the entry.
"""


@attrs.define(eq=False)
class PendingWrites:
    """Changes that are not on the disk yet: the last value of each field, so that writing them twice does no harm."""

    fields: dict[int, dict[str, Any]] = attrs.field(factory=dict)
    """By number, the changed fields of an entry, by name; a new attempt changes all of them."""
    numbers: dict[Identity, int] = attrs.field(factory=dict)
    """The numbers of the entries with a new attempt."""
    earlier: list[Entry] = attrs.field(factory=list)
    """Entries as they were before a new attempt."""
    ended: set[tuple[int, Activity]] = attrs.field(factory=set)
    """By number, what this process does no longer with an entry of a shared store."""
    released: set[int] = attrs.field(factory=set)
    """The numbers of entries that this process holds no longer, in a shared store."""

    def add(self, number: int, change: dict[str, Any]) -> None:
        """Add a change of one entry; a change of all fields replaces what was pending."""
        if "identity" in change:
            self.fields[number] = change
        else:
            self.fields.setdefault(number, {}).update(change)

    def merge(self, later: PendingWrites) -> PendingWrites:
        """These changes with later ones on top."""
        fields = {number: {**change} for number, change in self.fields.items()}
        for number, change in later.fields.items():
            fields[number] = {**fields.get(number, {}), **change}
        return PendingWrites(
            fields,
            {**self.numbers, **later.numbers},
            [*self.earlier, *later.earlier],
            self.ended | later.ended,
            self.released | later.released,
        )

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.fields or self.ended or self.released)


class _ForeignValueError(ValueError):
    """A row holds a value that kling_async does not write."""


def refuse_row(number: int, column: str) -> NoReturn:
    """Raise the error of a row that another program has changed; to try again does not help.

    Raises:
        JournalError: Always; `is_unreadable_row` recognizes it.
    """
    raise JournalError(
        f"Entry {number} of the journal cannot be read: its column {column!r} holds a value that kling_async does not write. Put "
        "back what was there, then run the same call again."
    ) from _ForeignValueError(column)


def is_unreadable_row(error: JournalError) -> bool:
    """Whether the error is about a row that another program has changed."""
    return isinstance(error.__cause__, _ForeignValueError)


def apply_change(entry: Entry | None, change: Mapping[str, Any]) -> Entry:
    """The entry after the change; a new entry needs a change of all fields."""
    return Entry(**change) if "identity" in change else attrs.evolve(_require_entry(entry), **change)


def _require_entry(entry: Entry | None) -> Entry:
    assert entry is not None, "the first change of an entry is its intent"
    return entry


def warn_lost_jobs(name: str, request_ids: Iterable[str]) -> None:
    """Log at level WARNING the jobs that are paid for and that a journal does not have."""
    if jobs := ", ".join(one_line(request_id) for request_id in request_ids):
        _log.warning("These jobs were accepted, and the journal %r does not have them: %s", name, jobs)


def require_held_entry(held: H | None, name: str) -> H:
    """What a process remembers of an entry that it holds, in a store that other processes write too.

    Args:
        held: What it remembers; None if it does not hold the entry.
        name: The entry, for the error.

    Raises:
        JournalError: It does not hold the entry, so a change of the entry would be lost.
    """
    if held is None:
        raise JournalError(
            f"The journal cannot record a change of {name}, which this process does not hold. Nothing was written. "
            "This is a mistake of kling_async: please report it with the log of this run."
        )
    return held


@attrs.frozen(kw_only=True)
class StoreStart:
    """What the only process that writes a store keeps in memory of the entries, as it is when the process opens the store."""

    last_number: int = 0
    """The highest number of an entry; 0 if there is none."""
    unknown_states: Mapping[int, EntryState]
    """By number, the state of each entry with an unknown POST: intended or ambiguous, without a job."""
    unknown_attempts: Sequence[Entry]
    """Entries as they were before a new attempt, where the earlier POST is still unknown."""


class Store(Protocol):
    """Stores entries. One thread calls `commit` at a time; all other methods are called by the thread of the event loop.

    Every method raises `JournalError` if the disk fails.
    """

    @property
    def name(self) -> str:
        """The journal in messages: the path, or the URL without its password."""
        ...

    @property
    def location(self) -> str:
        """Equal for every store over the same entries, and for no other."""
        ...

    def commit(self, changes: PendingWrites) -> None:
        """Write the changes in one transaction: all, or none if it raises. When it returns, they survive a power cut."""
        ...

    def find(self, identity: Identity) -> Entry | None:
        """The entry of this identity."""
        ...

    def entry(self, number: int) -> Entry | None:
        """The entry of this number."""
        ...

    def page(self, after: int, *, unpriced: bool = False) -> Sequence[Entry]:
        """The next entries by number, as many as fit into memory; empty after the last.

        Args:
            after: The number of the last entry before them.
            unpriced: Take only those that are unpriced, as `Entry.is_unpriced` says.
        """
        ...

    def has_job(self, request_id: str) -> bool:
        """Whether an entry has this job, or had it in an earlier attempt."""
        ...

    def spent_usd(self) -> Decimal:
        """US dollars for all entries."""
        ...

    def close(self) -> None:
        """Unlock the file. A second call does nothing."""
        ...


class SoleStore(Store, Protocol):
    """Stores entries that one process writes; `SharedStore` is for several."""

    def read_start(self) -> StoreStart:
        """What there is before the first commit of this process."""
        ...
