"""The database that callers and workers share, through one connection that is made again when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, LiteralString

import anyio
import attrs
import psycopg
from psycopg.conninfo import make_conninfo

from kling_async._callbacks import SafeLogger
from kling_async._distributed.outage_log import OutageLog
from kling_async._journal.entry import Entry
from kling_async._journal.location import DatabaseUrl, journal_location
from kling_async._journal.postgres.connection import (
    COMMON_SETTINGS,
    SERVER_PROCESS,
    check_server,
    connection_options,
    describe_lost_entries,
    is_transient,
    journal_errors,
    keepalive_settings,
)
from kling_async._journal.postgres.rows import build_entry
from kling_async._journal.postgres.statements import ENTRY
from kling_async._journal.store import is_unreadable_row
from kling_async.errors import ConfigurationError, JournalError
from kling_async.lines import quote_value

_LOST_AFTER = 18
"""Seconds after which each side ends a connection over a cut network. With two looks for dead workers, half a minute."""
_MAX_PAUSE = 30
"""Seconds for which a process that stands still within a transaction holds up the others."""
_MAX_LOCK_WAIT = 60
"""Seconds after which a process waits no longer for others: two of them, one after the other, can stand still."""
_PAGE_ROWS = 500
_READ_ENTRIES = f"SELECT {ENTRY} FROM kling_async_entries WHERE number = ANY(%s::bigint[])".encode()  # noqa: S608 - names of columns
_COUNT_LOST: LiteralString = (
    "SELECT count(*) FROM unnest(%s::bigint[]) AS wanted (number)"
    " WHERE NOT EXISTS (SELECT FROM kling_async_entries AS entry WHERE entry.number = wanted.number)"
)
_KEY: LiteralString = "hashtextextended('kling_async ' || current_schema() || ' ' || %s, 0)"
"""The key of a lock. It has the schema in it, for one database can hold several journals."""
_LIST_SHARERS: LiteralString = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted AND objsubid = 1"  # noqa: S608 - our own text
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND (classid::bigint << 32 | objid::bigint) = " + _KEY
)
"""Source: PostgreSQL's manual on `pg_locks`, which has the halves of the key of an advisory lock in two columns."""

_log = SafeLogger("kling_async")


def connection_text(url: DatabaseUrl) -> str:
    """The URL with our options, as psycopg and Procrastinate take it; what the URL says itself is kept."""
    return make_conninfo(**connection_options(url, lost_after=_LOST_AFTER))


async def set_up(connection: psycopg.AsyncConnection[Any]) -> None:
    """Have the server end the session of a connection, with its locks, when this process cannot be reached.

    A process that stands still, or a statement without an end, does not hold up the others either.
    """
    await connection.execute(keepalive_settings(_LOST_AFTER).encode())
    await connection.execute(COMMON_SETTINGS)
    await connection.execute(
        f"SET idle_in_transaction_session_timeout = {_MAX_PAUSE * 1000}; SET lock_timeout = {_MAX_LOCK_WAIT * 1000}; "
        f"SET statement_timeout = {_MAX_LOCK_WAIT * 2000}".encode()
    )
    await connection.commit()


@contextmanager
def translate_database_errors(url: DatabaseUrl) -> Iterator[None]:
    """A block whose errors of the database are raised as a `JournalError`.

    Raises:
        JournalError: The database cannot be reached, or refuses.
    """
    with journal_errors(
        url, "reached", "check the URL and that the server runs, and run the same call again"
    ):
        yield


def describe_trouble(error: JournalError) -> str:
    """The sentences about an error after which this process tries again."""
    text, bracket, _ = error.message.rpartition("): ")
    if bracket and is_outage(error):  # the advice is for a call that ends
        return f"{text}): this process tries again."
    return f"{error.message} This process tries again."


class LostEntriesError(JournalError):
    """The journal has lost entries that it had before; to try again does not help."""


def is_outage(error: JournalError) -> bool:
    """Whether the same statement can succeed later: the server restarts, or the network is cut."""
    if isinstance(error, LostEntriesError) or is_unreadable_row(error):
        return False
    cause = error.__cause__
    return not isinstance(cause, psycopg.Error) or is_transient(cause)


