"""The store over PostgreSQL: one connection for the work, and the session that says that this process lives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import timedelta
from decimal import Decimal
from typing import Any, Never

import attrs
import psycopg

from kling_async._journal.entry import Entry, Identity
from kling_async._journal.location import DatabaseUrl
from kling_async._journal.postgres import claims
from kling_async._journal.postgres import statements as sql
from kling_async._journal.postgres.connection import (
    Connection,
    connect,
    describe_lost_entries,
    execute,
    journal_errors,
)
from kling_async._journal.postgres.database import Database, NoSessionError
from kling_async._journal.postgres.held_entries import HeldEntries
from kling_async._journal.postgres.reading import (
    OPEN_ADVICE,
    PAGE_ROWS,
    fetch_value,
    make_missing_entries,
    read_page,
)
from kling_async._journal.postgres.rows import (
    COLUMNS,
    build_earlier_row,
    build_entry,
    build_row,
    columns_of,
    encode_text,
    identity_digest,
)
from kling_async._journal.postgres.schema import make_if_missing, read_id
from kling_async._journal.postgres.session import Session
from kling_async._journal.shared_store import Claim, PlannedPost, PostDecision, PostPermit, WantedItem
from kling_async._journal.sharing import read_monotonic_clock
from kling_async._journal.store import EARLIER_COLUMNS, PendingWrites, warn_lost_jobs
from kling_async._journal.stored_entry import is_amount
from kling_async.errors import JournalError

_MAX_OUTAGE = 60.0
"""Seconds for which the store waits for a server that restarts, or a network that is cut."""


class PostgresStore:
    """The entries in the tables of one database, written by several processes; see `SharedStore`.

    Args:
        url: The database; the tables are made if they are missing.
        max_outage: Seconds to wait for a server that cannot be reached; tests wait less.

    Raises:
        JournalError: The database cannot be used.
    """

    def __init__(self, url: DatabaseUrl, *, max_outage: float = _MAX_OUTAGE) -> None:
        self.name = url.name
        self._url = url
        self._held = HeldEntries()
        with journal_errors(url, "opened", OPEN_ADVICE), ExitStack() as opened:
            work = opened.enter_context(closing(connect(url)))
            self._database = Database(url, work, max_outage)
            make_if_missing(work, url)
            self.location = read_id(work)
            self._opened_no = fetch_value(execute(work, sql.NEXT_WRITE))
            self._session = Session(url, self._database, self._held)
            opened.pop_all()

    def close(self) -> None:
        """End the session, so that other processes can take what this one holds. A second call does nothing."""
        self._session.close()
        self._database.close()

    # The methods of every store

    def find(self, identity: Identity) -> Entry | None:
        """The held entry of this identity."""
        held = self._held.find(identity)
        return None if held is None else held.entry

    def entry(self, number: int) -> Entry | None:
        """The held entry of this number."""
        held = self._held.get(number)
        return None if held is None else held.entry

    def page(self, after: int, *, unpriced: bool = False) -> Sequence[Entry]:
        """The next entries by number, of all processes; see `Store`."""
        return self._database.call(lambda work: read_page(work, after, unpriced=unpriced))

    def has_job(self, request_id: str) -> bool:
        """Whether a held entry has, or had, this job."""
        return self._held.has_job(request_id)

    def spent_usd(self) -> Decimal:
        """US dollars for the entries of all processes."""
        total = self._database.call(lambda work: fetch_value(execute(work, sql.TOTAL)))
        if not is_amount(total):
            raise JournalError(
                f"The journal {self.name!r} could not be read ({str(total)!r} is no amount of money): put back the spent_usd that "
                "was there in its table kling_async_journal, then run the same call again."
            )
        return Decimal(total)

    def commit(self, changes: PendingWrites) -> None:
        """Write the changes of held entries as one; then release, and tell the others."""

        def write(work: Connection) -> None:
            try:
                self._write(work, changes)
            except psycopg.errors.UndefinedTable:
                self._fail_for_lost_entries()

        self._database.call(write)

    def _write(self, work: Connection, changes: PendingWrites) -> None:
        held, holder = self._held, self._held.holder
        after = held.apply(changes)
        earlier = [
            [entry.number, held[entry.number].epoch, *build_earlier_row(entry)] for entry in changes.earlier
        ]
        released = [(number, held[number].epoch) for number in changes.released if number in held]
        done = None
        with work.pipeline(), work.transaction():
            if earlier:
                execute(
                    work, sql.WRITE_EARLIER, [*columns_of(earlier, width=2 + len(EARLIER_COLUMNS)), holder]
                )
            if after:
                done = execute(work, sql.WRITE, [*self._columns_of_entries(after, changes), holder, holder])
            if changes.ended:
                execute(work, sql.END_ACTIVITIES, [*columns_of(sorted(changes.ended), width=2), holder])
            if released:
                execute(work, sql.RELEASE, [*columns_of(released, width=2), holder])
            if released or changes.ended:
                execute(work, sql.NOTIFY)
        gone = []
        for number, is_written, is_job_taken, is_gone in done.fetchall() if done is not None else ():
            # A lost entry, too, is kept as this process wrote it: what this process records next builds on that.
            held.keep(after[number], held[number].epoch, is_lost=not is_written, is_job_taken=is_job_taken)
            if is_written and "identity" in changes.fields[number]:
                held.mark_intended(number)
            if is_gone:
                gone.append(number)
        if gone:
            self._fail_for_lost_entries()
        held.forget(changes.released)

    def _columns_of_entries(self, entries: Mapping[int, Entry], changes: PendingWrites) -> list[list[Any]]:
        """The columns of `WRITE`."""
        rows = [
            [number, self._held[number].epoch, "identity" in changes.fields[number], *build_row(entry)]
            for number, entry in entries.items()
        ]
        return columns_of(rows, width=3 + len(COLUMNS))

    # Items

    def claim(self, items: Sequence[WantedItem]) -> Sequence[Claim]:
        """Hold each item that no other live process holds."""
        return self._database.call(lambda work: self._claim(work, items))

    def _claim(self, work: Connection, items: Sequence[WantedItem]) -> list[Claim]:
        if claims.are_lost(work, self._held, items):
            self._fail_for_lost_entries()
        return claims.claim(work, self._held, items, opened_no=self._opened_no)

    def _fail_for_lost_entries(self) -> Never:
        """Log the jobs of all held entries, and use the database no more."""
        warn_lost_jobs(self.name, self._held.jobs)
        self._database.fail(describe_lost_entries(self._url))

    def register(self, items: Sequence[WantedItem]) -> Sequence[Entry]:
        """The entries of the items, made if they are missing, without a holder."""
        found: dict[Identity, Entry] = {}
        for start in range(0, len(items), PAGE_ROWS):
            some = items[start : start + PAGE_ROWS]
            found |= self._database.call(lambda work, some=some: make_missing_entries(work, some))  # type: ignore[misc]
        return [found[item.identity] for item in items]

    def find_claimable(self, identities: Collection[Identity]) -> set[Identity]:
        """The identities of the items that no live process holds; each of them has an entry."""
        texts = {identity_digest(identity): identity for identity in identities}
        rows = self._database.call(
            lambda work: execute(work, sql.FIND_CLAIMABLE, [self._held.holder, list(texts)]).fetchall()
        )
        if len(rows) < len(texts):
            self._fail_for_lost_entries()
        return {texts[text] for text, is_claimable in rows if is_claimable}

    def is_lost(self, number: int) -> bool:
        """Whether another process has taken over an entry."""
        return self._held.is_lost(number)

    def is_job_taken(self, number: int) -> bool:
        """Whether the job that this process wrote for an entry belongs to another entry."""
        held = self._held.get(number)
        return held is not None and held.is_job_taken

    # POSTs

    def confirmed_at(self) -> float:
        """When the session was last known to live."""
        return self._session.confirmed_at

    def confirm(self) -> None:
        """Return when the session is known to live."""
        self._database.call(self._check_session)

    def _check_session(self, work: Connection) -> None:
        asked_at = read_monotonic_clock()
        if not fetch_value(execute(work, sql.IS_LIVE, [self._held.holder])):
            raise NoSessionError
        self._session.confirm(asked_at)

    def reserve_posts(self, posts: Sequence[PlannedPost]) -> Sequence[PostPermit]:
        """Register the POSTs that may be sent, and reserve their money."""
        return self._database.call(lambda work: self._reserve_posts(work, posts))

    def _reserve_posts(self, work: Connection, posts: Sequence[PlannedPost]) -> list[PostPermit]:
        parameters = {
            "numbers": [post.number for post in posts],
            "epochs": [self._held.epoch_of(post.number) for post in posts],
            "models": [encode_text(post.model) for post in posts],
            "look_alikes": [post.look_alikes for post in posts],
            "prices": [post.price_usd or Decimal(0) for post in posts],
            "caps": [post.cap_usd for post in posts],
            "holder": self._held.holder,
        }
        asked_at = read_monotonic_clock()
        with work.pipeline(), work.transaction():
            execute(work, sql.LOCK_INTENTS)
            answers = execute(work, sql.RESERVE_POSTS, parameters)
        permits = []
        for post, (is_live, is_held, is_unblocked, is_allowed, total_usd) in zip(
            posts, answers.fetchall(), strict=True
        ):
            if not is_live:
                raise NoSessionError
            if is_unblocked and not is_allowed and (post.cap_usd is None or total_usd <= post.cap_usd):
                self._fail_for_lost_entries()  # the row with the total is gone
            if is_allowed:
                self._held.mark_allowed(post.number, is_reserved=bool(post.price_usd))
            elif not is_held:
                self._held.mark_lost(post.number)
            permits.append(
                PostPermit(
                    _decide(is_held=is_held, is_unblocked=is_unblocked, is_allowed=is_allowed), total_usd
                )
            )
        self._session.confirm(asked_at)
        return permits

    def take_turns(self, count: int, *, rate: float, burst: float) -> Sequence[float]:
        """Take turns of the rate that all processes share."""
        parameters = {"count": count, "burst": burst - 1, "interval": timedelta(seconds=1 / rate)}
        row = self._database.call(lambda work: execute(work, sql.TAKE_TURNS, parameters).fetchone())
        if row is None:
            self._fail_for_lost_entries()
        first = float(row[0])
        return [max(0.0, first + place / rate) for place in range(count)]

    # Reconciliations

    def begin_reconciliation(self, number: int, *, model: str, look_alikes: str | None) -> bool:
        """Block look-alikes of all other processes; False if another process has taken over the entry."""

        def begin(work: Connection) -> bool:
            parameters = {
                "number": number,
                "holder": self._held.holder,
                "epoch": self._held.epoch_of(number),
                "model": encode_text(model),
                "look_alikes": look_alikes,
            }
            with work.pipeline(), work.transaction():
                execute(work, sql.LOCK_INTENTS)
                begun = execute(work, sql.BEGIN_RECONCILIATION, parameters)
            is_begun = begun.fetchone() is not None
            if not is_begun:
                self._held.mark_lost(number)
            return is_begun

        return self._database.call(begin)

    def find_searchable(self, numbers: Collection[int]) -> set[int]:
        """The begun reconciliations for which no look-alike of another process is in flight."""

        def find(work: Connection) -> set[int]:
            parameters = {"numbers": list(numbers), "holder": self._held.holder}
            return {number for (number,) in execute(work, sql.FIND_SEARCHABLE, parameters).fetchall()}

        return self._database.call(find)

    def match_job(self, number: int, request_id: str) -> bool:
        """Give a job to the lost submit of an entry."""
        return self._database.call(lambda work: self._match_job(work, number, request_id))

    def _match_job(self, work: Connection, number: int, request_id: str) -> bool:
        held = self._held.get(number)
        if held is None:
            return False
        parameters = {
            "number": number,
            "holder": self._held.holder,
            "epoch": held.epoch,
            "request_id": encode_text(request_id),
        }
        if execute(work, sql.MATCH_JOB, parameters).fetchone() is None:
            return False
        # The journal records the new state next. Until then, no other write of the entry takes the job away again.
        self._held.keep(attrs.evolve(held.entry, request_id=request_id), held.epoch)
        return True

    def find_jobs(self, request_ids: Collection[str]) -> set[str]:
        """Those of the ids whose job an entry of any process has, or had."""
        texts = {encode_text(request_id): request_id for request_id in request_ids}
        rows = self._database.call(lambda work: execute(work, sql.FIND_JOBS, [list(texts)]).fetchall())
        return {texts[text] for (text,) in rows}

    def find_all_unknown(self, model: str) -> Sequence[Entry]:
        """The unknown attempts of a model, of all processes."""

        def find(work: Connection) -> list[Entry]:
            rows = execute(work, sql.UNKNOWN_ENTRIES_OF_MODEL, [encode_text(model)]).fetchall()
            rows += execute(work, sql.UNKNOWN_ATTEMPTS_OF_MODEL, [encode_text(model)]).fetchall()
            return sorted(map(build_entry, rows), key=lambda entry: (entry.number, entry.attempts))

        return self._database.call(find)

    # The session

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call a function after notices of other processes."""
        self._session.subscribe(notify)


def _decide(*, is_held: bool, is_unblocked: bool, is_allowed: bool) -> PostDecision:
    if not is_held:
        return PostDecision.TAKEN_OVER
    if not is_unblocked:
        return PostDecision.BLOCKED
    return PostDecision.ALLOWED if is_allowed else PostDecision.OVER_CAP
