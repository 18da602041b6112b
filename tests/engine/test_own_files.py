"""What another user puts into a shared folder is neither followed, nor overwritten, nor waited for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from traps import TRAPS, put
from virtual_service import VirtualLoop, session_for
from virtual_storage import Storage, job_with, video

from kling_async import RetryPolicy, _own_files
from kling_async._engine.download.downloader import DownloadError
from kling_async._engine.download.file_lock import open_locked
from kling_async._engine.download.output_folder import FileDestination
from kling_async._own_files import create, open_own
from kling_async.events import Notifier

VIDEO = video(10_000)


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def victim(tmp_path):
    """A file of ours, in another folder, which an attacker wants to be overwritten."""
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "precious"
    path.write_text("precious")
    return path


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A folder that others can write, and the working folder."""
    (tmp_path / "shared").mkdir()
    monkeypatch.chdir(tmp_path / "shared")
    return tmp_path / "shared"


async def save(path, storage, *, max_retries=0):
    session = session_for(storage.service(), retry=RetryPolicy(max_retries=max_retries))
    emit = session.api.emitter(Notifier(None))
    return await session.downloader.download(job_with(), FileDestination(path, "job-1"), emit=emit)


@pytest.mark.parametrize("name", ["a.mp4.part", "a.mp4.part.json", "a.mp4.2.part"])
@pytest.mark.parametrize("trap", TRAPS)
async def test_a_trap_at_a_helper_file_is_passed_by(shared, victim, trap, name):
    put(trap, shared / name, victim)
    before = (shared / name).lstat()
    await save(shared / "a.mp4", Storage(VIDEO))
    assert (shared / "a.mp4").read_bytes() == VIDEO
    assert victim.read_text() == "precious"
    assert list(victim.parent.iterdir()) == [victim]
    if not name.endswith(".json"):
        assert os.path.samestat((shared / name).lstat(), before)


@pytest.mark.parametrize("trap", TRAPS)
async def test_a_trap_at_the_note_is_not_read_by_the_next_run(shared, victim, trap):
    storage = Storage(VIDEO, cuts=[6000])
    with pytest.raises(DownloadError):
        await save(shared / "a.mp4", storage)
    (shared / "a.mp4.part.json").unlink()
    put(trap, shared / "a.mp4.part.json", victim)
    await save(shared / "a.mp4", storage)
    assert (shared / "a.mp4").read_bytes() == VIDEO
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("trap", ["symbolic link", "broken link", "hard link", "pipe"])
async def test_a_trap_at_the_name_of_the_video_is_replaced_and_not_followed(shared, victim, trap):
    put(trap, shared / "a.mp4", victim)
    await save(shared / "a.mp4", Storage(VIDEO))
    assert (shared / "a.mp4").read_bytes() == VIDEO
    assert not (shared / "a.mp4").is_symlink()
    assert victim.read_text() == "precious"


async def test_a_partial_file_that_is_replaced_while_it_is_written_is_not_taken_for_the_video(shared, victim):
    storage = Storage(VIDEO, cuts=[6000])
    session = session_for(storage.service(), retry=RetryPolicy(max_retries=3))

    def replace(_event):
        if (shared / "a.mp4.part").exists():
            (shared / "a.mp4.part").unlink()
            (shared / "a.mp4.part").symlink_to(victim)

    emit = session.api.emitter(Notifier(replace))
    with pytest.raises(DownloadError, match="another program has replaced its partial file"):
        await session.downloader.download(job_with(), FileDestination(shared / "a.mp4", "job-1"), emit=emit)
    assert "a.mp4" not in {path.name for path in shared.iterdir()}
    assert victim.read_text() == "precious"


def test_a_file_of_another_user_is_passed_by(shared, monkeypatch):
    (shared / "theirs").touch()
    monkeypatch.setattr(_own_files.os, "geteuid", lambda: os.getuid() + 1)
    assert open_own(shared / "theirs") is None


def test_a_system_without_users_trusts_a_file_with_one_name(shared, monkeypatch):
    (shared / "ours").touch()
    monkeypatch.delattr(_own_files.os, "geteuid")
    descriptor = open_own(shared / "ours")
    assert descriptor is not None
    os.close(descriptor)


def test_any_other_error_is_raised(shared, monkeypatch):
    def refuse(*_arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(_own_files.os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        open_own(shared / "a")


def test_a_new_file_is_made_only_under_a_free_name(shared):
    descriptor = create(shared / "a")
    assert descriptor is not None
    os.close(descriptor)
    assert create(shared / "a") is None


def test_a_thousand_traps_are_an_error(shared):
    for number in range(1_000):
        (shared / ("a.mp4.part" if number == 0 else f"a.mp4.{number + 1}.part")).mkdir()
    with pytest.raises(FileExistsError, match="all names for its partial file are taken"):
        open_locked(shared / "a.mp4")


# Modes


@pytest.fixture(params=[0o022, 0o000, 0o077, 0o027], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    assert os.umask(before) == request.param


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


async def test_a_partial_file_is_for_its_owner_alone_and_a_video_follows_the_umask(umask, shared):
    storage = Storage(VIDEO, cuts=[6000])
    with pytest.raises(DownloadError):
        await save(shared / "a.mp4", storage)
    assert {path.name: mode_of(path) for path in shared.iterdir()} == {
        "a.mp4.part": 0o600,
        "a.mp4.part.json": 0o600,
    }
    await save(shared / "a.mp4", storage)
    assert {path.name: mode_of(path) for path in shared.iterdir()} == {"a.mp4": 0o666 & ~umask}


@pytest.mark.parametrize("content", [None, "Name:\tpython\n"], ids=["no file", "an older system"])
def test_a_umask_that_cannot_be_read_is_found_all_the_same(umask, shared, monkeypatch, content):
    def read_text(*_arguments, **_options):
        if content is None:
            raise FileNotFoundError
        return content

    monkeypatch.setattr(Path, "read_text", read_text)
    descriptor = create(shared / "a")
    _own_files.give_usual_mode(descriptor)
    os.close(descriptor)
    assert mode_of(shared / "a") == 0o666 & ~umask


def test_a_file_system_without_modes_takes_a_video_all_the_same(shared, monkeypatch):
    def refuse(_descriptor, _mode):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    descriptor = create(shared / "a")
    monkeypatch.setattr(os, "fchmod", refuse)
    _own_files.give_usual_mode(descriptor)
    monkeypatch.delattr(os, "fchmod")  # a system without modes
    _own_files.give_usual_mode(descriptor)
    os.close(descriptor)
    assert mode_of(shared / "a") == 0o600
