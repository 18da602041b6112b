"""The connection for the work of a store, which is opened again while the server restarts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Never, TypeVar

import attrs
import psycopg

from kling_async._journal.location import DatabaseUrl
from kling_async._journal.postgres.connection import Connection, connect, hide, is_transient, translate
from kling_async.errors import JournalError

T = TypeVar("T")

_RETRY_DELAY = 0.25
_ADVICE = "when the server is back, run the same call again; what the journal holds is safe"


class NoSessionError(Exception):
    """The server does not know the session of this process: another one is being opened."""


_hides_log: ContextVar[bool] = ContextVar("hides the log of the driver", default=False)


def _is_shown(_: logging.LogRecord) -> bool:
    return not _hides_log.get()


logging.getLogger("psycopg").addFilter(_is_shown)


@contextmanager
def _hide_driver_log() -> Iterator[None]:
    """A block in which the driver logs nothing in this thread: what matters is raised, and told once."""
    token = _hides_log.set(True)
    try:
        yield
    finally:
        _hides_log.reset(token)


@attrs.define(eq=False)
class Database:
    """Does work over one connection, by one thread at a time."""

    _url: DatabaseUrl
    _connection: Connection | None
    _max_outage: float
    """Seconds to wait for a server that cannot be reached."""
    lock: threading.RLock = attrs.field(init=False, factory=threading.RLock)
    """Held while the connection is used, and while the entries move to another session."""
    _outage_began: float | None = attrs.field(init=False, default=None)
    _failed_at: float = attrs.field(init=False, default=0.0)
    """When a call has failed last."""
    _is_closed: bool = attrs.field(init=False, default=False)
    _failure: str | None = attrs.field(init=False, default=None)
    """Why nothing is read or written any more."""

    def call(self, work: Callable[[Connection], T]) -> T:
        """The result of work over the connection, done again over another one while the server restarts.

        Raises:
            JournalError: The server refuses the work, or cannot be reached for too long.
        """
        failing_since: float | None = None
        while True:
            if self._is_closed:
                raise JournalError(f"The journal {self._url.name!r} is closed.")
            if self._failure is not None:
                raise JournalError(self._failure)
            failure = cause = None
            try:
                with self.lock, _hide_driver_log():
                    result = work(self._connect_again())
            except psycopg.Error as error:
                self._disconnect()
                failing_since = failing_since or time.monotonic()
                if not is_transient(error) or self._is_out_for_long(failing_since):
                    failure, cause = translate(self._url, error, "reached", _ADVICE), hide(error, self._url)
            except NoSessionError:
                failing_since = failing_since or time.monotonic()
                if self._is_out_for_long(failing_since):
                    failure = JournalError(
                        f"The journal {self._url.name!r} could not be reached (its session cannot be opened again): "
                        f"{_ADVICE}."
                    )
            else:
                self._outage_began = None
                return result
            if (
                failure is not None
            ):  # raised here, so that an error that shows the password is not its context
                raise failure from cause
            time.sleep(_RETRY_DELAY)

    def fail(self, message: str) -> Never:
        """Read and write nothing any more.

        Raises:
            JournalError: With this message; each further call raises it, too.
        """
        self._failure = message
        raise JournalError(message)

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._is_closed = True
        self._disconnect()

    def _connect_again(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._url)
        return self._connection

    def _disconnect(self) -> None:
        """Close the connection: after an error it is not known what the server has of it."""
        with self.lock:
            if self._connection is not None:
                with suppress(psycopg.Error):
                    self._connection.close()
            self._connection = None

    def _is_out_for_long(self, failing_since: float) -> bool:
        """Whether a call gives up: no call has succeeded for too long, or this one fails while others succeed."""
        now = time.monotonic()
        # The outage that an earlier call met can have ended since, and no call has asked.
        if self._outage_began is None or now - self._failed_at > self._max_outage:
            self._outage_began = failing_since
        self._failed_at = now
        return now - min(failing_since, self._outage_began) > self._max_outage
