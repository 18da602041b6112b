"""The session of a process with the database: it lives as long as its advisory lock, and no clock ends it."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress

import psycopg

from kling_async._journal.location import DatabaseUrl
from kling_async._journal.postgres import statements as sql
from kling_async._journal.postgres.connection import LOST_AFTER, Connection, connect, execute
from kling_async._journal.postgres.database import Database
from kling_async._journal.postgres.held_entries import HeldEntries
from kling_async._journal.postgres.reading import fetch_value
from kling_async._journal.sharing import read_monotonic_clock
from kling_async.errors import JournalError

_PING_INTERVAL = LOST_AFTER / 8
"""Seconds between two proofs that the session lives, where nothing else is heard of the server."""
_NOTICE_DELAY = 0.2
"""Seconds for which notices of other processes are gathered."""
_Selector = getattr(selectors, "PollSelector", selectors.DefaultSelector)
"""`poll` takes no descriptor of its own, which may be missing, and any number of a descriptor; Windows has only `select`."""
_RECONNECT_DELAY = 0.5
"""Seconds between two tries to open a session again."""


class Session:
    """One connection that does nothing but hold a lock, hear notices, and prove that the server still knows it.

    A thread of its own looks after it. If the connection breaks, the thread opens another session, under another number,
    and moves to it what no other process has taken.

    Args:
        url: The database.
        database: Does the work of the store; none is done while the entries move.
        held: The entries that the session holds, and its number.
    """

    def __init__(self, url: DatabaseUrl, database: Database, held: HeldEntries) -> None:
        self._url = url
        self._database = database
        self._held = held
        self._notify: Callable[[], None] | None = None
        self._connection, holder, self.confirmed_at = self._open()
        held.begin_session(holder)
        self._closing = threading.Event()
        self._waker, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="kling_async journal session", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the session: from now on other processes can take its entries. A second call does nothing."""
        if not self._closing.is_set():
            self._closing.set()
            self._wake.send(b"x")
            self._thread.join()
            with suppress(psycopg.Error):  # a connection that is broken has no lock
                execute(self._connection, "SELECT pg_advisory_unlock_all()")
            self._connection.close()
            self._waker.close()
            self._wake.close()

    def subscribe(self, notify: Callable[[], None]) -> None:
        """Call a function after notices of other processes, and after a change of the session."""
        self._notify = notify

    def confirm(self, asked_at: float) -> None:
        """Note the monotonic time of a call whose answer showed that the session lives."""
        self.confirmed_at = max(self.confirmed_at, asked_at)

    def _open(self) -> tuple[Connection, int, float]:
        """A connection with a lock of its own, the number of that lock, and when the server granted it.

        Raises:
            psycopg.Error: The server cannot be reached.
            JournalError: A pooler is between this process and the server.
        """
        with ExitStack() as opened:
            connection = opened.enter_context(closing(connect(self._url)))
            asked_at = read_monotonic_clock()
            holder = fetch_value(execute(connection, sql.NEXT_HOLDER))
            execute(connection, sql.LOCK_SESSION, [holder])
            execute(connection, f'LISTEN "{fetch_value(execute(connection, sql.CHANNEL))}"')
            opened.pop_all()
        return connection, holder, asked_at

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                if self._wait():
                    self._prove()
            except (psycopg.Error, OSError):  # the latter where no descriptor is free
                self._connection.close()
                self._open_again()

    def _wait(self) -> bool:
        """Wait for a notice, a ping's time or the end; False for the end."""
        with _Selector() as selector:
            for source in (self._connection, self._waker):
                selector.register(source.fileno(), selectors.EVENT_READ)
            ready = selector.select(_PING_INTERVAL)
        if ready:
            self._closing.wait(_NOTICE_DELAY)
        return not self._closing.is_set()

    def _prove(self) -> None:
        asked_at = read_monotonic_clock()
        notices: list[psycopg.Notify] = []
        self._connection.add_notify_handler(notices.append)
        try:
            execute(self._connection, "SELECT 1")
        finally:
            self._connection.remove_notify_handler(notices.append)
        self.confirm(asked_at)
        if notices:
            self._signal()

    def _open_again(self) -> None:
        """Open another session, and move to it what other processes have not taken."""
        while not self._closing.wait(_RECONNECT_DELAY):
            try:
                connection, holder, asked_at = self._open()
                try:
                    self._move(connection, holder)
                except BaseException:
                    connection.close()
                    raise
            except (psycopg.Error, OSError, JournalError):
                continue  # what waits for the session gives up by itself
            self._connection, self.confirmed_at = connection, asked_at
            self._signal()
            return

    def _move(self, connection: Connection, holder: int) -> None:
        """Move what no other process has taken from the sessions that are gone to a new one."""
        held = self._held
        with self._database.lock:
            held.holders.add(holder)  # first: the answer of a move can be lost
            former = list(held.holders)
            with connection.transaction():
                moved = execute(connection, sql.MOVE_ENTRIES, [holder, former]).fetchall()
                execute(connection, sql.END_RESERVATIONS, [former])
                posts = execute(connection, sql.MOVE_ACTIVITIES, [holder, former]).fetchall()
            # Under the lock: a write under the former number would find none of its entries.
            held.move(holder, dict(moved), posts={number for (number,) in posts})

    def _signal(self) -> None:
        if self._notify is not None:
            self._notify()
