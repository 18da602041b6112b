from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_async import JobStatus, JournalError
from kling_async._journal.entry import EntryState, Identity
from kling_async._journal.open_journal import open_journal, read_journal
from kling_async._journal.sqlite.opening import check_file
from kling_async._journal.sqlite.reading import read_entries
from kling_async._journal.sqlite.schema import MIGRATIONS
from kling_async._journal.sqlite.store import SqliteStore
from kling_async._policy.visible_text import visible_text

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
ODD_TEXTS = ["a\0b", "\ud800", "x\udfffy", "\u202eabc", "e\u0301🦅", "雨" * 2500, "</script>", "'; --", ""]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


def read_again(path):
    with open_journal(path) as journal:
        return list(journal.entries())


# What goes in comes out


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
def test_any_text_survives(path, text):
    identity = Identity(text, "f", 0)
    with open_journal(path) as journal:
        number = journal.record_intent(identity, model=text, payload={"prompt": text}, at=1.5, cost_usd=None)
        journal.record_job(number, request_id=text, record={"status": text})
        journal.record_end(number, state=EntryState.SUCCEEDED, record=None, error=None)
        journal.record_file(number, path=text, size_bytes=1 << 40, sha256=None)
        journal.record_end(number, state=EntryState.FAILED, record=None, error=text)

    with open_journal(path) as journal:
        entry = journal.find(identity)
        assert journal.has_job(text)
    assert entry.identity == identity
    assert (entry.model, entry.payload, entry.request_id) == (text, {"prompt": text}, text)
    assert (entry.path, entry.error, entry.record) == (text, text, {"status": text})
    assert (entry.sent_at, entry.size_bytes) == (1.5, 1 << 40)


@settings(max_examples=50)
@given(ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3))
def test_any_generated_text_survives(tmp_path_factory, text, payload):
    path = tmp_path_factory.mktemp("journal") / "run.db"
    with open_journal(path) as journal:
        number = journal.record_intent(
            Identity(text, "f", 0), model="m", payload=payload, at=1.0, cost_usd=None
        )
        journal.record_job(number, request_id="r-1", record={})
        journal.record_end(number, state=EntryState.FAILED, record=payload, error=text)

    (entry,) = read_again(path)
    assert (entry.identity.key, entry.payload, entry.error) == (visible_text(text), payload, text)


@pytest.mark.parametrize("cost", [None, Decimal("0.350"), Decimal("1E-9"), Decimal(0)])
def test_money_keeps_every_digit(path, cost):
    with open_journal(path) as journal:
        journal.record_intent(Identity(None, "f", 0), model="m", payload={}, at=1.0, cost_usd=cost)

    (entry,) = read_again(path)
    assert str(entry.cost_usd) == str(cost)


def test_a_record_too_deep_for_json_keeps_its_id(path, pen_for):
    deep: dict = {}
    for _ in range(200_000):  # deeper than any of its interpreters goes
        deep = {"x": deep}
    with open_journal(path) as journal:
        number = pen_for(journal).record_intent("rain")
        journal.record_job(number, request_id="r-1", record={"status": "queued", "outcome": deep})

    (entry,) = read_again(path)
    assert (entry.record, entry.job.request_id, entry.job.status) == (None, "r-1", JobStatus.UNKNOWN)


