from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from kling_async import JournalError
from kling_async._journal.open_journal import open_journal
from kling_async._journal.sqlite import opening
from kling_async._journal.sqlite.opening import check_file, make_if_missing
from kling_async._journal.sqlite.schema import MIGRATIONS


@pytest.fixture
def run_db(tmp_path, pen_for):
    """A journal with ten entries, closed."""
    path = tmp_path / "run.db"
    with open_journal(path) as journal:
        for number in range(10):
            pen_for(journal).record_intent(f"rain {number} " + "and more " * 100)
    return path


@pytest.fixture
def killed(tmp_path):
    """A journal whose last writes lie beside it, as a kill leaves them."""
    code = (
        "import asyncio, os, sys\n"
        "from kling_async._journal.open_journal import open_journal\n"
        "from kling_async._journal.entry import Identity\n"
        "journal = open_journal(sys.argv[1])\n"
        "for number in range(10):\n"
        "    journal.record_intent(Identity(None, 'f', number), model='m', payload={'x': 'y' * 999}, at=1.0, cost_usd=None)\n"
        "asyncio.run(journal.flush())\n"
        "os._exit(9)\n"
    )
    path = tmp_path / "killed.db"
    done = subprocess.run([sys.executable, "-c", code, path], check=False)  # noqa: S603 - our own code
    assert done.returncode == 9
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, but for SQLite's index into the writes beside a journal, and the lock."""
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.is_file() and not file.name.endswith(("-shm", "-lock"))
    }


def overwrite(path: Path, *, at: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)


# What is refused


@pytest.mark.parametrize(
    "spoil, says",
    [
        (lambda path: path.write_text("my notes\n" * 1000), "is not a journal"),
        (lambda path: path.write_bytes(b""), "is not a journal"),
        (lambda path: os.truncate(path, 60), "is not a journal"),
        (lambda path: overwrite(path, at=68, value=b"GPKG"), "is not a journal"),
        (
            lambda path: overwrite(path, at=60, value=b"\0\0\0\x63"),
            rf"newer version.*format 99.*up to {len(MIGRATIONS)}\b.*update",
        ),
        (lambda path: os.truncate(path, 100), "damaged or cut short"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "damaged or cut short"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "damaged or cut short .*bytes"),
        (lambda path: overwrite(path, at=8192, value=b"\xff" * 500), "damaged or cut short .*Page"),
    ],
    ids=["text", "empty", "stub", "another", "newer", "cut-100", "cut-half", "cut-one-byte", "scrawled"],
)
def test_an_unusable_file_is_refused_and_unchanged(run_db, spoil, says):
    spoil(run_db)
    before = files_in(run_db.parent)

    with pytest.raises(JournalError, match=says) as caught:
        open_journal(run_db)

    assert str(run_db) in caught.value.message
    assert files_in(run_db.parent) == before


