"""The protocol of a store: read an entry, write a group of changes; and of a store that several processes share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from enum import Enum, StrEnum, auto
from typing import Any, Protocol, TypeVar

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


@attrs.frozen(kw_only=True)
class WantedItem:
    """An item that a process wants to hold, with the fields of its entry if there is none yet."""

    identity: Identity
    model: str = ""
    payload: Mapping[str, Any] = attrs.field(factory=dict)
    index: int = 0
    is_known: bool = False
    """Whether the item has to have an entry, so that none is made."""


@attrs.frozen(kw_only=True)
class Claim:
    """The answer to the wish to hold an item."""

    entry: Entry | None = None
    """The entry as it is, held by this process from now on; None if another process holds it, or there is none."""
    is_held_elsewhere: bool = False
    """Whether another live process holds the item."""
    is_changed_elsewhere: bool = False
    """Whether another process has written the entry since this one opened the store."""
    unknown_attempts: Sequence[Entry] = ()
    """The entry as it was before new attempts, where the fate of the earlier POST is still unknown."""


@attrs.frozen(kw_only=True)
class PlannedPost:
    """A paid POST that is about to be sent, as the other processes have to know it."""

    number: int
    """The number of the entry."""
    model: str
    look_alikes: str | None
    """See `look_alike_group`."""
    price_usd: Decimal | None = None
    cap_usd: Decimal | None = None
    """The most that all entries together may cost; None is no limit."""


class PostDecision(Enum):
    """Whether a planned POST may be sent."""

    ALLOWED = auto()
    BLOCKED = auto()
    """Another process reconciles a look-alike: it may be allowed later."""
    OVER_CAP = auto()
    TAKEN_OVER = auto()
    """Another process holds the item."""


@attrs.frozen
class PostPermit:
    """The answer to a planned POST."""

    decision: PostDecision
    total_usd: Decimal = Decimal(0)
    """US dollars for all entries, and for the allowed POSTs of all processes, this one included.

    Of a refused POST: with the first refused one. Nothing after that one is sent, so the sum of refused ones says nothing.
    """


class SharedStore(Store, Protocol):
    """Stores entries that several processes write, each entry by one process at a time: its holder.

    The methods of `Store` see the entries that this process holds, in memory, except `page`, `spent_usd` and `commit`. The
    further methods block, and are called in worker threads.

    `commit` writes the held entries alone. A change of an entry that this process does not hold is an error. A change of an
    entry that another process has taken over changes nothing, and is no error, for the entry is the other process's:
    `is_lost` says so afterwards. Ask it before anything relies on the change, as `Sharing.require_held` does.

    A process holds its entries until it releases them, or until its session with the store is gone. A session is never
    ended by a clock of another process, so a process that stands still keeps its entries.
    """

    def claim(self, items: Sequence[WantedItem]) -> Sequence[Claim]:
        """Hold each item that no other live process holds; the answers are in the order of the items."""
        ...

    def register(self, items: Sequence[WantedItem]) -> Sequence[Entry]:
        """The entries of the items, made if they are missing, in their order. This process does not hold them."""
        ...

    def find_claimable(self, identities: Collection[Identity]) -> set[Identity]:
        """The identities of the items that no live process holds."""
        ...

    def is_lost(self, number: int) -> bool:
        """Whether another process has taken over an entry that this one held; known from memory."""
        ...

    def is_job_taken(self, number: int) -> bool:
        """Whether the job that this process wrote for a held entry belongs to another entry; known from memory.

        A job belongs to one entry. Such a write is refused: the entry is a lost submit, as the store has it.
        """
        ...

    def confirm(self) -> None:
        """Return when the store has said that the session of this process lives, so that no process took its entries."""
        ...

    def confirmed_at(self) -> float:
        """The monotonic time before the last question that the store answered so; known from memory."""
        ...

    def reserve_posts(self, posts: Sequence[PlannedPost]) -> Sequence[PostPermit]:
        """Register the POSTs that may be sent, and reserve their money; the answers are in the order of the POSTs.

        A POST is blocked while another process reconciles a look-alike. For all processes, the money counts from now on, and
        the POST is registered until `PendingWrites.ended` has it.
        """
        ...

    def take_turns(self, count: int, *, rate: float, burst: float) -> Sequence[float]:
        """Take turns of the rate that all processes share; returns the seconds until each can be used.

        Args:
            count: How many.
            rate: Turns per second.
            burst: How many turns a full bucket gives without a wait.
        """
        ...

    def begin_reconciliation(self, number: int, *, model: str, look_alikes: str | None) -> bool:
        """Block look-alikes of all other processes from now on, until `PendingWrites.ended` has the reconciliation.

        False, and nothing is blocked, if another process has taken over the entry: it reconciles the submit, too.
        """
        ...

    def find_searchable(self, numbers: Collection[int]) -> set[int]:
        """The numbers of the begun reconciliations for which no look-alike of another process is in flight.

        The job of a look-alike that was accepted before is in the store by then.
        """
        ...

    def match_job(self, number: int, request_id: str) -> bool:
        """Give a job to the lost submit of an entry; False if another entry has the job, or another process the entry."""
        ...

    def find_jobs(self, request_ids: Collection[str]) -> set[str]:
        """Those of the ids whose job an entry of any process has, or had in an earlier attempt."""
        ...

    def find_all_unresolved(self, model: str) -> Sequence[Entry]:
        """The attempts of unknown fate of a model, of all processes, by number and attempt."""
        ...

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call a function, from any thread, soon after another process released entries or ended an activity."""
        ...
