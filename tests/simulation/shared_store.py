"""The store of one process over a shared journal in memory, with the answers of `PostgresStore`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import attrs

from kling_async._journal.entry import Entry, Identity
from kling_async._journal.shared_store import Claim, PlannedPost, PostDecision, PostPermit, WantedItem
from kling_async._journal.store import PendingWrites, apply_change, require_held_entry

from .shared_database import SharedDatabase, is_unknown

T = TypeVar("T")


class UnreachableError(Exception):
    """The server does not get a question, or its answer is lost: the process asks again."""


@attrs.define(eq=False)
class _Held:
    entry: Entry
    epoch: int
    jobs: set[str]
    is_lost: bool = False
    lacks_permit: bool = False
    is_job_taken: bool = False


@attrs.define(eq=False, kw_only=True)
class SharedMemoryStore:
    """See `SharedStore`. Each method asks the server once, and changes what it knows only when it has the answer.

    A process that is cut off asks again later; the process itself sees to that.
    """

    database: SharedDatabase
    wake: Callable[[Callable[[], None]], None]
    """Calls a function soon, in the process."""
    before_commit: Callable[[], None]
    after_commit: Callable[[], None]
    name: str = "shared"
    asked_at: float = 0.0
    """When the process sent the question that is asked now."""
    is_cut_off: bool = False
    loses_answer: bool = False
    """Whether the server gets the next question, and its answer does not come back."""
    holder: int = attrs.field(init=False)
    opened_at: float = attrs.field(init=False)
    confirmed: float = attrs.field(init=False)
    is_closed: bool = False
    _former: set[int] = attrs.field(factory=set)
    _held: dict[int, _Held] = attrs.field(factory=dict)
    _listeners: list[Callable[[], None]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.opened_at = self.confirmed = self.database.clock()
        self.open_session()

    @property
    def location(self) -> str:
        return self.name

    def _ask(self, question: Callable[[], T]) -> T:
        """The answer of the server."""
        if self.is_cut_off:
            raise UnreachableError
        self.database.hear(self.holder)
        answer = question()
        if self.loses_answer:
            self.loses_answer = False
            raise UnreachableError
        return answer

    # The session

    def open_session(self) -> None:
        """Open a session, and move to it what no other process has taken from the one before."""
        self.holder = self.database.open_session(lambda: self.wake(self.notify))
        self._former.add(self.holder)
        ended = self.database.end_reservations(self._former)
        epochs = self.database.move(self.holder, self._former)
        for number, held in self._held.items():
            held.lacks_permit = held.lacks_permit or number in ended
            held.epoch = epochs.get(number, held.epoch)
            held.is_lost = held.is_lost or number not in epochs

    def look_after_session(self, asked_at: float, *, is_broken: bool) -> None:
        """Prove that the session lives, or open another one."""
        if not self._ask(lambda: self.database.is_live(self.holder)) or is_broken:
            self.open_session()
            self.notify()
        self.confirmed = max(self.confirmed, asked_at)

    def confirmed_at(self) -> float:
        return self.confirmed

    def confirm(self) -> None:
        if not self._ask(lambda: self.database.is_live(self.holder)):
            raise UnreachableError
        self.confirmed = max(self.confirmed, self.asked_at)

    def subscribe(self, notify: Callable[[], None]) -> None:
        self._listeners.append(notify)

    def notify(self) -> None:
        for notify in self._listeners:
            notify()

    def close(self) -> None:
        self.is_closed = True
        self.database.end_session(self.holder)

    # Every store

    def find(self, identity: Identity) -> Entry | None:
        return next((one.entry for one in self._held.values() if one.entry.identity == identity), None)

    def entry(self, number: int) -> Entry | None:
        held = self._held.get(number)
        return None if held is None else held.entry

    def page(self, after: int, *, unpriced: bool = False) -> list[Entry]:
        entries = self.database.kept
        later = [entries[number] for number in sorted(entries) if number > after]
        return [entry for entry in later if not unpriced or entry.is_unpriced]

    def has_job(self, request_id: str) -> bool:
        return any(request_id in held.jobs for held in self._held.values())

    def spent_usd(self) -> Decimal:
        return self.database.spent_usd()

    def commit(self, changes: PendingWrites) -> None:
        self.before_commit()
        held = self._held
        for number in changes.fields:
            require_held_entry(held.get(number), f"entry {number}")
        after = {
            number: (
                held[number].epoch,
                apply_change(held[number].entry, change),
                "identity" in change,
            )
            for number, change in changes.fields.items()
            if not (held[number].lacks_permit and "identity" in change)
        }
        for number in changes.fields.keys() - after.keys():
            held[number].is_lost = True
        earlier = [(held[one.number].epoch, one) for one in changes.earlier]
        released = {number: held[number].epoch for number in changes.released if number in held}
        written = self._ask(lambda: self.database.write(self.holder, after, earlier, changes.ended, released))
        for number, (epoch, entry, _) in after.items():
            is_written, is_job_taken = written[number]
            if is_written:
                self._keep(entry, epoch)
            else:
                held[number].is_lost, held[number].is_job_taken = True, is_job_taken
        for number in changes.released:
            held.pop(number, None)
        self.after_commit()

    def _keep(self, entry: Entry, epoch: int) -> None:
        before = self._held.get(entry.number)
        jobs = set() if before is None else before.jobs
        if entry.request_id is not None:
            jobs.add(entry.request_id)
        lacks_permit = before is not None and before.lacks_permit
        self._held[entry.number] = _Held(entry, epoch, jobs, lacks_permit=lacks_permit)

    # Items

    def claim(self, items: Sequence[WantedItem]) -> list[Claim]:
        return [self._build_claim(item, row) for item, row in self._ask(lambda: self._take(items))]

    def _take(self, items: Sequence[WantedItem]) -> list[tuple[WantedItem, Any]]:
        return [(item, self.database.claim(self.holder, item)) for item in items]

    def _build_claim(self, item: WantedItem, row: Any) -> Claim:
        if row is None:
            return Claim(is_held_elsewhere=self.database.find(item.identity) is not None)
        self._keep(row.entry, row.epoch)
        is_changed = (
            row.written_at is not None and row.written_at > self.opened_at and row.writer not in self._former
        )
        unknown = [one for one in self.database.find_unknown_attempts() if one.number == row.entry.number]
        return Claim(entry=row.entry, is_changed_elsewhere=is_changed, unknown_attempts=unknown)

    def register(self, items: Sequence[WantedItem]) -> list[Entry]:
        return [(self.database.find(item.identity) or self.database.make(item)).entry for item in items]

    def find_claimable(self, identities: Collection[Identity]) -> set[Identity]:
        def find() -> set[Identity]:
            rows = [self.database.find(identity) for identity in identities]
            return {
                row.entry.identity
                for row in rows
                if row is not None and self.database.is_free(row, self.holder)
            }

        return self._ask(find)

    def is_lost(self, number: int) -> bool:
        held = self._held.get(number)
        return held is None or held.is_lost

    def is_job_taken(self, number: int) -> bool:
        held = self._held.get(number)
        return held is not None and held.is_job_taken

    # POSTs

    def reserve_posts(self, posts: Sequence[PlannedPost]) -> list[PostPermit]:
        held = self._held
        planned = [(self._epoch_of(post.number), post) for post in posts]

        def reserve() -> list[PostPermit] | None:
            return self.database.reserve(self.holder, planned) if self.database.is_live(self.holder) else None

        permits = self._ask(reserve)
        if permits is None:
            raise UnreachableError
        for post, permit in zip(posts, permits, strict=True):
            if permit.decision is PostDecision.TAKEN_OVER and post.number in held:
                held[post.number].is_lost = True
            elif permit.decision is PostDecision.ALLOWED:
                held[post.number].lacks_permit = False
        self.confirmed = max(self.confirmed, self.asked_at)
        return permits

    def take_turns(self, count: int, *, rate: float, burst: float) -> list[float]:
        return self._ask(lambda: self.database.take_turns(count, rate=rate, burst=burst))

    # Reconciliations

    def begin_reconciliation(self, number: int, *, model: str, look_alikes: str | None) -> bool:
        epoch = self._epoch_of(number)
        is_begun = self._ask(
            lambda: self.database.begin_reconciliation(
                self.holder, epoch, number, model=model, look_alikes=look_alikes
            )
        )
        if not is_begun and number in self._held:
            self._held[number].is_lost = True
        return is_begun

    def _epoch_of(self, number: int) -> int:
        return self._held[number].epoch if number in self._held else -1

    def find_searchable(self, numbers: Collection[int]) -> set[int]:
        return self._ask(lambda: self.database.find_searchable(self.holder, numbers))

    def match_job(self, number: int, request_id: str) -> bool:
        held = self._held.get(number)
        if held is None:
            return False
        if not self._ask(lambda: self.database.match(self.holder, held.epoch, number, request_id)):
            return False
        self._keep(attrs.evolve(held.entry, request_id=request_id), held.epoch)
        return True

    def find_jobs(self, request_ids: Collection[str]) -> set[str]:
        return self._ask(lambda: {one for one in request_ids if one in self.database.jobs})

    def find_all_unknown(self, model: str) -> list[Entry]:
        def find() -> list[Entry]:
            entries = [
                *filter(is_unknown, self.database.kept.values()),
                *self.database.find_unknown_attempts(),
            ]
            of_model = [entry for entry in entries if entry.model == model]
            return sorted(of_model, key=lambda entry: (entry.number, entry.attempts))

        return self._ask(find)