def test_a_foreign_file_gets_no_lock_file(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes")

    with pytest.raises(JournalError):
        open_journal(notes)

    assert list(tmp_path.iterdir()) == [notes]


def test_a_foreign_database_and_its_side_files_are_unchanged(tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE mine (x)")
    Path(f"{path}-journal").write_bytes(b"x" * 600)
    before = files_in(tmp_path)

    with pytest.raises(JournalError, match="is not a journal"):
        open_journal(path)

    assert files_in(tmp_path) == before


def test_the_side_files_of_a_damaged_journal_are_unchanged(killed):
    assert Path(f"{killed}-wal").stat().st_size > 0
    overwrite(killed, at=60, value=b"\0\0\0\x63")
    os.truncate(f"{killed}-wal", 32)
    before = files_in(killed.parent)

    with pytest.raises(JournalError, match="newer version"):
        open_journal(killed)

    assert files_in(killed.parent) == before


def test_writes_that_a_kill_left_in_a_side_file_are_read(killed):
    with open_journal(killed) as journal:
        assert [entry.number for entry in journal.entries()] == list(range(1, 11))

    assert not Path(f"{killed}-wal").exists()


@pytest.mark.parametrize(
    "place, says",
    [
        (".", "is a folder: give the path of a file"),
        ("missing/run.db", "there is no folder .*missing.*Make it first"),
        ("file/run.db", "there is no folder .*file"),
        ("a\0b", "null"),
    ],
    ids=["folder", "no-folder", "in-a-file", "nul"],
)
def test_an_impossible_path_is_refused_with_the_reason(tmp_path, monkeypatch, place, says):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()

    with pytest.raises(JournalError, match=says):
        open_journal(place)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nothing can be written")
def test_a_read_only_folder_is_refused_with_the_reason():
    with pytest.raises(JournalError, match="check that the folder '/proc' exists and can be written"):
        open_journal("/proc/run.db")


def test_side_files_without_their_journal_are_not_added_to_a_new_one(tmp_path):
    Path(tmp_path, "run.db-wal").write_bytes(b"writes")

    with pytest.raises(JournalError, match="may hold paid jobs"):
        open_journal(tmp_path / "run.db")

    assert Path(tmp_path, "run.db-wal").read_bytes() == b"writes"
    assert not Path(tmp_path, "run.db").exists()


def test_an_unreadable_journal_is_refused_with_the_reason(tmp_path):
    with pytest.raises(JournalError, match=r"could not be read .*unable to open"):
        check_file(tmp_path / "nowhere.db")


# The lock


def test_a_second_journal_on_one_path_is_refused_as_in_use(run_db):
    with (
        open_journal(run_db),
        pytest.raises(JournalError, match="in use by another process, or by another Journal"),
    ):
        open_journal(run_db)

    open_journal(run_db).close()


def test_a_journal_that_cannot_be_read_after_it_was_opened_is_unlocked(run_db):
    with closing(sqlite3.connect(run_db)) as other:
        other.execute("ALTER TABLE earlier_attempts RENAME COLUMN state TO lost")
    for _ in range(2):
        with pytest.raises(JournalError, match=r"was\.state"):
            open_journal(run_db)


def test_a_second_process_is_refused_as_in_use(run_db):
    code = "import sys; from kling_async._journal.open_journal import open_journal; open_journal(sys.argv[1])"
    with open_journal(run_db):
        second = subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-c", code, run_db], check=False, capture_output=True, text=True
        )

    assert second.returncode == 1
    assert "is in use by another process" in second.stderr


def test_a_link_leads_to_the_same_lock(run_db, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(run_db)

    with open_journal(run_db), pytest.raises(JournalError, match="in use"):
        open_journal(link)


def test_a_lock_ends_with_its_process(killed):
    assert Path(f"{killed}-lock").exists()
    open_journal(killed).close()


def test_a_broken_lock_file_is_refused_with_the_reason(run_db):
    Path(f"{run_db}-lock").write_text("somebody's notes, long enough to be looked at\n" * 20)

    with pytest.raises(JournalError, match=r"could not be opened \(file is not a database\)"):
        open_journal(run_db)


# A new one


def test_a_new_journal_is_complete_or_absent(tmp_path, monkeypatch):
    def die(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        open_journal(tmp_path / "run.db")
    assert not Path(tmp_path, "run.db").exists()
    monkeypatch.undo()

    Path(tmp_path, "run.db-new").write_text("what a kill left")
    open_journal(tmp_path / "run.db").close()

    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.db", "run.db-lock"]
    assert check_file(tmp_path / "run.db") == len(MIGRATIONS)


@pytest.mark.parametrize("fails", ["migrate", "move_into_place"])
def test_a_journal_that_cannot_be_made_leaves_no_half_of_it(tmp_path, monkeypatch, fails):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(opening, fails, fail)
        with pytest.raises(JournalError, match=r"could not be made .*No space left"):
            open_journal(tmp_path / "run.db")
    assert [file.name for file in tmp_path.iterdir()] == ["run.db-lock"]


def test_an_existing_journal_is_not_replaced(run_db):
    before = run_db.read_bytes()

    assert make_if_missing(run_db) is False
    assert run_db.read_bytes() == before


def test_any_file_name_of_the_system_works(tmp_path):
    name = "50% of ünï?#&.db"
    with open_journal(tmp_path / name):
        pass

    assert sorted(file.name for file in tmp_path.iterdir()) == [name, f"{name}-lock"]


def test_a_system_that_cannot_open_folders_can_make_a_journal(tmp_path, monkeypatch):
    system_open = os.open

    def open_(path, flags, *rest, **named):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return system_open(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", open_)
    open_journal(tmp_path / "run.db").close()

    assert check_file(tmp_path / "run.db") == len(MIGRATIONS)