@pytest.mark.parametrize(
    "stored", ["[1]", "3", "{", "[" * 100_000, b"\xff"], ids=["list", "number", "cut", "deep", "bytes"]
)
def test_a_broken_record_keeps_its_id(path, pen_for, stored):
    with open_journal(path) as journal:
        pen_for(journal).record_job(pen_for(journal).record_intent("rain"), "r-1")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE entries SET record = ?", [stored])

    (entry,) = read_again(path)
    assert (entry.record, entry.job.request_id) == (None, "r-1")


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "column, value",
    [
        ("key", b"\xff"),
        ("fingerprint", b"f"),
        ("occurrence", "first"),
        ("occurrence", 0.5),
        ("model", b"\xff"),
        ("payload", "{"),
        ("payload", "[]"),
        ("payload", "3"),
        ("payload", b"\xff"),
        ("payload", "[" * 100_000),
        ("state", "done"),
        ("state", b"submitted"),
        ("sent_at", "yesterday"),
        ("sent_at", 1e300),
        ("sent_at", float("inf")),
        ("has_service_time", "yes"),
        ("has_service_time", 2),
        ("timeout", b"60"),
        ("timeout", -1),
        ("request_id", b"\xff"),
        ("error", b"\xff"),
        ("path", b"\xff"),
        ("size_bytes", "big"),
        ("size_bytes", -1),
        ("sha256", b"0"),
        ("cost_usd", "much"),
        ("attempt_cost_usd", ""),
        ("attempt_cost_usd", "NaN"),
        ("attempt_cost_usd", "-1"),
        ("attempt_cost_usd", b"1"),
        ("attempts", "one"),
        ("attempts", -1),
        ("index", "first"),
        ("index", b""),
    ],
)
def test_a_row_that_another_program_has_changed_is_one_sentence(path, pen_for, column, value):
    with open_journal(path) as journal:
        pen_for(journal).record_intent("rain")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f'UPDATE entries SET "{column}" = ?', [value])  # noqa: S608 - our own name

    with pytest.raises(JournalError, match=f"Entry 1 .* cannot be read: its column '{column}' holds"):
        list(read_journal(path))


@pytest.mark.parametrize("value", ["much", b"1", "NaN", "-1"])
def test_a_sum_of_money_that_another_program_has_changed_is_one_sentence(path, pen_for, value):
    with open_journal(path) as journal:
        pen_for(journal).record_intent("rain")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE entries SET cost_usd = ?", [value])

    with pytest.raises(JournalError, match=r"could not be read .*'.*' is no amount of money"):
        open_journal(path)


def test_the_payload_is_stored_once(path, pen_for):
    with open_journal(path) as journal:
        pen_for(journal).record_job(pen_for(journal).record_intent("rain"), "r-1")

    assert b"echo" not in path.read_bytes()


def test_posts_without_an_answer_are_counted_after_a_restart(path, pen_for):
    with open_journal(path) as journal:
        pen = pen_for(journal)
        for occurrence in range(3):
            identity = pen.identity("rain", occurrence)
            journal.record_intent(identity, model="m", payload={}, at=1.0, cost_usd=None)
        pen.record_job(2, "r-2")

    with open_journal(path) as journal:
        assert [entry.number for entry in journal._entries.find_unknown()] == [1, 3]


# With other programs


def test_any_program_can_read_it_with_sqlite(path):
    identity = Identity("eagle", "f", 0)
    with open_journal(path) as journal:
        number = journal.record_intent(
            identity,
            model="kling-v2-6",
            payload={"prompt": "雨"},
            at=1_800_000_000.5,
            cost_usd=Decimal("0.35"),
        )
        record = {
            "status": "success",
            "created_at": 1_800_000_001,
            "outcome": {"media_urls": [{"id": "0", "url": "https://storage.example/r-1.mp4"}]},
        }
        journal.record_job(number, request_id="r-1", record=record)
        journal.record_end(number, state=EntryState.SUCCEEDED, record=None, error=None)
        journal.record_file(number, path="videos/r-1.mp4", size_bytes=5, sha256="ab")

    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        (row,) = connection.execute("SELECT * FROM jobs")
    assert dict(row) == {
        "item_index": 0,
        "prompt": "雨",
        "state": "succeeded",
        "request_id": "r-1",
        "video_url": "https://storage.example/r-1.mp4",
        "path": "videos/r-1.mp4",
        "error": None,
        "cost_usd": "0.35",
        "attempts": 1,
        "sent_utc": "2027-01-15 08:00:00",
        "created_utc": "2027-01-15 08:00:01",
        "updated_utc": None,
        "key": "eagle",
        "model": "kling-v2-6",
    }


