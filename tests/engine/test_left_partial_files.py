"""Partial files that killed processes leave of a video that another process has saved meanwhile."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import pytest
from virtual_service import VirtualLoop, session_for
from virtual_storage import Storage, job_with, video

from kling_async._engine.download.file_lock import open_locked, remove_partial_files
from kling_async._engine.download.output_folder import FileDestination, OutputFolder
from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._policy.http_ranges import FileVersion, dump, load
from kling_async.events import Notifier

KILLED = Path(__file__).with_name("killed_downloads.py")
VIDEO = video(10_000)
JOB = job_with(request_id="6f1c52a0-5d0e-4f4b-9f53-b61ed3a7f90c")
NOTE = dump(FileVersion(request_id=JOB.request_id, size_bytes=10_000, validator='"v1"', digest=None))
OTHER = dump(FileVersion(request_id="another", size_bytes=10_000, validator='"v1"', digest=None))


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.mp4"


async def save(path):
    """Save the video, as a process does that no other one disturbs."""
    session = session_for(Storage(VIDEO).service())
    emit = session.api.emitter(Notifier(None))
    return await session.downloader.download(JOB, FileDestination(path, JOB.request_id), emit=emit)


def find_saved(path, *, index=0):
    """What a later run does with a video that the journal says to be saved."""
    return anyio.run(
        OutputFolder(path.parent, has_ascii_names=False).find_saved, make_entry(path, index=index)
    )


def make_entry(path, *, index=0):
    return Entry(
        number=1,
        identity=Identity(None, "f", 0),
        model="kling-v2-6",
        payload={"prompt": "p"},
        state=EntryState.SUCCEEDED,
        request_id=JOB.request_id,
        path=str(path),
        size_bytes=len(VIDEO),
        index=index,
    )


def leave(path, number=2, *, note=NOTE):
    """Put a partial file and its note beside a destination; the file is empty without a whole note, as a kill leaves it."""
    partial = path.with_name(f"{path.name}.part" if number == 1 else f"{path.name}.{number}.part")
    partial.touch(0o600)
    partial.write_bytes(VIDEO[:5_000] if note else b"")
    if note is not None:
        partial.with_name(f"{partial.name}.json").write_text(note)
    return partial


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module", params=["whole", "given up", "cancelled"])
def killed(request, tmp_path_factory):
    """The folder of `kill_at_each_step`, for each way a download ends."""
    folder = tmp_path_factory.mktemp("killed")
    kill_at_each_step(folder, request.param)
    return folder


def kill_at_each_step(folder, ending):
    """One folder for each step of a download before which its process was killed; the last one came to its end."""
    command = [sys.executable, KILLED, folder, ending, JOB.request_id]
    subprocess.run(command, check=True, timeout=120)  # noqa: S603 - our own
    return sorted(folder.iterdir())


@pytest.mark.unmeasured
@pytest.mark.parametrize("is_second", [False, True], ids=["NAME.part", "NAME.2.part"])
async def test_whatever_step_a_process_is_killed_at_the_next_save_leaves_the_video_alone(
    tmp_path, killed, is_second
):
    folders = sorted(shutil.copytree(killed, tmp_path, dirs_exist_ok=True).iterdir())
    assert len(folders) > 5
    for folder in folders:
        for left in folder.glob("a.mp4.part*") if is_second else ():
            left.rename(folder / left.name.replace("mp4.part", "mp4.2.part"))
        await save(folder / "a.mp4")
        assert names(folder) == ["a.mp4"], folder.name
        assert (folder / "a.mp4").read_bytes() == VIDEO


def test_a_whole_file_that_still_has_its_former_name_too_keeps_its_bytes(path):
    """A finished file gets its final name before it loses the other: a kill between the two leaves both."""
    path.write_bytes(VIDEO)
    os.link(path, path.with_name("a.mp4.part"))
    assert find_saved(path) == path
    assert path.read_bytes() == VIDEO


@pytest.mark.parametrize("give_name", [os.link, os.rename])
def test_a_partial_file_that_got_the_name_of_the_video_is_not_emptied(path, give_name):
    """As where a process saves the video, and cannot remove the former name of the file then, or another program does so."""
    locked_file = open_locked(path)
    with locked_file.file as file:
        file.write(VIDEO)
        file.flush()
        give_name(locked_file.path, path)
        locked_file.remove()
    assert names(path.parent) == ["a.mp4"]
    assert path.read_bytes() == VIDEO


@pytest.mark.unmeasured
def test_whatever_step_a_process_is_killed_at_that_removes_them_a_later_run_removes_the_remaining_ones(
    tmp_path,
):
    folders = kill_at_each_step(tmp_path, "removes")
    assert (
        len({tuple(names(folder)) for folder in folders}) == 5
    )  # two files and two notes, one after the other
    for folder in folders:
        path = folder / "a.mp4"
        path.write_bytes(VIDEO)
        assert find_saved(path) == path
        assert names(folder) == ["a.mp4"], folder.name


async def test_a_file_that_a_live_process_writes_stays_and_a_later_run_removes_it_when_that_one_is_dead(path):
    locked_file = open_locked(path)
    locked_file.write_note(load(NOTE))
    with locked_file.file as stopped:
        stopped.write(b"begun")
        assert (await save(path)).path == path
        assert names(path.parent) == ["a.mp4", "a.mp4.part", "a.mp4.part.json"]
        await anyio.to_thread.run_sync(find_saved, path)
        assert names(path.parent) == ["a.mp4", "a.mp4.part", "a.mp4.part.json"]
    await anyio.to_thread.run_sync(find_saved, path)
    assert names(path.parent) == ["a.mp4"]


@pytest.mark.parametrize("note", [NOTE, NOTE.replace(JOB.request_id, JOB.request_id.upper()), "", None])
def test_each_file_of_the_job_or_of_no_job_is_removed(path, note):
    path.write_bytes(VIDEO)
    for number in (1, 2, 5):
        leave(path, number, note=note)
    find_saved(path)
    assert names(path.parent) == ["a.mp4"]


@pytest.mark.parametrize(
    "saved", ["00001-p-6f1c52a0.mp4", "00001-p-6f1c52a0-6f1c52a0.mp4", "00007-p-6f1c52a0.mp4"]
)
def test_files_beside_another_name_of_the_job_are_removed(tmp_path, saved):
    """The video can have got another name than its first one; the files of that have no note, or are of another index."""
    path = tmp_path / saved
    path.write_bytes(VIDEO)
    for number in (1, 2, 9):
        leave(tmp_path / "00001-p-6f1c52a0.mp4", number, note=None)
    leave(tmp_path / "00003-p-6f1c52a0.mp4")
    other = [leave(tmp_path / "00003-p-6f1c52a0.mp4", 3, note=None), leave(tmp_path / "b.mp4", note=OTHER)]
    find_saved(path, index=1)
    assert {left for left in tmp_path.iterdir() if left.suffix == ".part"} == set(other)


async def test_the_folder_is_read_once_for_all_videos_of_a_batch(path, monkeypatch):
    paths = [path.with_name(f"{number}.mp4") for number in range(20)]
    for each in paths:
        each.write_bytes(VIDEO)
    read, scan = [], os.scandir

    def scan_and_note(folder):
        read.append(threading.current_thread())
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scan_and_note)
    folder = OutputFolder(path.parent, has_ascii_names=False)
    assert await asyncio.gather(*(folder.find_saved(make_entry(each)) for each in paths)) == paths
    assert await folder.find_saved(make_entry(paths[0])) == paths[0]
    [thread] = read
    assert thread is not threading.current_thread()


async def test_a_saved_video_is_found_also_in_a_folder_that_cannot_be_read(path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path.write_bytes(VIDEO)
    left = leave(path)
    monkeypatch.setattr(os, "scandir", refuse)
    assert await OutputFolder(path.parent, has_ascii_names=False).find_saved(make_entry(path)) == path
    assert left.exists()


async def test_the_file_of_another_job_with_the_same_name_stays(path):
    leave(path, note=OTHER)
    await save(path)
    assert await anyio.to_thread.run_sync(find_saved, path) == path
    assert names(path.parent) == ["a.mp4", "a.mp4.2.part", "a.mp4.2.part.json"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_of_the_user_with_such_a_name_stays(path, mode):
    path.write_bytes(VIDEO)
    leave(path, 1, note=None).write_bytes(b"mine")
    path.with_name("a.mp4.part").chmod(mode)
    leave(path, 2, note=None)
    find_saved(path)
    assert names(path.parent) == ["a.mp4", "a.mp4.part"]
    assert path.with_name("a.mp4.part").read_bytes() == b"mine"


@pytest.mark.parametrize("note", ["{", OTHER.replace("another", "")])
def test_a_file_whose_note_cannot_be_read_stays(path, note):
    path.write_bytes(VIDEO)
    leave(path, note=note)
    find_saved(path)
    assert names(path.parent) == ["a.mp4", "a.mp4.2.part", "a.mp4.2.part.json"]


def test_a_new_file_beside_a_note_that_a_kill_has_cut_is_removed(path):
    path.write_bytes(VIDEO)
    open_locked(path).file.close()
    path.with_name("a.mp4.part.json").write_text(NOTE[:-5])
    find_saved(path)
    assert names(path.parent) == ["a.mp4"]


def test_nothing_is_removed_for_a_video_that_is_not_whole(path):
    path.write_bytes(VIDEO[:-1])
    left = leave(path)
    assert find_saved(path) is None
    assert left.exists()


@pytest.mark.parametrize("lacks", ["module", "file system"])
def test_without_locks_nothing_is_removed(path, lacks, monkeypatch):
    def fail(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if lacks == "module":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", fail)
    left = leave(path)
    remove_partial_files(path, request_id=JOB.request_id)
    assert left.exists()


async def test_a_video_is_saved_also_if_an_old_file_cannot_be_opened(path, monkeypatch):
    left = leave(path)
    true_open = os.open

    def open_few(file, *rest):
        if file == left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return true_open(file, *rest)

    monkeypatch.setattr(os, "open", open_few)
    assert (await save(path)).path == path
    assert left.exists()


async def test_a_saved_video_is_found_also_if_nothing_can_be_removed(path, monkeypatch):
    path.write_bytes(VIDEO)
    left = leave(path)

    def refuse(file, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "unlink", refuse)
    assert await anyio.to_thread.run_sync(find_saved, path) == path
    assert left.exists()
