from __future__ import annotations

import os

import pytest

from kling_async._durable import move_into_place


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
