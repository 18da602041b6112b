"""The protocol of a store that several processes share, and the values that it takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from enum import Enum, auto
from typing import Any, Protocol, runtime_checkable

import attrs

from kling_async._journal.entry import Entry, Identity
from kling_async._journal.store import Store
from kling_async.errors import JournalError


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
    """The answer to a claim."""

    entry: Entry | None = None
    """The entry as it is, held by this process from now on; None if another process holds it, or there is none."""
    is_held_elsewhere: bool = False
    """Whether another live process holds the item."""
    is_changed_elsewhere: bool = False
    """Whether another process has written the entry since this one opened the store."""
    unknown_attempts: Sequence[Entry] = ()
    """The entry as it was before new attempts, where the earlier POST is still unknown."""
    error: JournalError | None = None
    """Why the entry cannot be read: then this process does not hold it. The other claims of the same call are as usual."""


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


@runtime_checkable
class SharedStore(Store, Protocol):
    """Stores entries that several processes write, each entry by one process at a time: its holder.

    The methods of `Store` see the entries that this process holds, in memory, except `page`, `spent_usd` and `commit`. The
    further methods block, and are called in worker threads.

    `commit` writes the held entries alone. A change of an entry that this process does not hold is an error. A change of an
    entry that another process has taken over changes nothing, and is no error, for the entry is the other process's:
    `is_lost` says so afterwards. Ask it before anything relies on the change, as `Sharing.confirm_intent` does.

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
        """The monotonic time of the last call whose answer showed that the session lives; known from memory."""
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

    def find_all_unknown(self, model: str) -> Sequence[Entry]:
        """The unknown attempts of a model, of all processes, by number and attempt."""
        ...

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call a function, from any thread, soon after another process released entries or ended an activity."""
        ...
