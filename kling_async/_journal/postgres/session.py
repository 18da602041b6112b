"""The session of a process with the database: it lives as long as its advisory lock, and no clock ends it."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import Any

import psycopg

from kling_async._journal.location import DatabaseUrl
from kling_async._journal.postgres.connection import LOST_AFTER, Connection, connect, execute
from kling_async._journal.sharing import read_monotonic_clock
from kling_async.errors import JournalError

_PING_INTERVAL = LOST_AFTER / 8
"""Seconds between two proofs that the session lives, where nothing else is heard of the server."""
_NOTICE_DELAY = 0.2
"""Seconds for which notices of other processes are gathered."""
_RECONNECT_DELAY = 0.5
"""Seconds between two tries to open a session again."""

LIVE_HOLDERS = """
    SELECT objid::bigint AS holder FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND classid = 'kling_async_entries'::regclass::oid
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""The processes whose session lives, in any database server that supports advisory locks."""
_LOCK = "SELECT pg_advisory_lock(('kling_async_entries'::regclass::oid::bigint << 32) | %s)"
CHANNEL = "SELECT 'kling_async_' || 'kling_async_entries'::regclass::oid"
"""The channel of notices: another one for each journal of a database."""


class Session:
    """One connection that does nothing but hold a lock, hear notices, and prove that the server still knows it.

    A thread of its own looks after it. If the connection breaks, the thread opens another session, under another number.

    Args:
        url: The database.
        move: Called with the connection of another session and its number; sets `holder` to that.
        notify: Called after notices of other processes, and after a change of the session.
    """

    def __init__(
        self, url: DatabaseUrl, *, move: Callable[[Connection, int], None], notify: Callable[[], None]
    ) -> None:
        self._url = url
        self._move = move
        self._notify = notify
        self._connection, self.holder, self.confirmed_at = self._open()
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

    def confirm(self, asked_at: float) -> None:
        """Note that the session lived when a question was asked that the server has answered so."""
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
            holder = _fetch(connection, "SELECT nextval('kling_async_holders')")
            execute(connection, _LOCK, [holder])
            execute(connection, f'LISTEN "{_fetch(connection, CHANNEL)}"')
            opened.pop_all()
        return connection, holder, asked_at

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                if self._wait():
                    self._prove()
            except psycopg.Error:
                self._connection.close()
                self._open_again()

    def _wait(self) -> bool:
        """Wait for a notice, a ping's time or the end; False for the end."""
        with selectors.DefaultSelector() as selector:  # select.select takes no descriptor above 1023
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
            self._notify()

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
            except (psycopg.Error, JournalError):
                continue  # what waits for the session gives up by itself
            self._connection, self.confirmed_at = connection, asked_at
            self._notify()
            return


def _fetch(connection: Connection, statement: str) -> Any:
    row = execute(connection, statement).fetchone()
    assert row is not None
    return row[0]
