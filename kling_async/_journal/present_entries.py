"""The entries as they are now: those of the store, with the writes that may not be in the store yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kling_async._journal.bloom_filter import BloomFilter
from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.group_commit import GroupCommit
from kling_async._journal.shared_store import Claim
from kling_async._journal.store import Store, StoreStart, apply_change
from kling_async._journal.transitions import OPEN_STATES, UNKNOWN_STATES, is_attempt, is_unknown


class PresentEntries:
    """The entries of a store under the pending writes, which it adds to.

    Args:
        store: Keeps the entries.
        writes: The pending writes.
        start: What the store has before the first write of this process; None for a store that other processes write too.
    """

    def __init__(self, store: Store, writes: GroupCommit, start: StoreStart | None) -> None:
        self._store = store
        self._writes = writes
        self.last_number = 0 if start is None else start.last_number
        """The highest number of an entry that this process alone has numbered; 0 if there is none."""
        self._open_states = {} if start is None else dict(start.unknown_states)
        """By number, the state of each entry with an unknown POST, or with a job that this process waits for."""
        unknown_attempts = () if start is None else start.unknown_attempts
        self._unknown_attempts = {(entry.number, entry.attempts): entry for entry in unknown_attempts}
        # A store that was empty, and that no other process writes, has only entries of this process: most lookups need no disk.
        is_ours = start is not None and start.last_number == 0
        self._written_here: BloomFilter | None = BloomFilter() if is_ours else None

    # Reading

    def find(self, identity: Identity) -> Entry | None:
        """The entry of an item; None if no run has written one."""
        if self._written_here is not None and not self._written_here.may_contain(identity):
            return None
        number = self._writes.pending.numbers.get(identity) or self._writes.in_commit.numbers.get(identity)
        if number is not None:
            return self._apply_pending(number, None)
        entry = self._store.find(identity)
        if entry is None and identity.former is not None:
            entry = self._store.find(identity.former)
        return None if entry is None else self._apply_pending(entry.number, entry)

    def load(self, number: int) -> Entry:
        """The entry of a number."""
        return self._apply_pending(number, self._store.entry(number))

    def state_of(self, number: int) -> EntryState:
        """The state of an entry, from memory where it is there."""
        if (state := self._open_states.get(number)) is not None:
            return state
        pending = self._writes.pending.fields.get(number)
        return self.load(number).state if pending is None else pending["state"]

    def has_job(self, request_id: str) -> bool:
        """Whether an entry has this job, or had it in an earlier attempt."""
        for changes in (self._writes.in_commit, self._writes.pending):
            if any(change.get("request_id") == request_id for change in changes.fields.values()):
                return True
            if any(entry.request_id == request_id for entry in changes.earlier):
                return True
        return self._store.has_job(request_id)

    def find_unknown(self) -> list[Entry]:
        """The unknown attempts, by number and attempt: one entry may have several, each as it was then."""
        numbers = [number for number, state in self._open_states.items() if state in UNKNOWN_STATES]
        unknown = [*self._unknown_attempts.values(), *map(self.load, numbers)]
        return sorted(unknown, key=lambda entry: (entry.number, entry.attempts))

    def is_still_unknown(self, attempt: Entry) -> bool:
        """Whether no write that may not be in the store yet says what became of an attempt."""
        held = self._store.entry(attempt.number)
        if held is None or held.attempts != attempt.attempts:
            return True
        return is_unknown(self._apply_pending(attempt.number, held))

    def __iter__(self) -> Iterator[Entry]:
        """All entries, in the order in which they were first written."""
        last = 0
        while entries := self._store.page(last):
            for entry in entries:
                yield self._apply_pending(entry.number, entry)
            last = entries[-1].number
        while last < self.last_number:  # not on the disk yet
            last += 1
            yield self.load(last)

    def _apply_pending(self, number: int, entry: Entry | None) -> Entry:
        for changes in (self._writes.in_commit, self._writes.pending):
            if number in changes.fields:
                entry = apply_change(entry, changes.fields[number])
        assert entry is not None, "an entry that is not on the disk is among the pending writes"
        return entry

    # Writing

    def add_attempt(self, identity: Identity, number: int, before: Entry | None) -> None:
        """Keep what an entry was before a new attempt, and find the entry by its identity from now on."""
        if before is not None and is_attempt(before):
            self._writes.pending.earlier.append(before)
            if is_unknown(before):
                self._unknown_attempts[number, before.attempts] = before
        if self._written_here is not None:
            self._written_here.add(identity)
        if before is None:
            self.last_number = number
        self._writes.pending.numbers[identity] = number

    def write(self, number: int, state: EntryState, change: dict[str, Any]) -> None:
        """Add a checked change and the state that it leads to to the pending writes."""
        if state in OPEN_STATES:
            self._open_states[number] = state
        else:
            self.forget_state(number)
        change["state"] = state
        self._writes.pending.add(number, change)
        self._writes.mark_added()

    def note_claim(self, claim: Claim) -> None:
        """Replace what this process remembers of an entry that it holds from now on."""
        if claim.entry is not None:
            self.forget_state(claim.entry.number)
        for attempt in claim.unknown_attempts:
            self._unknown_attempts[attempt.number, attempt.attempts] = attempt

    def pop_unknown(self, number: int, attempt: int) -> Entry | None:
        """Forget and return an earlier attempt that is unknown; None if it is known."""
        return self._unknown_attempts.pop((number, attempt), None)

    def forget_state(self, number: int) -> None:
        """Read the state of an entry from its writes, or from the store, from now on."""
        self._open_states.pop(number, None)
