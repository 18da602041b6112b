"""Each block with a database finds it as if the database were new, though an earlier block has used it."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from postgres_server import make_journal, run

from kling_async import JournalError
from kling_async._journal.open_journal import read_journal

ADD_ENTRY = (
    "INSERT INTO kling_async_entries (identity, fingerprint, occurrence, model, payload, state)"
    " VALUES ('i', 'f', 0, 'm', '{}', 'failed')"
)
READ_JOURNAL = "SELECT version, id, spent_usd FROM kling_async_journal"


def test_an_empty_database_is_empty_again(postgres_server):
    with postgres_server.make_database() as url:
        make_journal(url)
        run(url, "CREATE SCHEMA other")
        number = run(url, "SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()

    with postgres_server.make_database() as again:
        assert again != url
        assert (
            run(again, "SELECT oid FROM pg_database WHERE datname = current_database()").fetchone() == number
        )
        with pytest.raises(JournalError, match="There is no journal in"):
            read_journal(again)
        assert run(again, "SELECT FROM pg_namespace WHERE nspname = 'other'").fetchall() == []


def test_a_journal_that_was_used_has_no_entry_again_and_is_another_journal(postgres_server):
    with postgres_server.make_database(make_journal) as url:
        table = run(url, "SELECT 'kling_async_entries'::regclass::oid").fetchone()
        before = run(url, READ_JOURNAL).fetchone()
        run(url, ADD_ENTRY)
        run(url, "UPDATE kling_async_journal SET spent_usd = 3")

    with postgres_server.make_database(make_journal) as again:
        assert run(again, "SELECT 'kling_async_entries'::regclass::oid").fetchone() == table
        after = run(again, READ_JOURNAL).fetchone()
        assert (after[0], after[2]) == (before[0], before[2])
        assert after[1] != before[1]
        assert list(read_journal(again)) == []
        run(again, ADD_ENTRY)
        assert [entry.number for entry in read_journal(again)] == [1]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE kling_async_jobs RENAME TO away",
        "ALTER TABLE kling_async_entries RENAME COLUMN error TO hidden",
        "ALTER TABLE kling_async_entries ALTER error SET DEFAULT 'x'",
        "ALTER TABLE kling_async_entries ALTER fingerprint DROP NOT NULL",
        "ALTER TABLE kling_async_entries ADD CHECK (occurrence < 3)",
        "ALTER TABLE kling_async_entries DROP CONSTRAINT kling_async_entries_identity_key",
        "CREATE INDEX other ON kling_async_entries (error)",
        "DROP INDEX kling_async_entries_held",
        "DROP TABLE kling_async_activities",
        "CREATE TABLE other (x integer)",
        "CREATE FUNCTION other() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA other",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "GRANT SELECT ON kling_async_entries TO PUBLIC",
    ],
)
def test_a_journal_whose_tables_were_changed_is_made_again(postgres_server, change):
    with postgres_server.make_database(make_journal) as url:
        table = run(url, "SELECT 'kling_async_entries'::regclass::oid").fetchone()
        run(url, change)

    with postgres_server.make_database(make_journal) as again:
        assert run(again, "SELECT 'kling_async_entries'::regclass::oid").fetchone() != table
        assert list(read_journal(again)) == []


def test_a_session_that_an_earlier_block_left_is_ended(postgres_server):
    with postgres_server.make_database() as url:
        left = psycopg.connect(url)

    with postgres_server.make_database(), closing(left), pytest.raises(psycopg.OperationalError):
        left.execute("SELECT 1")


def test_a_statement_after_a_connection_broke_is_run_over_another(postgres_server, database):
    session = run(database, "SELECT pg_backend_pid()").fetchone()
    assert run(database, "SELECT pg_backend_pid()").fetchone() == session
    postgres_server.execute(f"SELECT pg_terminate_backend({session[0]}, 10000)")

    assert run(database, "SELECT pg_backend_pid()").fetchone() != session