@attrs.define(eq=False)
class WorkersDatabase:
    """One connection, made when it is first needed and again after it broke; it holds its locks again then."""

    url: DatabaseUrl
    _connection: psycopg.AsyncConnection[Any] | None = attrs.field(init=False, default=None)
    _in_use: asyncio.Lock = attrs.field(init=False, factory=asyncio.Lock)
    _locks: dict[str, LiteralString] = attrs.field(init=False, factory=dict)
    """By name, the function that takes each lock of this process."""
    _missing: set[str] = attrs.field(init=False, factory=set)
    """The names of the locks that another session had when the connection was made again."""
    _outage_log: OutageLog = attrs.field(init=False, factory=OutageLog)

    @classmethod
    def at(cls, journal: object) -> WorkersDatabase:
        """The database of a journal.

        Raises:
            ConfigurationError: The journal is no PostgreSQL database.
        """
        url = journal_location(journal, name="journal")
        if not isinstance(url, DatabaseUrl):
            raise ConfigurationError(
                f"The journal {quote_value(journal)} is a file of this machine, and workers share a PostgreSQL database: give a "
                "URL such as 'postgresql://user@host/database'."
            )
        return cls(url)

    @property
    def name(self) -> str:
        """The URL without its password, for messages."""
        return self.url.name

    async def query(self, text: LiteralString | bytes, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement, which is committed.

        Raises:
            JournalError: The database cannot be reached, or refuses.
        """
        async with self._in_use:
            with translate_database_errors(self.url):
                connection = await self._connect()
                cursor = await connection.execute(text, values or None)
                rows = await cursor.fetchall() if cursor.description else []
        if self._outage_log.end():
            _log.warning("The journal %r can be reached again.", self.name)
        return rows

    def report_trouble(self, error: JournalError, *, now: float) -> None:
        """Log an error after which this process tries again, unless the log has just had one.

        Args:
            error: The error.
            now: The time, by any clock that does not go back.
        """
        if self._outage_log.is_due(is_outage=is_outage(error), now=now):
            _log.warning("%s", describe_trouble(error))

    async def read_entries(self, numbers: Collection[int]) -> dict[int, Entry]:
        """The entries of the journal with these numbers, by number.

        Raises:
            JournalError: The database cannot be reached, or refuses.
        """
        wanted, entries = sorted(numbers), {}
        for start in range(0, len(wanted), _PAGE_ROWS):
            for row in await self.query(_READ_ENTRIES, wanted[start : start + _PAGE_ROWS]):
                entry = build_entry(row)
                entries[entry.number] = entry
        return entries

    async def require_entries(self, numbers: Collection[int]) -> dict[int, Entry]:
        """The entries of the journal with these numbers, by number, each of which was there before.

        Raises:
            LostEntriesError: The database has lost one.
            JournalError: The database cannot be reached, or refuses.
        """
        entries = await self.read_entries(numbers)
        if len(entries) < len(set(numbers)):
            raise LostEntriesError(describe_lost_entries(self.url))
        return entries

    async def check_entries(self, numbers: Collection[int]) -> None:
        """Do nothing if the journal has the entries with these numbers, each of which was there before.

        Raises:
            LostEntriesError: The database has lost one.
            JournalError: The database cannot be reached, or refuses.
        """
        ((lost,),) = await self.query(_COUNT_LOST, list(numbers))
        if lost:
            raise LostEntriesError(describe_lost_entries(self.url))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A block whose statements are committed together, or not at all.

        Raises:
            JournalError: The database cannot be reached, or refuses.
        """
        async with self._in_use:
            with translate_database_errors(self.url):
                connection = await self._connect()
                async with connection.transaction():
                    yield connection

    async def lock(self, name: str) -> bool:
        """Whether this session has the lock from now on; False if another session has it.

        The lock goes with the session: when the process ends, or its network is cut, the lock is free.
        """
        return await self._take(name, "pg_try_advisory_lock")

    async def share_lock(self, name: str) -> bool:
        """Hold a lock that other sessions can share, and that `list_sharers` sees; False if another has it alone."""
        return await self._take(name, "pg_try_advisory_lock_shared")

    async def _take(self, name: str, function: LiteralString) -> bool:
        ((is_mine,),) = await self.query(_call(function), name)
        if is_mine:
            self._locks[name] = function
        return bool(is_mine)

    async def unlock(self, name: str) -> None:
        """Free a lock of this session; if the database cannot be reached, the session is gone and the lock with it."""
        async with self._in_use:  # no other task takes the lock again meanwhile
            self._locks.pop(name, None)
            self._missing.discard(name)
        with suppress(JournalError):
            await self.query(_call("pg_advisory_unlock"), name)

    async def keep_locks(self) -> None:
        """Make a broken connection again, and take its locks again; call it regularly.

        Another session can have a lock then: the former session of this process, until the server ends it, or another
        worker, which runs the shard already. So each call tries again. Meanwhile a shard can run twice, which buys nothing
        twice, for the journal decides that.

        Raises:
            JournalError: The database cannot be reached.
        """
        await self.query("SELECT 1")

    async def list_sharers(self, name: str) -> set[int]:
        """The sessions that share a lock, by the number of their process at the server.

        Raises:
            JournalError: The database cannot be reached, or refuses.
        """
        return {session for (session,) in await self.query(_LIST_SHARERS, name)}

    async def close(self) -> None:
        """Close the connection, and free its locks."""
        self._locks.clear()
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await connect(self.url)
            self._missing = set(self._locks)
        for name in sorted(self._missing):
            cursor = await self._connection.execute(_call(self._locks[name]), (name,))
            if await cursor.fetchone() == (True,):
                self._missing.remove(name)
        return self._connection


async def connect(url: DatabaseUrl) -> psycopg.AsyncConnection[Any]:
    """A connection without automatic transactions, which each side ends when it cannot reach the other.

    Raises:
        psycopg.Error: It cannot be made.
        JournalError: The database is one that a journal cannot use.
    """
    connection = await psycopg.AsyncConnection.connect(connection_text(url), autocommit=True)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(connection.close)
        row = await (await connection.execute(SERVER_PROCESS)).fetchone()
        check_server(url, connection.info, answer=row)
        await set_up(connection)
        opened.pop_all()
    return connection


def _call(function: LiteralString) -> LiteralString:
    """A call of a lock's function."""
    return "SELECT " + function + "(" + _KEY + ")"


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks that use a connection, and return when they have ended.

    A second cancellation, such as the one at the end of the event loop, would interrupt the cancellation of a statement.
    """
    for task in tasks:
        task.cancel()
    with anyio.CancelScope(shield=True):
        await asyncio.wait(tasks)
