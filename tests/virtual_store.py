"""A journal's store in memory: the part of a disk that a crash leaves, and a disk that can be full."""

from __future__ import annotations

from decimal import Decimal

import attrs

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.store import PendingWrites, StoreStart, apply_change


@attrs.define(eq=False)
class MemoryStore:
    """Holds what was committed and nothing else: a journal opened over it again is one after a crash."""

    name: str = "memory.db"
    kept: dict[int, Entry] = attrs.field(factory=dict)
    earlier: dict[tuple[int, int], Entry] = attrs.field(factory=dict)
    commits: list[int] = attrs.field(factory=list)
    """How many entries each commit changed."""
    failure: Exception | None = None
    """What the next commits raise."""
    is_closed: bool = False

    @property
    def location(self) -> str:
        return self.name

    def commit(self, changes: PendingWrites) -> None:
        if self.failure is not None:
            raise self.failure
        self.commits.append(len(changes.fields))
        self.earlier |= {(entry.number, entry.attempts): entry for entry in changes.earlier}
        for number, change in changes.fields.items():
            self.kept[number] = apply_change(self.kept.get(number), change)

    def find(self, identity: Identity) -> Entry | None:
        return next((entry for entry in self.kept.values() if entry.identity == identity), None)

    def entry(self, number: int) -> Entry | None:
        return self.kept.get(number)

    def page(self, after: int, *, unpriced: bool = False) -> list[Entry]:
        later = [self.kept[number] for number in sorted(self.kept) if number > after]
        return [entry for entry in later if not unpriced or entry.is_unpriced][:3]

    def has_job(self, request_id: str) -> bool:
        return any(entry.request_id == request_id for entry in (*self.kept.values(), *self.earlier.values()))

    def read_start(self) -> StoreStart:
        return StoreStart(
            last_number=max(self.kept, default=0),
            unknown_states={number: entry.state for number, entry in self.kept.items() if _is_unknown(entry)},
            unknown_attempts=[
                entry
                for (number, attempt), entry in self.earlier.items()
                if _is_unknown(entry) and attempt < self.kept[number].attempts
            ],
        )

    def spent_usd(self) -> Decimal:
        return sum((entry.cost_usd or Decimal(0) for entry in self.kept.values()), Decimal(0))

    def close(self) -> None:
        self.is_closed = True


def _is_unknown(entry: Entry) -> bool:
    return entry.request_id is None and entry.state in {EntryState.INTENDED, EntryState.AMBIGUOUS}