@pytest.mark.parametrize(
    "outcome, url",
    [
        ({"media_urls": ["https://h/a.mp4"]}, "https://h/a.mp4"),
        ({"media_urls": [], "video_url": "https://h/b.mp4"}, "https://h/b.mp4"),
        ({"media_urls": [{"id": "0"}]}, None),
        (None, None),
        ("[" * 3000 + "]" * 3000, None),
    ],
    ids=["text", "older", "without", "none", "deep"],
)
def test_the_view_finds_the_video_in_each_shape_of_outcome(path, pen_for, outcome, url):
    with open_journal(path) as journal:
        pen = pen_for(journal)
        number = pen.record_intent("rain")
        pen.record_job(number, "r-1")
        journal.record_end(number, state=EntryState.SUCCEEDED, record={"outcome": outcome}, error=None)
    if isinstance(outcome, str):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE entries SET record = ?", [outcome])

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT video_url FROM jobs").fetchall() == [(url,)]


async def test_it_can_be_read_while_it_is_written(path, pen_for):
    with open_journal(path) as journal:
        number = pen_for(journal).record_intent("rain")
        await journal.wait_durable()
        others = read_journal(path)
        assert [(entry.number, entry.state) for entry in others] == [(1, EntryState.INTENDED)]

        pen_for(journal).record_job(number, "r-1")
        await journal.wait_durable()
        assert [entry.request_id for entry in read_journal(path)] == ["r-1"]


def test_reading_a_closed_journal_leaves_no_side_files(path, pen_for):
    with open_journal(path) as journal:
        for number in range(1_200):
            pen_for(journal).record_intent(f"rain {number}")
    before = path.read_bytes()

    assert [entry.number for entry in read_journal(path)] == list(range(1, 1_201))

    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["run.db", "run.db-lock"]


def test_reading_after_a_kill_keeps_the_writes_for_the_next_run(path, pen_for, tmp_path):
    copy, writes = tmp_path / "copy.db", tmp_path / "copy.db-wal"
    with open_journal(path) as journal:
        pen_for(journal).record_intent("rain")
        asyncio.run(journal.flush())
        copy.write_bytes(path.read_bytes())
        writes.write_bytes(Path(f"{path}-wal").read_bytes())
    before = writes.read_bytes()

    assert [entry.payload for entry in read_journal(copy)] == [{"prompt": "rain"}]

    assert writes.read_bytes() == before
    assert [entry.payload for entry in read_again(copy)] == [{"prompt": "rain"}]


def test_reading_a_missing_journal_says_so(tmp_path):
    with pytest.raises(JournalError, match="There is no journal"):
        read_journal(tmp_path / "run.db")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["my notes", ""])
def test_reading_a_foreign_file_says_so(path, content):
    path.write_text(content)
    with pytest.raises(JournalError, match="is not a journal"):
        read_journal(path)


def test_reading_an_older_journal_brings_it_up_to_date_unless_it_is_in_use(path):
    def add_note(connection):
        connection.execute("ALTER TABLE entries ADD COLUMN note TEXT")

    newest = (*MIGRATIONS, add_note)
    with open_journal(path), pytest.raises(JournalError, match="is in use by another process"):
        read_entries(path, migrations=newest)
    assert check_file(path) == len(MIGRATIONS)

    assert list(read_entries(path, migrations=newest)) == []
    assert check_file(path, newest=len(newest)) == len(newest)


# When the disk fails


async def test_a_full_disk_is_an_error_and_loses_no_entry(path, pen_for):
    journal = open_journal(path)
    pen_for(journal).record_intent("rain")
    await journal.wait_durable()
    journal._store._writer.execute("PRAGMA max_page_count = 1")
    number = pen_for(journal).record_intent("snow " * 5_000)

    with pytest.raises(JournalError, match=r"could not be written .*disk is full.*free some disk space"):
        await journal.wait_durable()

    journal._store._writer.execute("PRAGMA max_page_count = 100000")
    journal.record_not_accepted(number, error="not written down")
    await journal.wait_durable()
    journal.close()
    assert [entry.state for entry in read_again(path)] == [EntryState.INTENDED, EntryState.NOT_SUBMITTED]


