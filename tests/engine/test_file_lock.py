from __future__ import annotations

import errno
import fcntl
import io
import os
import sys

import pytest

from kling_async._engine.download.file_lock import claim


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.mp4"


@pytest.fixture
def no_locks(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)


def names(path):
    return sorted(other.name for other in path.parent.iterdir())


def test_two_at_once_get_a_file_each(path):
    one, two, three = claim(path), claim(path), claim(path)
    assert [other.path.name for other in (one, two, three)] == ["a.mp4.part", "a.mp4.2.part", "a.mp4.3.part"]
    for other in (one, two, three):
        other.file.close()


def test_what_nobody_holds_any_more_is_taken_up(path):
    with claim(path).file as file:
        file.write(b"begun")
    taken = claim(path)
    assert (taken.path.name, taken.file.read(), taken.is_locked) == ("a.mp4.part", b"begun", True)
    taken.file.close()


def test_without_locks_only_a_new_file_is_ones_own(path, no_locks):
    one, two = claim(path), claim(path)
    assert [one.path.name, two.path.name] == ["a.mp4.part", "a.mp4.2.part"]
    assert not one.is_locked
    one.file.close()
    three = claim(path)
    assert three.path.name == "a.mp4.3.part"
    two.file.close()
    three.file.close()


def test_a_file_system_without_locks_is_such_a_system(path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    claimed = claim(path)
    assert not claimed.is_locked
    claimed.file.close()


@pytest.mark.parametrize("after", ["renamed", "replaced"])
def test_a_file_that_was_finished_meanwhile_is_left_alone(path, monkeypatch, after):
    """Whoever held the lock renames the file between our opening it and our locking it."""
    (part := path.with_name("a.mp4.part")).write_bytes(b"whole")
    true_flock = fcntl.flock

    def flock(file, operation):
        monkeypatch.setattr(fcntl, "flock", true_flock)
        part.rename(path)
        if after == "replaced":
            part.touch()
        true_flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with claim(path).file as file:
        file.write(b"other")
    assert path.read_bytes() == b"whole"


def test_a_file_that_is_gone_when_it_is_opened_is_passed_over(path, monkeypatch):
    (part := path.with_name("a.mp4.part")).touch()
    true_open = io.open

    def open_late(file, mode="r", *rest):
        if mode == "r+b":
            part.unlink()
        return true_open(file, mode, *rest)

    monkeypatch.setattr(io, "open", open_late)
    with claim(path).file:
        assert names(path) == ["a.mp4.2.part"]


def test_what_the_system_says_against_a_new_file_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError):
        claim(tmp_path / "missing" / "a.mp4")
    with pytest.raises(OSError, match="too long") as caught:
        claim(tmp_path / ("x" * 300))
    assert caught.value.errno == errno.ENAMETOOLONG
