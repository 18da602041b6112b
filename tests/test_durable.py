from __future__ import annotations

import errno
import os

import pytest

from kling_async._durable import move_into_place, rename_if_free, rename_into_place


def test_the_new_file_replaces_the_former_one(tmp_path):
    new, path = tmp_path / "a.part", tmp_path / "a"
    new.write_text("new")
    path.write_text("former")
    move_into_place(new, path)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_reach_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    new, path, flushed = tmp_path / "a.part", tmp_path / "a", []
    new.write_text("new")
    flush = os.fsync

    def record(descriptor):
        flushed.append((os.fstat(descriptor).st_ino, path.exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    inodes = new.stat().st_ino, tmp_path.stat().st_ino
    move_into_place(new, path)
    assert flushed == [(inodes[0], False), (inodes[1], True)]


def test_a_folder_that_cannot_be_opened_is_no_error(tmp_path, monkeypatch):
    new, path = tmp_path / "a.part", tmp_path / "a"
    new.write_text("new")
    open_file = os.open

    def refuse_folders(name, *arguments):
        if os.path.isdir(name):  # noqa: PTH112
            raise PermissionError("folders cannot be opened here")
        return open_file(name, *arguments)

    monkeypatch.setattr(os, "open", refuse_folders)
    move_into_place(new, path)
    assert path.read_text() == "new"


def test_a_file_that_cannot_be_flushed_leaves_the_former_one(tmp_path, monkeypatch):
    new, path = tmp_path / "a.part", tmp_path / "a"
    new.write_text("new")
    path.write_text("former")

    def fail(_descriptor):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        move_into_place(new, path)
    assert path.read_text() == "former"


@pytest.fixture
def new(tmp_path):
    path = tmp_path / "a.part"
    path.write_text("new")
    return path


@pytest.fixture(params=["hard links", "no hard links"])
def links(request, monkeypatch):
    """A file system with hard links, and one without."""

    def refuse(_source, _target):
        raise PermissionError("no hard links here")

    if request.param == "no hard links":
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("links")
def test_a_free_name_is_given_to_the_new_file(new, tmp_path):
    assert rename_if_free(new, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("former", ["", "new"])
def test_a_file_that_is_empty_or_equal_gives_its_name_away(new, tmp_path, former):
    (tmp_path / "a").write_text(former)
    assert rename_if_free(new, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("former", ["old", "newer"])
def test_another_file_keeps_its_name(new, tmp_path, former):
    (tmp_path / "a").write_text(former)
    assert not rename_if_free(new, tmp_path / "a")
    assert (tmp_path / "a").read_text() == former
    assert new.read_text() == "new"


@pytest.mark.usefixtures("links")
def test_a_folder_a_pipe_and_a_broken_link_keep_their_names(new, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("missing")
    for name in ("folder", "pipe", "link"):
        assert not rename_if_free(new, tmp_path / name)
    assert new.read_text() == "new"


def test_without_a_free_descriptor_nothing_is_renamed(new, tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        rename_into_place(new, tmp_path / "a")
    assert new.read_text() == "new"
