from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from kling_async import JournalError
from kling_async._journal.open_journal import open_journal
from kling_async._journal.sqlite.opening import check_file, connect
from kling_async._journal.sqlite.schema import MIGRATIONS
from kling_async._journal.sqlite.store import SqliteStore


def add_note(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE entries ADD COLUMN note TEXT")
    connection.execute("UPDATE entries SET note = upper(state)")


def stumble(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TABLE earlier_attempts")
    raise KeyboardInterrupt


def end_the_transaction(connection: sqlite3.Connection) -> None:
    connection.execute("ROLLBACK")
    raise sqlite3.OperationalError("disk I/O error")


@pytest.fixture
def old(tmp_path, pen_for):
    """A journal of the present version, which is an old one to those who know more."""
    with open_journal(tmp_path / "run.db") as journal:
        pen_for(journal).record_intent("rain")
    return tmp_path / "run.db"


def columns_of(path):
    with closing(connect(path)) as connection:
        return [row[1] for row in connection.execute("PRAGMA table_info(entries)")]


def test_an_older_journal_is_brought_up_to_date_when_it_is_opened(old):
    newest = (*MIGRATIONS, add_note)

    store = SqliteStore(old, migrations=newest)

    assert [entry.payload for entry in store.page(0)] == [{"prompt": "rain"}]
    store.close()
    assert columns_of(old)[-1] == "note"
    assert check_file(old, newest=len(newest)) == len(newest)


@pytest.mark.parametrize("step", [stumble, end_the_transaction])
def test_an_interrupted_migration_leaves_the_old_version(old, step):
    before = old.read_bytes()

    with pytest.raises(BaseException, match=r"disk I/O|^$"):
        SqliteStore(old, migrations=(*MIGRATIONS, add_note, step))

    assert check_file(old) == len(MIGRATIONS)
    assert "note" not in columns_of(old)
    assert old.read_bytes() == before
    SqliteStore(old).close()


@pytest.mark.parametrize("payload", ["{", "[]", "3", "[" * 100_000])
def test_an_older_journal_with_a_payload_that_another_program_has_changed_is_left_as_it_is(tmp_path, payload):
    path, former = tmp_path / "run.db", MIGRATIONS[:1]
    SqliteStore(path, migrations=former).close()
    with closing(connect(path)) as connection:
        connection.execute(
            "INSERT INTO entries (fingerprint, occurrence, model, payload, state, attempts) VALUES ('f', 0, 'm', ?, 'intended', 1)",
            [payload],
        )

    with pytest.raises(JournalError, match="Entry 1 of the journal cannot be read: its column 'payload'"):
        SqliteStore(path)
    assert check_file(path) == len(former)


def test_a_migrated_journal_is_too_new_for_older_versions(old):
    SqliteStore(old, migrations=(*MIGRATIONS, add_note)).close()

    with pytest.raises(JournalError, match="newer version"):
        SqliteStore(old)


def test_the_entries_of_an_older_journal_are_numbered_from_0_in_their_order(tmp_path):
    path = tmp_path / "run.db"
    former = MIGRATIONS[:3]
    SqliteStore(path, migrations=former).close()
    with closing(connect(path)) as connection:
        for prompt in ("rain", "snow"):
            connection.execute(
                "INSERT INTO entries (fingerprint, occurrence, model, payload, state, attempts)"
                " VALUES (?, 0, 'm', '{}', 'submitted', 1)",
                (prompt,),
            )
    store = SqliteStore(path)
    assert [(entry.number, entry.index) for entry in store.page(0)] == [(1, 0), (2, 1)]
    assert [entry.timeout for entry in store.page(0)] == [None, None]
    store.close()
    with closing(connect(path)) as connection:
        assert connection.execute("SELECT item_index FROM jobs").fetchall() == [(0,), (1,)]
