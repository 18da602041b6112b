"""What a process remembers of the entries that it holds. Nothing here asks the database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import attrs

from kling_async._journal.entry import Entry, Identity
from kling_async._journal.store import PendingWrites, apply_change, require_held_entry


@attrs.define
class HeldEntry:
    """An entry that this process holds."""

    entry: Entry
    """As the database has it."""
    epoch: int
    jobs: set[str] = attrs.field(factory=set)
    """The ids of the jobs that it has, or had."""
    is_lost: bool = False
    """Whether another process has taken it over."""
    is_job_taken: bool = False
    """Whether the job that this process wrote for it belongs to another entry."""
    is_reserved: bool = False
    """Whether the database has reserved the money of its planned POST, and the entry does not have it yet."""
    lacks_permit: bool = False
    """Whether that reservation ended without an intent: the POST needs another permit."""


@attrs.define
class HeldEntries:
    """The entries that this process holds, by number, by identity and by job."""

    holder: int = attrs.field(init=False, default=0)
    """The number of the session that holds them; no session has the number 0."""
    holders: set[int] = attrs.field(init=False, factory=set)
    """All numbers that the session of this process has had, or may have had."""
    _entries: dict[int, HeldEntry] = attrs.field(init=False, factory=dict)
    _numbers: dict[Identity, int] = attrs.field(init=False, factory=dict)
    _jobs: set[str] = attrs.field(init=False, factory=set)
    """The ids of the jobs that the entries have, or had."""

    def __contains__(self, number: int) -> bool:
        """Whether this process holds an entry, or held it and has not released it."""
        return number in self._entries

    def __getitem__(self, number: int) -> HeldEntry:
        """The held entry of this number."""
        return self._entries[number]

    def get(self, number: int) -> HeldEntry | None:
        """The held entry of this number, if this process holds it."""
        return self._entries.get(number)

    def find(self, identity: Identity) -> HeldEntry | None:
        """The held entry of this identity, if this process holds it."""
        number = self._numbers.get(identity)
        return None if number is None else self._entries[number]

    @property
    def jobs(self) -> Collection[str]:
        """The ids of the jobs that the entries have, or had."""
        return self._jobs

    def has_job(self, request_id: str) -> bool:
        """Whether a held entry has, or had, this job."""
        return request_id in self._jobs

    def is_lost(self, number: int) -> bool:
        """Whether this process does not hold an entry, or another one has taken it over."""
        held = self._entries.get(number)
        return held is None or held.is_lost

    def epoch_of(self, number: int) -> int:
        """The epoch of a held entry; one that no entry has if it is not held."""
        return self._entries[number].epoch if number in self._entries else -1

    def keep(self, entry: Entry, epoch: int, *, is_lost: bool = False, is_job_taken: bool = False) -> None:
        """Remember an entry as the database has it, or as this process has written it."""
        before = self._entries.get(entry.number)
        jobs = before.jobs if before is not None else set()
        after = self._entries[entry.number] = HeldEntry(entry, epoch, jobs, is_lost, is_job_taken)
        if before is not None:
            after.is_reserved, after.lacks_permit = before.is_reserved, before.lacks_permit
        self._numbers[entry.identity] = entry.number
        if entry.request_id is not None:
            jobs.add(entry.request_id)
            self._jobs.add(entry.request_id)

    def forget(self, numbers: Iterable[int]) -> None:
        """Remember entries no longer: this process has released them."""
        for number in numbers:
            held = self._entries.pop(number, None)
            if held is not None:
                self._numbers.pop(held.entry.identity, None)
                self._jobs -= held.jobs

    def mark_allowed(self, number: int, *, is_reserved: bool) -> None:
        """Remember that the POST of an entry has a permit."""
        held = self._entries[number]
        held.is_reserved, held.lacks_permit = is_reserved, False

    def mark_intended(self, number: int) -> None:
        """Remember that the intent of an entry, with its money, is in the database."""
        self._entries[number].is_reserved = False

    def apply(self, changes: PendingWrites) -> dict[int, Entry]:
        """By number, the held entries after the changes, without the intents whose POST has no permit any more.

        Raises:
            JournalError: This process holds no such entry.
        """
        after = {}
        for number, change in changes.fields.items():
            held = require_held_entry(self._entries.get(number), f"entry {number}")
            if held.lacks_permit and "identity" in change:
                held.is_lost = True  # the item is claimed and planned again, and nothing is sent before
            else:
                after[number] = apply_change(held.entry, change)
        return after

    def mark_lost(self, number: int) -> None:
        """Remember that another process has taken over an entry."""
        if (held := self._entries.get(number)) is not None:
            held.is_lost = True

    def begin_session(self, holder: int) -> None:
        """Hold entries under the number of a session from now on."""
        self.holder = holder
        self.holders.add(holder)

    def move(self, holder: int, epochs: Mapping[int, int], *, posts: Collection[int]) -> None:
        """Remember what another session of this process holds now.

        Args:
            holder: The number of that session.
            epochs: By number, the epoch of each entry that it holds; the others are lost.
            posts: The entries with a planned POST. No money is reserved any more: while no session was there, other
                processes could plan with it.
        """
        self.begin_session(holder)
        for number, held in self._entries.items():
            held.epoch = epochs.get(number, held.epoch)
            held.is_lost = held.is_lost or number not in epochs
            held.lacks_permit = held.lacks_permit or (held.is_reserved and number not in posts)
            held.is_reserved = False
