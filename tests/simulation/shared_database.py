"""The server of a shared journal, in memory and on the virtual clock: each method is one transaction, as in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal

import attrs

from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._journal.shared_store import PlannedPost, PostDecision, PostPermit, WantedItem
from kling_async._journal.store import Activity
from kling_async._journal.transitions import UNKNOWN_STATES

LOST_AFTER = 30.0
"""Seconds after which the server ends the session of a process that it cannot reach."""


@attrs.define(eq=False)
class Row:
    """An entry, and who holds it."""

    entry: Entry
    holder: int | None = None
    epoch: int = 0
    writer: int | None = None
    written_at: float | None = None


@attrs.define(eq=False, kw_only=True)
class _ActivityRow:
    number: int
    holder: int
    model: str
    look_alikes: str | None
    price_usd: Decimal = Decimal(0)

    def is_look_alike(self, other: _ActivityRow | PlannedPost) -> bool:
        one, two = self.look_alikes, other.look_alikes
        return self.model == other.model and (one is None or two is None or one == two)


@attrs.define(eq=False)
class SharedDatabase:
    """The rows that all processes see, and the sessions of those that live. No clock of a process ends a session."""

    clock: Callable[[], float]
    rows: dict[int, Row] = attrs.field(factory=dict)
    earlier: dict[tuple[int, int], Entry] = attrs.field(factory=dict)
    jobs: dict[str, int] = attrs.field(factory=dict)
    """By id of a job, the number of its entry."""
    activities: dict[tuple[int, Activity], _ActivityRow] = attrs.field(factory=dict)
    sessions: dict[int, Callable[[], None]] = attrs.field(factory=dict)
    """By number of a session that lives, what tells its process of a change."""
    heard_at: dict[int, float] = attrs.field(factory=dict)
    """By number of a session, when its process was last heard."""
    total_usd: Decimal = Decimal(0)
    next_turn_at: float = float("-inf")
    first_turn_at: float = float("inf")

    # As the rules read it

    @property
    def kept(self) -> dict[int, Entry]:
        """The entries, by number."""
        return {number: row.entry for number, row in self.rows.items()}

    def spent_usd(self) -> Decimal:
        """US dollars for all entries."""
        return self.total_usd

    # Sessions

    def open_session(self, notify: Callable[[], None]) -> int:
        """The number of another session."""
        holder = len(self.heard_at) + 1
        self.sessions[holder] = notify
        self.hear(holder)
        return holder

    def end_session(self, holder: int) -> None:
        """End a session: others can take its entries from now on."""
        self.sessions.pop(holder, None)

    def hear(self, holder: int) -> None:
        """Note that the server can reach the process of a session."""
        self.heard_at[holder] = self.clock()

    def is_live(self, holder: int | None) -> bool:
        """Whether a session lives, also if its process stands still."""
        return holder in self.sessions

    def notify(self) -> None:
        """Tell all processes of a change."""
        for notify in list(self.sessions.values()):
            notify()

    def move(self, holder: int, former: Collection[int]) -> dict[int, int]:
        """Give to another session of a process what its former sessions held; the epochs, by number."""
        moved = {number: row for number, row in self.rows.items() if row.holder in former}
        for row in moved.values():
            row.holder, row.epoch = holder, row.epoch + 1
        for activity in self.activities.values():
            if activity.holder in former:
                activity.holder = holder
        return {number: row.epoch for number, row in moved.items()}

    def end_reservations(self, former: Collection[int]) -> set[int]:
        """End the planned POSTs of a process whose money is reserved and not in an entry; their numbers."""
        ended = {
            number for (number, _), row in self.activities.items() if row.holder in former and row.price_usd
        }
        for number in ended:
            del self.activities[number, Activity.POST]
        return ended

    # Items

    def find(self, identity: Identity) -> Row | None:
        """The row of an identity."""
        return next((row for row in self.rows.values() if row.entry.identity == identity), None)

    def is_free(self, row: Row, holder: int) -> bool:
        """Whether a process can take an entry."""
        return row.holder is None or row.holder == holder or not self.is_live(row.holder)

    def claim(self, holder: int, item: WantedItem) -> Row | None:
        """The row of an item, held from now on; None if another process holds it, or there is none."""
        row = self.find(item.identity)
        if row is None and not item.is_known:
            row = self.make(item)
        if row is None or not self.is_free(row, holder):
            return None
        row.holder, row.epoch = holder, row.epoch + 1
        return row

    def make(self, item: WantedItem) -> Row:
        """The row of an item that has none yet."""
        number = len(self.rows) + 1
        row = self.rows[number] = Row(
            Entry(
                number=number,
                identity=item.identity,
                model=item.model,
                payload=item.payload,
                state=EntryState.NOT_SUBMITTED,
                index=item.index,
            )
        )
        return row

    def write(
        self,
        holder: int,
        entries: Mapping[int, tuple[int, Entry, bool]],
        earlier: Sequence[tuple[int, Entry]],
        ended: Collection[tuple[int, Activity]],
        released: Mapping[int, int],
    ) -> dict[int, tuple[bool, bool]]:
        """Write entries, by number with their epoch and whether they are intents.

        The answer says whether each is written, and whether its job belongs to another entry.
        """
        for epoch, attempt in earlier:
            if self._is_held(attempt.number, holder, epoch):
                self.earlier[attempt.number, attempt.attempts] = attempt
                self._own(attempt)
        written = {
            number
            for number, (epoch, entry, _) in entries.items()
            if self._is_held(number, holder, epoch) and self._own(entry)
        }
        for number in written:
            _, entry, is_intent = entries[number]
            row = self.rows[number]
            self.total_usd += (entry.cost_usd or 0) - (row.entry.cost_usd or 0)
            row.entry, row.writer, row.written_at = entry, holder, self.clock()
            post = self.activities.get((number, Activity.POST))
            if is_intent and post is not None:
                post.price_usd = Decimal(0)
        for number, kind in ended:
            activity = self.activities.get((number, kind))
            if activity is not None and activity.holder == holder:
                del self.activities[number, kind]
        for number, epoch in released.items():
            if self._is_held(number, holder, epoch):
                self.rows[number].holder = None
        if ended or released:
            self.notify()
        return {
            number: (number in written, self.jobs.get(entry.request_id or "", number) != number)
            for number, (_, entry, _) in entries.items()
        }

    def _is_held(self, number: int, holder: int, epoch: int) -> bool:
        row = self.rows[number]
        return row.holder == holder and row.epoch == epoch

    def _own(self, entry: Entry) -> bool:
        """Whether the job of an entry, if it has one, belongs to it from now on."""
        return (
            entry.request_id is None or self.jobs.setdefault(entry.request_id, entry.number) == entry.number
        )

    # POSTs

    def reserve(self, holder: int, posts: Sequence[tuple[int, PlannedPost]]) -> list[PostPermit]:
        """Register the POSTs, each with its epoch, that may be sent."""
        wanted = {post.number for _, post in posts}
        total = self.total_usd + sum(
            (
                row.price_usd
                for (number, kind), row in self.activities.items()
                if kind is Activity.POST and number not in wanted and self.is_live(row.holder)
            ),
            Decimal(0),
        )
        permits: list[PostPermit] = []
        refused: dict[Decimal | None, Decimal] = {}
        for epoch, post in posts:
            if not self._is_held(post.number, holder, epoch):
                permits.append(PostPermit(PostDecision.TAKEN_OVER))
            elif any(row.is_look_alike(post) for row in self.find_others(Activity.RECONCILIATION, holder)):
                permits.append(PostPermit(PostDecision.BLOCKED))
            else:
                total += post.price_usd or 0
                is_allowed = post.cap_usd is None or total <= post.cap_usd
                if is_allowed:
                    self._begin(Activity.POST, holder, post, post.price_usd)
                decision = PostDecision.ALLOWED if is_allowed else PostDecision.OVER_CAP
                told = total if is_allowed else refused.setdefault(post.cap_usd, total)
                permits.append(PostPermit(decision, told))
        return permits

    def begin_reconciliation(
        self, holder: int, epoch: int, number: int, *, model: str, look_alikes: str | None
    ) -> bool:
        """Block look-alikes of other processes; False if another process holds the entry."""
        if not self._is_held(number, holder, epoch):
            return False
        about = PlannedPost(number=number, model=model, look_alikes=look_alikes)
        self._begin(Activity.RECONCILIATION, holder, about, None)
        return True

    def _begin(self, kind: Activity, holder: int, about: PlannedPost, price: Decimal | None) -> None:
        self.activities[about.number, kind] = _ActivityRow(
            number=about.number,
            holder=holder,
            model=about.model,
            look_alikes=about.look_alikes,
            price_usd=price or Decimal(0),
        )

    def find_others(self, kind: Activity, holder: int) -> list[_ActivityRow]:
        """The activities of a kind of all other processes that live."""
        return [
            row
            for (_, one), row in self.activities.items()
            if one is kind and row.holder != holder and self.is_live(row.holder)
        ]

    def find_searchable(self, holder: int, numbers: Collection[int]) -> set[int]:
        """The reconciliations of a process for which no look-alike of another one is in flight."""
        posts = self.find_others(Activity.POST, holder)
        begun = [self.activities.get((number, Activity.RECONCILIATION)) for number in numbers]
        return {
            row.number
            for row in begun
            if row is not None
            and row.holder == holder
            and self.is_live(holder)
            and not any(post.is_look_alike(row) for post in posts)
        }

    def match(self, holder: int, epoch: int, number: int, request_id: str) -> bool:
        """Give a job to an entry, unless one of them belongs to another."""
        if not self._is_held(number, holder, epoch):
            return False
        row = self.rows[number]
        if row.entry.request_id not in {None, request_id}:
            return False
        if self.jobs.setdefault(request_id, number) != number:
            return False
        row.entry = attrs.evolve(row.entry, request_id=request_id, state=EntryState.SUBMITTED)
        row.writer, row.written_at = holder, self.clock()
        return True

    def find_unknown_attempts(self) -> list[Entry]:
        """The earlier attempts that are unknown, each with its entry's identity."""
        return [
            entry
            for (number, attempt), entry in self.earlier.items()
            if is_unknown(entry) and attempt < self.rows[number].entry.attempts
        ]

    def take_turns(self, count: int, *, rate: float, burst: float) -> list[float]:
        """Take turns of the rate that all processes share."""
        now = self.clock()
        self.first_turn_at = min(self.first_turn_at, now)
        first = max(self.next_turn_at, now - (burst - 1) / rate)
        self.next_turn_at = first + count / rate
        return [max(0.0, first + place / rate - now) for place in range(count)]


def is_unknown(entry: Entry) -> bool:
    """Whether its POST is unknown."""
    return entry.request_id is None and entry.state in UNKNOWN_STATES
