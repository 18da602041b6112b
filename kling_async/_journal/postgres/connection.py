"""Connections to the database of a journal, and its errors as one sentence each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, LiteralString, TypeAlias
from urllib.parse import unquote

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict

from kling_async._journal.location import DatabaseUrl
from kling_async._secrets import Secret, clear_locals
from kling_async.errors import JournalError
from kling_async.lines import one_line

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

LOST_AFTER = 30
"""Seconds after which the server ends the session of a process that it cannot reach, and this side its connection.

It is longer than `MAX_CONFIRMATION_AGE` and `MAX_POST_CONNECT_TIME` together: where the network is cut, the items go to other
processes only after the last POST has left. When the server restarts, they can go at once. In both cases the next process
searches for the job of such a POST until its answer would have come: see `LostSubmit.max_answer_age`.
"""
_PROBES = 4
"""Probes without an answer after which a connection ends."""
COMMON_SETTINGS: LiteralString = (
    # In another isolation a decision would not see what was committed while it waited for its turn.
    "SET default_transaction_isolation = 'read committed'; SET DateStyle = 'ISO'"
)
"""What our statements rely on, whatever the defaults of the server, of the database and of the user are."""
_SETTINGS = (
    COMMON_SETTINGS,
    "SET synchronous_commit = on",
    "SET default_transaction_read_only = off",
    "SET client_min_messages = warning",
    # A process that stands still within a transaction holds up the others no longer than this.
    "SET idle_in_transaction_session_timeout = '5s'",
    "SET lock_timeout = '20s'",
    "SET statement_timeout = '60s'",
)
SERVER_PROCESS: LiteralString = "SELECT pg_backend_pid()"
_TRANSIENT = (
    pg.AdminShutdown,
    pg.CannotConnectNow,
    pg.ConnectionException,
    pg.CrashShutdown,
    pg.DeadlockDetected,
    pg.IdleInTransactionSessionTimeout,
    pg.LockNotAvailable,
    pg.QueryCanceled,
    pg.ReadOnlySqlTransaction,
    pg.SerializationFailure,
    pg.TooManyConnections,
)
_ENCODING = "UTF8"
_PASSWORD_OPTION = re.compile(r"[?&](?:ssl)?password=([^&]*)")
_STEP_OF_LOGIN = "set PGPASSWORD, or put the password into ~/.pgpass"
_NEXT_STEPS: Mapping[str, str] = {
    "no password supplied": _STEP_OF_LOGIN,
    "password authentication failed": f"{_STEP_OF_LOGIN}, and check the name of the user",
    "permission denied for schema": "let this user make tables there, by GRANT USAGE, CREATE ON SCHEMA",
    "permission denied for (table|sequence)": (
        "let this user use what another one has made there, by GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA and "
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA"
    ),
    "must be owner of": "open the journal once as the user who made its tables, then give the others their rights again",
    r'role "[^"]*" does not exist': "make this user, by CREATE USER, or check its name in the URL",
    r'database "[^"]*" does not exist': "make the database, by CREATE DATABASE, or check its name in the URL",
    "due to lock timeout": "continue or end the process of kling_async that stands still, and run the same call again",
    "no schema has been selected": "make the schema that the URL names, by CREATE SCHEMA",
}
"""What to do, by a pattern of the reason: an error of a connection has no code."""
_LACKS_TABLE = (pg.UndefinedTable, pg.UndefinedColumn, pg.UndefinedFunction)


def connection_options(url: DatabaseUrl, *, lost_after: int) -> dict[str, Any]:
    """The options of a connection that this side ends if the server cannot be reached; what the URL says itself is kept.

    The encoding is ours: a text that another one does not have could not be written.

    Args:
        url: The database.
        lost_after: Seconds without an answer, see `keepalive_settings`.

    Raises:
        JournalError: The text is no URL of a database.
    """
    return {
        "application_name": "kling_async",
        "connect_timeout": 10,
        "keepalives": 1,
        "keepalives_idle": lost_after // 3,
        "keepalives_interval": lost_after // (3 * _PROBES // 2),
        "keepalives_count": _PROBES,
        "tcp_user_timeout": lost_after * 1000,
        **parse_options(url),
        "client_encoding": _ENCODING,
    }


def keepalive_settings(lost_after: int) -> str:
    """The statements after which the server ends a session whose process cannot be reached.

    Without them the session, and each lock that it holds, would stay for hours.

    Args:
        lost_after: Seconds without an answer after which the session ends.
    """
    idle, interval = lost_after // 3, lost_after // (3 * _PROBES // 2)
    return (
        f"SET tcp_keepalives_idle = {idle}; SET tcp_keepalives_interval = {interval}; "
        f"SET tcp_keepalives_count = {_PROBES}; SET tcp_user_timeout = {lost_after * 1000}"
    )


def connect(url: DatabaseUrl) -> Connection:
    """A connection without automatic transactions, whose server notices that this machine cannot be reached.

    Raises:
        psycopg.Error: It cannot be made.
        JournalError: The text is no URL of a database, or that of one that a journal cannot use.
    """
    try:
        connection: Connection = psycopg.connect(
            **connection_options(url, lost_after=LOST_AFTER), autocommit=True
        )
    except psycopg.Error as error:
        clear_locals(error)  # they hold the password
        raise
    with ExitStack() as opened:
        opened.enter_context(closing(connection))
        row = execute(connection, SERVER_PROCESS).fetchone()
        check_server(url, connection.info, answer=row)
        execute(connection, "; ".join([keepalive_settings(LOST_AFTER), *_SETTINGS]))
        opened.pop_all()
    return connection


def check_server(url: DatabaseUrl, info: psycopg.ConnectionInfo, *, answer: tuple[Any, ...] | None) -> None:
    """Do nothing if this is a PostgreSQL server whose database can hold any text. It comes before any other statement.

    Behind a pooler a lock and a setting belong to a server process that other clients use too, and the pooler answers
    for a client that is gone. The process that accepted the connection is then another one than the one that answers.

    Args:
        url: The database.
        info: The connection.
        answer: The row of `SERVER_PROCESS`.

    Raises:
        JournalError: A pooler is between this process and the server, or the database has another encoding.
    """
    if answer != (info.backend_pid,):
        raise JournalError(
            f"{url.name!r} is a pooler such as PgBouncer, through which no process can hold its items: give the address "
            "of the PostgreSQL server itself."
        )
    if (encoding := info.parameter_status("server_encoding")) != _ENCODING:
        raise JournalError(
            f"The database {url.name!r} has the encoding {encoding}, and a journal needs {_ENCODING}, which holds any text: "
            f"make another database with ENCODING '{_ENCODING}' TEMPLATE template0."
        )


def parse_options(url: DatabaseUrl) -> dict[str, Any]:
    """The options of a connection that a URL names.

    Raises:
        JournalError: The text is no URL of a database.
    """
    try:
        options = conninfo_to_dict(url.secret.reveal())
        for host in str(options.get("host", "")).split(","):
            _check_host(host)
    except (psycopg.Error, ValueError) as error:
        clear_locals(error)
    else:
        return options
    # Raised here, so that the error of the driver, which quotes the password, is not its context.
    raise JournalError(
        f"{url.name!r} is not the URL of a database: write postgresql://user:password@host:5432/database, with %40 for "
        "an @ in the password."
    )


def _check_host(host: str) -> None:
    """Raise a ValueError for a host that no server can have, before the driver shows it in an error of its own."""
    if host.startswith(("/", "@")):  # the folder of a socket
        return
    if "@" in host:
        raise ValueError("the end of a password")
    host.encode("idna")


def execute(
    connection: Connection, statement: str, values: Sequence[Any] | Mapping[str, Any] | None = None
) -> psycopg.Cursor[tuple[Any, ...]]:
    """The cursor of a statement of our own: as bytes, for the driver's types take no text that is put together."""
    return connection.execute(statement.encode(), values)


