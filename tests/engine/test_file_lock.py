from __future__ import annotations

import errno
import fcntl
import os
import sys

import pytest

from kling_async._engine.download.file_lock import open_locked
from kling_async._policy.http_ranges import FileVersion, dump


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.mp4"


@pytest.fixture
def no_locks(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)


def names(path):
    return sorted(other.name for other in path.parent.iterdir())


def test_each_open_download_gets_a_file_of_its_own(path):
    one, two, three = open_locked(path), open_locked(path), open_locked(path)
    assert [other.path.name for other in (one, two, three)] == ["a.mp4.part", "a.mp4.2.part", "a.mp4.3.part"]
    for other in (one, two, three):
        other.file.close()


def test_a_file_that_is_no_longer_locked_is_opened_again(path):
    version = FileVersion(request_id="job", size_bytes=None, validator=None, digest=None)
    locked_file = open_locked(path)
    locked_file.write_note(version)
    with locked_file.file as file:
        file.write(b"begun")
    again = open_locked(path)
    assert (again.path.name, again.file.read(), again.is_locked) == ("a.mp4.part", b"begun", True)
    again.file.close()


def test_a_new_file_without_a_byte_is_opened_again_also_without_its_note(path):
    open_locked(path).file.close()
    with open_locked(path).file:
        assert names(path) == ["a.mp4.part"]


def test_an_empty_file_of_another_program_is_left_alone(path):
    (theirs := path.with_name("a.mp4.part")).touch()
    theirs.chmod(0o644)
    with open_locked(path).file:
        assert names(path) == ["a.mp4.2.part", "a.mp4.part"]


@pytest.mark.parametrize("note", [None, "", "[]", '{"url": "https://films.example/a.mp4"}'])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o666, 0o600])
def test_a_file_of_another_program_is_left_alone(path, mode, note):
    theirs = path.with_name("a.mp4.part")
    theirs.write_bytes(b"half a film")
    theirs.chmod(mode)
    if note is not None:
        path.with_name("a.mp4.part.json").write_text(note)

    with open_locked(path).file as file:
        file.write(b"ours")

    assert theirs.read_bytes() == b"half a film"
    assert path.with_name("a.mp4.2.part").read_bytes() == b"ours"


def test_a_file_with_a_note_of_ours_is_opened_again_whatever_its_mode_is(path):
    version = FileVersion(request_id="another job", size_bytes=10, validator='"v1"', digest=None)
    path.with_name("a.mp4.part").write_bytes(b"begun")
    path.with_name("a.mp4.part.json").write_text(dump(version))

    locked_file = open_locked(path)

    assert locked_file.path.name == "a.mp4.part"
    locked_file.file.close()


def test_without_locks_only_a_new_file_is_opened(path, no_locks):
    one, two = open_locked(path), open_locked(path)
    assert [one.path.name, two.path.name] == ["a.mp4.part", "a.mp4.2.part"]
    assert not one.is_locked
    one.file.close()
    three = open_locked(path)
    assert three.path.name == "a.mp4.3.part"
    two.file.close()
    three.file.close()


def test_a_file_system_without_locks_counts_as_a_system_without_locks(path, monkeypatch):
    def fail(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    locked_file = open_locked(path)
    assert not locked_file.is_locked
    locked_file.file.close()


@pytest.mark.parametrize("after", ["renamed", "replaced"])
def test_a_file_that_another_download_finishes_meanwhile_is_left_alone(path, monkeypatch, after):
    """The owner of the lock renames the file between the open and the lock."""
    (partial_file := path.with_name("a.mp4.part")).write_bytes(b"whole")
    true_flock = fcntl.flock

    def flock(file, operation):
        monkeypatch.setattr(fcntl, "flock", true_flock)
        partial_file.rename(path)
        if after == "replaced":
            partial_file.touch()
        true_flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with open_locked(path).file as file:
        file.write(b"other")
    assert path.read_bytes() == b"whole"


def test_a_file_that_vanishes_before_it_is_opened_is_skipped(path, monkeypatch):
    (partial_file := path.with_name("a.mp4.part")).touch()
    true_open = os.open

    def open_late(file, flags, *rest):
        if file == partial_file and not flags & os.O_CREAT:
            partial_file.unlink()
        return true_open(file, flags, *rest)

    monkeypatch.setattr(os, "open", open_late)
    with open_locked(path).file:
        assert names(path) == ["a.mp4.2.part"]


def test_an_os_error_for_a_new_file_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_locked(tmp_path / "missing" / "a.mp4")
    with pytest.raises(OSError, match="too long") as caught:
        open_locked(tmp_path / ("x" * 300))
    assert caught.value.errno == errno.ENAMETOOLONG
