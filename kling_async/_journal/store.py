"""What a journal needs of a disk, as a protocol: read an entry, write a group of changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import attrs

from kling_async._journal.entry import Entry, EntryState, Identity


@attrs.define(eq=False)
class PendingWrites:
    """What is still to be written: for each field its last word, so that to write it twice does no harm."""

    fields: dict[int, dict[str, Any]] = attrs.field(factory=dict)
    """By number, what changes of an entry, by the names of its fields; one that was intended has all of them."""
    numbers: dict[Identity, int] = attrs.field(factory=dict)
    """The entries that were intended."""
    earlier: list[Entry] = attrs.field(factory=list)
    """Entries as they were before they were intended again."""

    def add(self, number: int, change: dict[str, Any]) -> None:
        """Add a change of one entry; a change of all fields replaces what was pending."""
        if "identity" in change:
            self.fields[number] = change
        else:
            self.fields.setdefault(number, {}).update(change)

    def merge(self, later: PendingWrites) -> PendingWrites:
        """Both as one."""
        fields = {number: {**change} for number, change in self.fields.items()}
        for number, change in later.fields.items():
            fields[number] = {**fields.get(number, {}), **change}
        return PendingWrites(fields, {**self.numbers, **later.numbers}, [*self.earlier, *later.earlier])


def apply_change(entry: Entry | None, change: Mapping[str, Any]) -> Entry:
    """The entry after the change; one that is not known yet needs a change of all fields."""
    return Entry(**change) if "identity" in change else attrs.evolve(_require_entry(entry), **change)


def _require_entry(entry: Entry | None) -> Entry:
    assert entry is not None, "an entry is intended before anything else is written of it"
    return entry


class Store(Protocol):
    """Keeps entries. All but `commit` is called by one thread; `commit` by one at a time.

    Every method raises `JournalError` where the disk fails.
    """

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    @property
    def last_number(self) -> int:
        """The highest number of an entry; 0 where there is none."""
        ...

    def commit(self, changes: PendingWrites) -> None:
        """Write the changes as one: all or, when it raises, none. When it returns they survive a power cut."""
        ...

    def find(self, identity: Identity) -> Entry | None:
        """The entry of this identity."""
        ...

    def entry(self, number: int) -> Entry | None:
        """The entry of this number."""
        ...

    def page(self, after: int) -> Sequence[Entry]:
        """The next entries by number, not more than fit into memory; empty after the last."""
        ...

    def has_job(self, request_id: str) -> bool:
        """Whether an entry has, or had, this id."""
        ...

    def unresolved(self) -> Mapping[int, EntryState]:
        """By number, the state of each entry with a POST whose fate is unknown: intended or ambiguous, without a job."""
        ...

    def unknown_attempts(self) -> Sequence[Entry]:
        """What entries were before they were intended again, where the fate of that POST is unknown to this day."""
        ...

    def spent_usd(self) -> Decimal:
        """The sum of what all entries cost."""
        ...

    def close(self) -> None:
        """Let go of everything; it may be called twice."""
        ...