def is_transient(error: psycopg.Error) -> bool:
    """Whether the same statements can succeed over a new connection: the server restarts, or the network was cut."""
    return isinstance(error, _TRANSIENT) or (
        isinstance(error, psycopg.OperationalError) and error.sqlstate is None
    )


@contextmanager
def journal_errors(url: DatabaseUrl, action: str, advice: str) -> Iterator[None]:
    """Translate errors of the database to a `JournalError` of one sentence, which does not show the password."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(url, error, action, advice) from hide(error, url)


def translate(url: DatabaseUrl, error: psycopg.Error, action: str, advice: str) -> JournalError:
    """The sentence about an error of the database."""
    if isinstance(error, _LACKS_TABLE):
        return JournalError(
            f"The database {url.name!r} has tables named kling_async_* that are not those of a journal "
            f"({_reason(url, error)}): choose another database or schema."
        )
    reason = _reason(url, error)
    step = next((step for sign, step in _NEXT_STEPS.items() if re.search(sign, reason)), advice)
    return JournalError(f"The journal {url.name!r} could not be {action} ({reason}): {step}.")


def describe_lost_entries(url: DatabaseUrl) -> str:
    """The sentences about entries that were there before."""
    return (
        f"The journal {url.name!r} has lost entries that it had before: rows or tables were deleted, or an older copy of the "
        "database took over. Nothing more is sent. Restore the rows before you run the same call again: it would buy the "
        "lost items again."
    )


def hide(error: psycopg.Error, url: DatabaseUrl) -> psycopg.Error | None:
    """The error; None, and an empty error, if it shows a password: that of a connection also has the environment's.

    The error can stay the context of ours.
    """
    clear_locals(error)
    if error.pgconn is None and not any(secret.is_shown_by(error) for secret in _secrets(url)):
        return error
    error.args = ()
    vars(error).update(dict.fromkeys(vars(error)))
    return None


def _secrets(url: DatabaseUrl) -> Iterator[Secret]:
    """All that no error shows: the URL, and each password in it, as it is written and as it is meant."""
    text = url.secret.reveal()
    login = text.partition("://")[2].rpartition("@")[0]
    passwords = [login.partition(":")[2], *_PASSWORD_OPTION.findall(text)]
    for secret in (text, *passwords, *map(unquote, passwords)):
        if secret:
            yield Secret(secret)


def _reason(url: DatabaseUrl, error: psycopg.Error) -> str:
    """Why, in the server's words, without the address, which the sentence names, and without the password."""
    text = error.diag.message_primary or next(iter(str(error).splitlines()), "") or type(error).__name__
    reason = one_line(text.rpartition("failed: ")[2] or text).removeprefix("FATAL:").strip().rstrip(".")
    for secret in _secrets(url):
        reason = secret.hide_in(reason)
    return reason
