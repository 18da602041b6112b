"""The protocol of a store: read an entry, write a group of changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import attrs

from kling_async._journal.entry import Entry, EntryState, Identity


@attrs.define(eq=False)
class PendingWrites:
    """Changes that are not on the disk yet: the last value of each field, so that writing them twice does no harm."""

    fields: dict[int, dict[str, Any]] = attrs.field(factory=dict)
    """By number, the changed fields of an entry, by name; a new attempt changes all of them."""
    numbers: dict[Identity, int] = attrs.field(factory=dict)
    """The numbers of the entries with a new attempt."""
    earlier: list[Entry] = attrs.field(factory=list)
    """Entries as they were before a new attempt."""

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
        return PendingWrites(fields, {**self.numbers, **later.numbers}, [*self.earlier, *later.earlier])


def apply_change(entry: Entry | None, change: Mapping[str, Any]) -> Entry:
    """The entry after the change; a new entry needs a change of all fields."""
    return Entry(**change) if "identity" in change else attrs.evolve(_require_entry(entry), **change)


def _require_entry(entry: Entry | None) -> Entry:
    assert entry is not None, "the first change of an entry is its intent"
    return entry


class Store(Protocol):
    """Stores entries. One thread calls `commit` at a time; all other methods are called by the thread of the event loop.

    Every method raises `JournalError` if the disk fails.
    """

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def last_number(self) -> int:
        """The highest number of an entry; 0 if there is none."""
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

    def page(self, after: int) -> Sequence[Entry]:
        """The next entries by number, as many as fit into memory; empty after the last."""
        ...

    def has_job(self, request_id: str) -> bool:
        """Whether an entry has this job, or had it in an earlier attempt."""
        ...

    def find_unresolved(self) -> Mapping[int, EntryState]:
        """By number, the state of each entry with a POST whose fate is unknown: intended or ambiguous, without a job."""
        ...

    def unknown_attempts(self) -> Sequence[Entry]:
        """Entries as they were before a new attempt, where the fate of the earlier POST is still unknown."""
        ...

    def spent_usd(self) -> Decimal:
        """US dollars for all entries."""
        ...

    def close(self) -> None:
        """Unlock the file. A second call does nothing."""
        ...
