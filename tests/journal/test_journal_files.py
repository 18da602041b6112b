"""The files of a journal: for their owner alone, and no trap of another user in a shared folder is followed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import struct
from contextlib import closing
from pathlib import Path

import pytest
from traps import TRAPS, put

from kling_async import JournalError, _own_files
from kling_async._journal.open_journal import open_journal, read_journal
from kling_async._journal.sqlite import journal_files, opening, reading, store

SIDE_FILES = ["run.db-lock", "run.db-wal", "run.db-shm", "run.db-journal"]


@pytest.fixture
def victim(tmp_path):
    """A file of ours, in another folder, which an attacker wants to be overwritten."""
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "precious"
    path.write_text("precious")
    return path


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A folder that others of the group can write, and the working folder."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o775)  # whatever the umask
    monkeypatch.chdir(tmp_path / "shared")
    return tmp_path / "shared"


@pytest.fixture
def run_db(shared, pen_for):
    """A journal with an entry, closed."""
    with open_journal(shared / "run.db") as journal:
        pen_for(journal).record_intent("rain")
    return shared / "run.db"


def is_unharmed(victim):
    return victim.read_text() == "precious" and list(victim.parent.iterdir()) == [victim]


@pytest.mark.parametrize("length", [248, 251, 255, 256, 5000])
@pytest.mark.parametrize("use", [open_journal, read_journal], ids=["write", "read"])
def test_a_journal_whose_files_would_have_too_long_names_is_refused(shared, length, use):
    with pytest.raises(JournalError, match=r"too long\): give "):
        use(shared / ("x" * length))
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize("name", SIDE_FILES)
@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_beside_a_journal_is_refused_and_not_followed(run_db, victim, trap, name):
    trapped = run_db.with_name(name)
    trapped.unlink(missing_ok=True)
    put(trap, trapped, victim)
    before = trapped.lstat()

    with pytest.raises(
        JournalError, match=rf"{name}' is (a symbolic link|not a regular|a file with a second)"
    ):
        open_journal(run_db)

    assert os.path.samestat(trapped.lstat(), before)
    assert is_unharmed(victim)


@pytest.mark.parametrize("name", [name for name in SIDE_FILES if name != "run.db-lock"])
@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_beside_a_journal_is_not_read(run_db, victim, trap, name):
    put(trap, run_db.with_name(name), victim)

    with pytest.raises(JournalError, match=rf"{name}' is "):
        read_journal(run_db)

    assert is_unharmed(victim)


@pytest.mark.parametrize("trap", ["hard link", "pipe", "socket"])
@pytest.mark.parametrize("use", [open_journal, read_journal], ids=["write", "read"])
def test_a_trap_at_the_name_of_a_journal_is_refused_and_not_waited_for(shared, victim, trap, use):
    put(trap, shared / "run.db", victim)

    with pytest.raises(JournalError, match=r"run.db' is (not a regular|a file with a second)"):
        use(shared / "run.db")

    assert is_unharmed(victim)
    assert [file.name for file in shared.iterdir()] == ["run.db"]


@pytest.mark.parametrize("name", ["run.db-new", "run.db-new-wal", "run.db-new-shm", "run.db-new-journal"])
@pytest.mark.parametrize("trap", ["symbolic link", "broken link", "hard link", "pipe", "socket"])
def test_a_trap_at_a_journal_in_the_making_is_removed_and_not_followed(shared, victim, trap, name):
    put(trap, shared / name, victim)

    open_journal(shared / "run.db").close()

    assert is_unharmed(victim)
    assert not (shared / name).exists()
    assert (shared / "run.db").lstat().st_nlink == 1


def test_a_trap_that_is_put_at_a_journal_in_the_making_meanwhile_is_refused(shared, victim, monkeypatch):
    unlink = Path.unlink

    def unlink_and_put(path, *, missing_ok=False):
        unlink(path, missing_ok=missing_ok)
        if path.name == "run.db-new-journal":
            put("hard link", shared / "run.db-new", victim)

    monkeypatch.setattr(Path, "unlink", unlink_and_put)
    with pytest.raises(JournalError, match=r"run\.db-new. is a file with a second name"):
        open_journal(shared / "run.db")

    assert is_unharmed(victim)


def test_a_file_in_the_making_that_cannot_be_removed_is_named(shared, monkeypatch):
    """In a folder such as /tmp a user cannot remove the file of another user."""

    def refuse(path, *, missing_ok):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(
        JournalError, match=r"could not be made .*not permitted.*: remove '.*/run\.db-new' if it is there"
    ):
        open_journal(shared / "run.db")


@pytest.mark.parametrize("name", ["run.db-wal", "run.db-shm", "run.db-journal"])
def test_a_trap_that_is_put_while_a_journal_is_opened_is_refused(run_db, victim, monkeypatch, name):
    reserve = store.reserve_files

    def reserve_and_put(path):
        put("hard link", path.with_name(name), victim)
        return reserve(path)

    monkeypatch.setattr(store, "reserve_files", reserve_and_put)
    with pytest.raises(JournalError, match=rf"{name}' is a file with a second name"):
        open_journal(run_db)
    assert is_unharmed(victim)


RESERVED = ["-wal", "-shm", "-journal"]


@pytest.fixture
def connections(monkeypatch):
    """The names of the files that a connection in a mode was made to, and what lay beside them at that moment."""
    made = []
    for room in (store, reading, opening):

        def connect(path, connect=room.connect, **options):
            made.append((path.name, options.get("mode", "mode=rw"), own_files_beside(path)))
            return connect(path, **options)

        monkeypatch.setattr(room, "connect", connect)
    return made


def own_files_beside(path):
    files = {end: path.with_name(path.name + end) for end in RESERVED}
    return {end: file.stat().st_ino for end, file in files.items() if is_reserved(file)}


def is_reserved(path):
    if not path.exists():
        return False
    status = path.lstat()
    return (status.st_uid, stat.S_IMODE(status.st_mode), status.st_nlink) == (os.geteuid(), 0o600, 1)


def test_each_name_from_which_sqlite_reads_is_taken_before_a_file_is_opened_to_write(shared, connections):
    """In a sticky folder another user can then put nothing there."""
    for _ in "new", "again":
        open_journal(shared / "run.db").close()

    written = [
        (name, set(beside))
        for name, mode, beside in connections
        if mode == "mode=rw" and name != "run.db-lock"
    ]
    assert [name for name, _ in written] == ["run.db-new", *["run.db"] * 4]
    assert all(beside == set(RESERVED) for _, beside in written)
    assert sorted(file.name for file in shared.iterdir()) == ["run.db", "run.db-lock"]


def test_the_names_beside_a_journal_are_taken_for_as_long_as_it_is_open(run_db, connections, pen_for):
    with open_journal(run_db) as journal:
        taken = connections[-1][2]
        for prompt in ("sun", "snow"):
            pen_for(journal).record_intent(prompt)
            asyncio.run(journal.flush())
            assert own_files_beside(run_db) == taken
        assert list(read_journal(run_db))
        assert own_files_beside(run_db) == taken
    assert own_files_beside(run_db) == {}


def test_a_rollback_journal_of_another_user_is_not_played_back(run_db, monkeypatch, hot_journal):
    """It comes at the last moment, where nothing of ours is there to stop it: a read-only connection plays nothing."""
    content = run_db.read_bytes()
    run_db.parent.chmod(0o1777)
    connect = reading.connect

    def plant_and_connect(path, **options):
        path.with_name("run.db-journal").write_bytes(hot_journal)
        return connect(path, **options)

    monkeypatch.setattr(reading, "connect", plant_and_connect)
    with pytest.raises(JournalError, match="could not be read"):
        list(read_journal(run_db))
    assert run_db.read_bytes() == content


@pytest.fixture
def hot_journal():
    """A rollback journal that empties a file to one page.

    Source: https://www.sqlite.org/fileformat2.html#the_rollback_journal
    """
    magic = bytes.fromhex("d9d505f920a163d7")
    return (magic + struct.pack(">IIIII", 0, 0, 1, 512, 4096)).ljust(512, b"\0")


def test_a_journal_in_a_shared_folder_is_read_and_written_as_elsewhere(run_db, pen_for, connections):
    run_db.parent.chmod(0o1777)
    assert len(list(read_journal(run_db))) == 1
    assert {mode for _, mode, _ in connections} == {"mode=ro", "mode=ro&immutable=1"}
    with open_journal(run_db) as journal:
        pen_for(journal).record_intent("sun")
        assert len(list(read_journal(run_db))) == 1
        asyncio.run(journal.flush())
        assert len(list(read_journal(run_db))) == 2
    assert sorted(file.name for file in run_db.parent.iterdir()) == ["run.db", "run.db-lock"]


@pytest.mark.parametrize("mode", [0o777, 0o707])
def test_a_journal_in_a_folder_where_every_user_replaces_files_is_refused(shared, mode):
    shared.chmod(mode)
    with pytest.raises(JournalError, match=r"every user can replace files in the folder .*chmod o-w"):
        open_journal(shared / "run.db")
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize("mode", [0o775, 0o2775, 0o1777, 0o1775, 0o700])
def test_a_journal_in_a_folder_of_a_group_or_with_the_sticky_bit_is_used(shared, mode):
    shared.chmod(mode)
    open_journal(shared / "run.db").close()
    assert list(read_journal(shared / "run.db")) == []


def test_a_system_without_modes_shows_each_folder_as_writable(shared, monkeypatch):
    shared.chmod(0o777)
    monkeypatch.setattr(journal_files, "_HAS_MODES", False)
    open_journal(shared / "run.db").close()


def test_a_journal_without_a_write_ahead_log_gets_one(run_db, shared):
    """Such as a file that the `sqlite3` shell has recovered: SQLite would remove the reserved file at each commit."""
    with closing(sqlite3.connect(run_db)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    with open_journal(run_db):
        assert set(own_files_beside(run_db)) == set(RESERVED)
    with closing(sqlite3.connect(run_db)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert len(list(read_journal(run_db))) == 1


@pytest.mark.parametrize("name", ["run.db", *SIDE_FILES])
def test_a_file_of_another_user_is_not_written(run_db, monkeypatch, name):
    run_db.with_name(name).touch()
    lstat, other = Path.lstat, os.geteuid() + 1

    def lstat_of_another(path):
        status = lstat(path)
        return os.stat_result([*status[:4], other, *status[5:]]) if path.name == name else status

    monkeypatch.setattr(Path, "lstat", lstat_of_another)
    with pytest.raises(JournalError, match=rf"{name}' is a file of another user"):
        open_journal(run_db)


@pytest.mark.parametrize("mode", [0o775, 0o1777])
def test_a_journal_of_another_user_is_read_if_all_its_files_are_of_that_user(run_db, monkeypatch, mode):
    run_db.parent.chmod(mode)
    monkeypatch.setattr(_own_files.os, "geteuid", lambda: os.getuid() + 1)
    assert len(list(read_journal(run_db))) == 1

    monkeypatch.undo()
    run_db.with_name("run.db-wal").touch()
    lstat, other = Path.lstat, os.geteuid() + 1

    def lstat_of_another(path):
        status = lstat(path)
        return os.stat_result([*status[:4], other, *status[5:]]) if path.name == "run.db-wal" else status

    monkeypatch.setattr(Path, "lstat", lstat_of_another)
    with pytest.raises(JournalError, match=r"run\.db-wal. is a file of another user"):
        read_journal(run_db)


# Links at the name of a journal


def test_a_link_of_this_user_is_followed_to_a_journal_of_this_user(run_db, tmp_path):
    (tmp_path / "link.db").symlink_to(run_db)
    with open_journal(tmp_path / "link.db") as journal:
        assert len(list(journal.entries())) == 1
    assert len(list(read_journal(tmp_path / "link.db"))) == 1


def test_a_link_of_another_user_is_not_followed(run_db, tmp_path, monkeypatch):
    (tmp_path / "link.db").symlink_to(run_db)
    monkeypatch.setattr(_own_files, "_ADMINISTRATOR", -1)
    monkeypatch.setattr(_own_files.os, "geteuid", lambda: os.getuid() + 1)
    for use in (open_journal, read_journal):
        with pytest.raises(JournalError, match="a symbolic link of another user"):
            use(tmp_path / "link.db")


# Modes


@pytest.fixture(params=[0o022, 0o000, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder):
    return {file.name: stat.S_IMODE(file.lstat().st_mode) for file in folder.iterdir()}


def test_every_file_of_a_journal_is_for_its_owner_alone(umask, shared, pen_for, monkeypatch):
    making = []
    system_replace = Path.replace

    def replace(path, target):
        making.append(modes(shared))
        return system_replace(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with open_journal(shared / "run.db") as journal:
        pen_for(journal).record_intent("rain")
        names = {"run.db", *SIDE_FILES}
        assert modes(shared) == dict.fromkeys(names, 0o600)
    assert making == [dict.fromkeys(["run.db-lock", "run.db-new"], 0o600)]


def test_a_journal_keeps_the_mode_that_its_user_gave_to_it(umask, run_db, pen_for):
    run_db.chmod(0o640)
    with open_journal(run_db) as journal:
        pen_for(journal).record_intent("snow")
        found = modes(run_db.parent)
        assert {found[name] for name in ("run.db", "run.db-wal", "run.db-shm")} == {0o640}
    assert modes(run_db.parent) == {"run.db": 0o640, "run.db-lock": 0o600}