def test_a_journal_that_cannot_write_at_the_end_is_still_unlocked(path, pen_for):
    journal = open_journal(path)
    journal._store._writer.execute("PRAGMA query_only = ON")
    pen_for(journal).record_intent("rain")

    with pytest.raises(JournalError, match="could not be written"):
        journal.close()

    journal.close()
    assert read_again(path) == []


async def test_a_closed_journal_says_that_it_is_closed(path, pen_for):
    journal = open_journal(path)
    journal.close()
    pen_for(journal).record_intent("rain")

    with pytest.raises(JournalError, match="closed"):
        await journal.wait_durable()
    with pytest.raises(JournalError, match="closed"):
        journal.has_job("r-1")


def test_a_disk_that_fails_during_opening_leaves_no_lock(path, monkeypatch):
    open_journal(path).close()

    def fail(connection):
        raise OSError(5, os.strerror(5))

    with pytest.raises(JournalError, match=r"could not be opened .*Input/output error"):
        SqliteStore(path, migrations=(*MIGRATIONS, fail))

    open_journal(path).close()


async def test_one_transaction_in_another_thread_serves_all_waiting_tasks(path, pen_for):
    commits = []
    with open_journal(path) as journal:
        journal._store._writer.set_trace_callback(
            lambda text: commits.append(text) if text == "COMMIT" else None
        )

        async def one(number):
            pen_for(journal).record_intent(f"rain {number}")
            await journal.wait_durable()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.run)
            async with anyio.create_task_group() as takers:
                for number in range(100):
                    takers.start_soon(one, number)
            tasks.cancel_scope.cancel()

        assert len(commits) == 1
    assert len(read_again(path)) == 100


def test_sqlite_is_not_imported_until_a_journal_is_opened():
    code = "import sys; sys.modules['sqlite3'] = None; import kling_async, kling_async._journal.open_journal"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own code


# Another process


def add_intent(journal, text):
    journal.record_intent(Identity(None, text, 0), model="m", payload={"prompt": text}, at=1.0, cost_usd=None)


async def test_a_process_stops_whose_journal_another_process_has_written(path):
    journal = open_journal(path)
    add_intent(journal, "the first")
    await journal.flush()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE entries SET error = 'of another process'")
    add_intent(journal, "the second")
    for _ in range(2):
        with pytest.raises(JournalError, match=r"was written by another process .* nothing more is sent"):
            await journal.flush()
    with pytest.raises(JournalError, match="was written by another process"):
        journal.close()
    assert [entry.payload["prompt"] for entry in read_again(path)] == ["the first"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has locks that end when any descriptor is closed")
async def test_of_two_processes_one_stops_if_to_copy_the_folder_has_ended_the_lock(path):
    program = (
        "import sys; from kling_async._journal.open_journal import open_journal\n"
        "with open_journal(sys.argv[1]) as journal: journal.record_index(1, 7)"
    )
    journal = open_journal(path)
    add_intent(journal, "the first")
    await journal.flush()
    shutil.copytree(path.parent, path.parent.with_name("copy"))
    await anyio.run_process([sys.executable, "-c", program, str(path)])
    add_intent(journal, "the second")
    with pytest.raises(JournalError, match="nothing more is sent"):
        await journal.flush()
    with suppress(JournalError):  # its copy has what it could not write
        journal.close()


async def test_a_process_may_read_a_journal_while_another_writes_it(path):
    with open_journal(path) as journal:
        for number in range(100):
            add_intent(journal, str(number))
            await journal.flush()
            assert len(list(read_entries(path))) == number + 1
