"""The tables of a journal, and the migrations from older versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from sqlite3 import Connection, Error
from typing import Any, TypeAlias

from kling_async._journal.entry import Identity, fingerprint, former_fingerprint
from kling_async._journal.store import refuse_row

Migration: TypeAlias = Callable[[Connection], None]
"""Brings a journal from one version to the next, inside a transaction of the caller."""

APPLICATION_ID = 0x4B4C4E47
"""Marks a SQLite file as a journal of this package: the letters KLNG."""

_JOBS_VIEW = """
CREATE VIEW jobs AS
WITH readable AS (
    -- SQLite reads JSON up to a depth of 1,000, and a service may answer anything.
    SELECT *, iif(json_valid(payload), payload, '{}') AS sent, iif(json_valid(record), record, '{}') AS said
    FROM entries
)
SELECT
    number,
    json_extract(sent, '$.prompt') AS prompt,
    state,
    request_id,
    coalesce(
        json_extract(said, '$.outcome.media_urls[0].url'),
        iif(json_type(said, '$.outcome.media_urls[0]') = 'text',
            json_extract(said, '$.outcome.media_urls[0]'), NULL),
        json_extract(said, '$.outcome.video_url')
    ) AS video_url,
    path,
    error,
    cost_usd,
    attempts,
    datetime(sent_at, 'unixepoch') AS sent_utc,
    datetime(json_extract(said, '$.created_at'), 'unixepoch') AS created_utc,
    datetime(json_extract(said, '$.updated_at'), 'unixepoch') AS updated_utc,
    key,
    model
FROM readable
ORDER BY number
"""

_VERSION_1 = (
    """
    CREATE TABLE entries (
        number           INTEGER PRIMARY KEY, -- in the order of the first intent
        key              TEXT,                -- the caller's own name for the item
        fingerprint      TEXT NOT NULL,       -- of model and payload
        occurrence       INTEGER NOT NULL,    -- among items alike in key and fingerprint
        model            TEXT NOT NULL,
        payload          TEXT NOT NULL,       -- JSON, as it was sent
        state            TEXT NOT NULL,       -- intended, submitted, or how it ended
        sent_at          REAL,                -- Unix seconds, before the last POST
        request_id       TEXT,                -- the service's id of the last job
        record           TEXT,                -- JSON, as the service last answered it, without the payload
        error            TEXT,
        path             TEXT,                -- the saved video
        size_bytes       INTEGER,
        sha256           TEXT,
        cost_usd         TEXT,                -- decimal; all attempts together
        attempt_cost_usd TEXT,                -- decimal; the last attempt
        attempts         INTEGER NOT NULL     -- POSTs that were, or may have been, accepted
    )
    """,
    "CREATE INDEX entries_by_identity ON entries (fingerprint, occurrence)",
    "CREATE INDEX entries_by_request_id ON entries (request_id) WHERE request_id IS NOT NULL",
    """
    CREATE TABLE earlier_attempts (           -- what an entry was before it was intended again
        number     INTEGER NOT NULL REFERENCES entries (number),
        attempt    INTEGER NOT NULL,
        state      TEXT NOT NULL,
        sent_at    REAL,
        request_id TEXT,
        record     TEXT,
        error      TEXT,
        cost_usd   TEXT,
        PRIMARY KEY (number, attempt)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX earlier_by_request_id ON earlier_attempts (request_id) WHERE request_id IS NOT NULL",
    _JOBS_VIEW,
)


def _create_tables(connection: Connection) -> None:
    for statement in _VERSION_1:
        connection.execute(statement)


def encode_text(text: str | None) -> str | bytes | None:
    """The text, or its bytes if it holds a lone surrogate, as a path may: SQLite refuses those in text."""
    if text is None or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")
    return text


def decode_text(stored: str | bytes | None) -> str | None:
    """The text that was encoded."""
    return stored.decode(errors="surrogatepass") if isinstance(stored, bytes) else stored


def _keep_more_of_each_attempt(connection: Connection) -> None:
    """Add the payload of an earlier attempt, and the clock by which an attempt was sent.

    The payload of an earlier attempt can be spelt in another way, or name another upload of a picture. Until now no
    attempt was recorded by the service's clock.
    """
    connection.execute("ALTER TABLE earlier_attempts ADD COLUMN payload TEXT")  # NULL: that of the entry
    for table in ("entries", "earlier_attempts"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN has_service_time INTEGER NOT NULL DEFAULT 0")


def _read_payload(number: int, stored: str | None) -> dict[str, Any]:
    try:
        payload = json.loads(stored or "")
    except (RecursionError, TypeError, ValueError):
        refuse_row(number, "payload")
    if type(payload) is not dict:
        refuse_row(number, "payload")
    return payload


def _identify_by_visible_text(connection: Connection) -> None:
    """Change each identity to the one of the visible text; equal ones are numbered in the order of the entries.

    A fingerprint that is not the payload's own has the digest of a local picture in it, and stays: see
    `Identity.former_fingerprint`.
    """
    changed = {}
    for number, *stored in connection.execute("SELECT number, key, fingerprint, model, payload FROM entries"):
        key, before, model, payload = map(decode_text, stored)
        sent = _read_payload(number, payload)
        is_own = former_fingerprint(model or "", sent) == before
        identity = Identity(key, fingerprint(model or "", sent) if is_own else before or "", 0)
        if (identity.key, identity.fingerprint) != (key, before):
            changed[number] = identity
    for number, identity in changed.items():
        values = encode_text(identity.key), identity.fingerprint, number
        connection.execute("UPDATE entries SET key = ?, fingerprint = ? WHERE number = ?", values)
    for identity in set(changed.values()):
        where = "WHERE fingerprint = ? AND key IS ? ORDER BY number"
        equal = connection.execute(
            f"SELECT number FROM entries {where}",  # noqa: S608 - our own names
            (identity.fingerprint, encode_text(identity.key)),
        )
        for occurrence, (number,) in enumerate(equal.fetchall()):
            connection.execute("UPDATE entries SET occurrence = ? WHERE number = ?", (occurrence, number))


def _add_index(connection: Connection) -> None:
    """Add the index of each item in its batch; until now an entry had only its place in the journal, counted from 1."""
    connection.execute('ALTER TABLE entries ADD COLUMN "index" INTEGER NOT NULL DEFAULT 0')
    connection.execute('UPDATE entries SET "index" = number - 1')
    connection.execute("DROP VIEW jobs")
    connection.execute(_JOBS_VIEW.replace("    number,", '    "index" AS item_index,', 1))


def _add_timeout(connection: Connection) -> None:
    """Add the timeout of each POST; that of the POSTs until now is unknown."""
    for table in ("entries", "earlier_attempts"):
        connection.execute(f"ALTER TABLE {table} ADD COLUMN timeout REAL")


MIGRATIONS: Sequence[Migration] = (
    _create_tables,
    _keep_more_of_each_attempt,
    _identify_by_visible_text,
    _add_index,
    _add_timeout,
)
"""Item n brings version n to n + 1; a new journal takes all of them."""


def migrate(connection: Connection, *, version: int, migrations: Sequence[Migration]) -> None:
    """Bring a journal of this version to the newest, completely or not at all."""
    if version == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in migrations[version:]:
            step(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: Connection) -> None:
    """Roll the transaction back, unless SQLite has already done so, as it does on some errors."""
    with suppress(Error):
        connection.execute("ROLLBACK")
