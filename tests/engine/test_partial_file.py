from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import math
import os
import sys
import threading

import anyio
import attrs
import pytest
from virtual_service import Stream, Streamed

from kling_async._engine.clock import Clock
from kling_async._engine.download import partial_file as module
from kling_async._engine.download.partial_file import AdaptiveWriter, PartialFile, sha256_of
from kling_async._policy.http_ranges import FileVersion, dump, load

V1 = FileVersion(request_id="job-1", size_bytes=10, validator='"v1"', digest=None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.mp4"


def open_partial(path, *, request_id, writer=None):
    return module.open_partial(path, request_id=request_id, writer=writer or AdaptiveWriter(Clock()))


def names(path):
    return sorted(other.name for other in path.parent.iterdir())


def in_pieces(*pieces):
    return Streamed(Stream(200, list(pieces)).body()).pipe_to


async def leave_partial(path, content=b"begin", *, version=V1, request_id="job-1"):
    """Leave a partial file behind, as a process does that is killed."""
    async with open_partial(path, request_id=request_id) as partial_file:
        await partial_file.write(in_pieces(content), version, offset=0, max_bytes=100)


async def test_a_file_is_written_from_any_offset_and_gets_its_name_when_it_is_committed(path):
    async with open_partial(path, request_id="job-1") as partial_file:
        assert await partial_file.write(in_pieces(b"begun!!", b"!"), V1, offset=0, max_bytes=10)
        assert names(path) == ["a.mp4.part", "a.mp4.part.json"]
        assert partial_file.resume_offset == 8
        assert await partial_file.write(in_pieces(b"and ", b"done"), V1, offset=5, max_bytes=13)
        assert partial_file.size == 13
        assert partial_file.has_digest(_digest("md5", b"begunand done"))
        assert partial_file.has_digest(_digest("sha512", b"begunand done"))
        assert not partial_file.has_digest(_digest("sha512", b"begunand don"))
        partial_file.commit(digest=False)
    assert names(path) == ["a.mp4"]
    assert path.read_bytes() == b"begunand done"


def _digest(name, content):
    return f"{name}={base64.b64encode(hashlib.new(name, content).digest()).decode()}"


async def test_the_digest_is_of_the_whole_file(path):
    await leave_partial(path)
    async with open_partial(path, request_id="job-1") as partial_file:
        await partial_file.write(in_pieces(b" done"), V1, offset=5, max_bytes=10)
        assert (
            partial_file.commit(digest=True) == hashlib.sha256(b"begin done").hexdigest() == sha256_of(path)
        )


async def test_pieces_that_pass_the_limit_are_not_written(path):
    async with open_partial(path, request_id="job-1") as partial_file:
        assert not await partial_file.write(in_pieces(b"12345", b"6"), V1, offset=0, max_bytes=5)
        assert partial_file.size == 5


async def test_the_bytes_of_an_earlier_run_are_restored(path):
    await leave_partial(path)
    async with open_partial(path, request_id="job-1") as partial_file:
        assert (partial_file.version, partial_file.size, partial_file.resume_offset) == (V1, 5, 5)


async def test_the_download_of_a_whole_file_resumes_at_its_last_byte(path):
    await leave_partial(path, b"0123456789")
    async with open_partial(path, request_id="job-1") as partial_file:
        assert (partial_file.size, partial_file.resume_offset) == (10, 9)


@pytest.mark.parametrize(
    "fields",
    [
        {"request_id": "job-2"},
        {"size_bytes": 4},
        {"size_bytes": None},
        {"validator": None},
    ],
    ids=["of another job", "longer than whole", "no length", "no validator"],
)
async def test_bytes_that_are_not_provably_of_this_video_are_not_restored(path, fields):
    await leave_partial(path)
    path.with_name("a.mp4.part.json").write_text(dump(attrs.evolve(V1, **fields)))
    async with open_partial(path, request_id="job-1") as partial_file:
        assert (partial_file.version, partial_file.size, partial_file.resume_offset) == (None, 0, 0)
        await partial_file.write(in_pieces(b"new"), V1, offset=0, max_bytes=10)
        partial_file.commit(digest=False)
    assert path.read_bytes() == b"new"
    assert names(path) == ["a.mp4"]


@pytest.mark.parametrize(
    "note",
    [None, "", "\udcff", '{"request_id": "job-1"}', dump(V1)[:-1]],
    ids=["none", "empty", "no text", "half", "cut"],
)
async def test_bytes_without_a_note_that_can_be_read_are_left_alone(path, note):
    """Another program may have written them, also under a umask that gives each file the mode of ours."""
    await leave_partial(path)
    note_path = path.with_name("a.mp4.part.json")
    if note is None:
        note_path.unlink()
    else:
        note_path.write_text(note, errors="surrogateescape")
    async with open_partial(path, request_id="job-1") as partial_file:
        assert partial_file.size == 0
        await partial_file.write(in_pieces(b"new"), V1, offset=0, max_bytes=10)
        partial_file.commit(digest=False)
    assert path.read_bytes() == b"new"
    assert path.with_name("a.mp4.part").read_bytes() == b"begin"


async def test_the_note_is_of_the_version_that_was_written_last(path):
    v2 = FileVersion(request_id="job-1", size_bytes=20, validator='"v2"', digest=None)
    async with open_partial(path, request_id="job-1") as partial_file:
        await partial_file.write(in_pieces(b"begin"), V1, offset=0, max_bytes=10)
        await partial_file.write(in_pieces(b"other"), v2, offset=0, max_bytes=20)
    async with open_partial(path, request_id="job-1") as partial_file:
        assert (partial_file.version, partial_file.size) == (v2, 5)


@pytest.mark.parametrize(
    "version",
    [
        FileVersion(request_id="job-1", size_bytes=10, validator=None, digest=None),
        FileVersion(request_id="job-1", size_bytes=None, validator=None, digest=None),
    ],
    ids=["no validator", "nothing known"],
)
async def test_a_file_that_cannot_be_resumed_is_removed(path, version):
    await leave_partial(path, version=version)
    assert names(path) == []


async def test_a_file_whose_note_cannot_be_written_is_removed_if_its_download_ends_early(path):
    """No later run could know the file."""
    path.with_name("a.mp4.part.json").mkdir()
    await leave_partial(path)
    assert names(path) == ["a.mp4.part.json"]


async def test_a_note_that_is_written_in_part_is_removed_again(path, monkeypatch):
    def fill_the_disk(version):
        monkeypatch.undo()
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr("kling_async._engine.download.file_lock.dump", fill_the_disk)
    async with open_partial(path, request_id="job-1") as partial_file:
        await partial_file.write(in_pieces(b"begin"), V1, offset=0, max_bytes=100)
        assert names(path) == ["a.mp4.part"]
        await partial_file.write(in_pieces(b"other"), V1, offset=0, max_bytes=100)
        assert names(path) == ["a.mp4.part", "a.mp4.part.json"]
    assert names(path) == ["a.mp4.part", "a.mp4.part.json"]


async def test_an_empty_file_is_removed(path):
    await leave_partial(path, b"")
    assert names(path) == []


async def test_truncating_removes_bytes_and_note_at_once(path):
    async with open_partial(path, request_id="job-1") as partial_file:
        await partial_file.write(in_pieces(b"wrong"), V1, offset=0, max_bytes=10)
        await partial_file.truncate()
        assert (partial_file.size, partial_file.version, partial_file.resume_offset) == (0, None, 0)
        assert path.with_name("a.mp4.part").read_bytes() == b""
        assert names(path) == ["a.mp4.part"]


async def test_the_note_of_an_earlier_version_is_replaced_with_its_bytes(path):
    unsure = FileVersion(request_id="job-1", size_bytes=10, validator=None, digest=None)
    async with open_partial(path, request_id="job-1") as partial_file:
        await partial_file.write(in_pieces(b"begin"), V1, offset=0, max_bytes=10)
        await partial_file.write(in_pieces(b"other"), unsure, offset=0, max_bytes=10)
        assert load(path.with_name("a.mp4.part.json").read_text()) == unsure


async def test_two_downloads_to_one_path_do_not_mix_their_bytes(path):
    async with open_partial(path, request_id="job-1") as one, open_partial(path, request_id="job-1") as two:
        await one.write(in_pieces(b"one"), V1, offset=0, max_bytes=10)
        await two.write(in_pieces(b"two!"), V1, offset=0, max_bytes=10)
        one.commit(digest=False)
        assert path.read_bytes() == b"one"
        two.commit(digest=False)
        assert path.read_bytes() == b"two!"
    assert names(path) == ["a.mp4"]


async def test_without_locks_a_file_is_committed_or_removed_but_never_left(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    await leave_partial(path)
    assert names(path) == []
    async with open_partial(path, request_id="job-1") as partial_file:
        await partial_file.write(in_pieces(b"whole"), V1, offset=0, max_bytes=10)
        partial_file.commit(digest=True)
    assert names(path) == ["a.mp4"]


async def test_a_destination_that_is_a_folder_is_an_error_at_the_start(tmp_path):
    with pytest.raises(IsADirectoryError):
        async with open_partial(tmp_path, request_id="job-1"):
            pass


async def test_a_name_that_no_file_can_have_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="null") as caught:
        async with open_partial(tmp_path / "a\0.mp4", request_id="job-1"):
            pass
    assert caught.value.errno == errno.EINVAL


async def test_a_file_that_cannot_be_renamed_is_removed(path):
    with pytest.raises(IsADirectoryError):
        async with open_partial(path, request_id="job-1") as partial_file:
            await partial_file.write(in_pieces(b"whole"), V1, offset=0, max_bytes=10)
            path.mkdir()
            partial_file.commit(digest=False)
    assert names(path) == ["a.mp4"]


async def test_a_file_that_another_program_removed_causes_no_second_error(path):
    with pytest.raises(OSError, match="full"):
        async with open_partial(path, request_id="job-1") as partial_file:
            partial_file._locked_file.path.unlink()
            raise OSError(errno.ENOSPC, "full")


async def test_a_file_is_committed_even_if_its_folder_cannot_be_flushed(path, monkeypatch):
    def fail(*arguments):
        raise PermissionError

    async with open_partial(path, request_id="job-1") as partial_file:
        await partial_file.write(in_pieces(b"whole"), V1, offset=0, max_bytes=10)
        monkeypatch.setattr(module.os, "open", fail)
        partial_file.commit(digest=False)
        monkeypatch.undo()
    assert path.read_bytes() == b"whole"


async def test_the_file_is_flushed_before_it_gets_its_name_and_its_folder_after(path, monkeypatch):
    flushed = []
    true_fsync = module.os.fsync

    def fsync(descriptor):
        flushed.append(path.exists())
        true_fsync(descriptor)

    monkeypatch.setattr(module.os, "fsync", fsync)
    async with open_partial(path, request_id="job-1") as partial_file:
        await partial_file.write(in_pieces(b"whole"), V1, offset=0, max_bytes=10)
        partial_file.commit(digest=False)
    assert flushed == [False, True]


async def test_the_system_begins_to_flush_while_the_remaining_bytes_come(path, monkeypatch):
    flushed = []
    monkeypatch.setattr(module, "_EARLY_FLUSH_BYTES", 4)
    monkeypatch.setattr(
        module.os,
        "posix_fadvise",
        lambda _, offset, length, advice: flushed.append(
            (offset, length, path.with_name("a.mp4.part").stat().st_size)
        ),
    )
    async with open_partial(path, request_id="job-1") as partial_file:
        await partial_file.write(in_pieces(b"12", b"345", b"67", b"8"), V1, offset=0, max_bytes=10)
        await partial_file.write(in_pieces(b"9abcdef"), V1, offset=8, max_bytes=20)
        partial_file.commit(digest=False)
    assert flushed == [(0, 5, 5), (8, 7, 15)]
    assert path.read_bytes() == b"123456789abcdef"


async def test_a_system_without_fadvise_writes_the_same_file(path, monkeypatch):
    monkeypatch.setattr(module, "_EARLY_FLUSH_BYTES", 4)
    monkeypatch.delattr(module.os, "posix_fadvise", raising=False)
    async with open_partial(path, request_id="job-1") as partial_file:
        await partial_file.write(in_pieces(b"12345", b"67890"), V1, offset=0, max_bytes=10)
        partial_file.commit(digest=False)
    assert path.read_bytes() == b"1234567890"


async def test_the_thread_of_a_cancelled_task_changes_nothing_after_the_close(path):
    """A thread that was started before the cancellation can begin after the file was closed."""
    partial_file = PartialFile(path, request_id="job-1", writer=AdaptiveWriter(Clock()))
    partial_file.close()
    partial_file.open()
    assert names(path) == []
    assert await partial_file.write(in_pieces(b"late"), V1, offset=0, max_bytes=10)
    assert names(path) == []


async def test_a_cancellation_between_two_pieces_leaves_a_file_that_can_be_resumed(path):
    is_written = anyio.Event()

    async def endless():
        yield b"begin"
        is_written.set()
        await asyncio.Event().wait()

    async def write():
        async with open_partial(path, request_id="job-1") as partial_file:
            await partial_file.write(Streamed(endless()).pipe_to, V1, offset=0, max_bytes=10)

    task = asyncio.create_task(write())
    await is_written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with open_partial(path, request_id="job-1") as partial_file:
        assert partial_file.size == 5


class ManualClock:
    """A clock that only the test moves."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time


async def test_after_a_slow_write_threads_write_for_a_minute():
    clock = ManualClock()
    writer = AdaptiveWriter(clock)

    def is_slow_after(seconds):
        writer.write(lambda: setattr(clock, "time", clock.time + seconds))
        return writer.is_slow

    assert [is_slow_after(seconds) for seconds in (0.001, 0.02, 0.021)] == [False, False, True]
    clock.time += 59.0
    assert writer.is_slow
    clock.time += 1.0
    assert not writer.is_slow


@pytest.mark.parametrize("slow", [False, True], ids=["at once", "in threads"])
async def test_the_event_loop_and_threads_write_the_same_file(path, slow, monkeypatch):
    writer, writers = AdaptiveWriter(Clock()), []
    if slow:
        writer._slow_until = math.inf

    def record_thread(*arguments):
        writers.append(threading.current_thread() is threading.main_thread())

    monkeypatch.setattr(module, "_EARLY_FLUSH_BYTES", 1)
    monkeypatch.setattr(module.os, "posix_fadvise", record_thread)
    async with open_partial(path, request_id="job-1", writer=writer) as partial_file:
        await partial_file.write(in_pieces(b"12345", memoryview(b"67890")), V1, offset=0, max_bytes=10)
        partial_file.commit(digest=False)
    assert path.read_bytes() == b"1234567890"
    assert writers == [not slow, not slow]


async def test_a_thread_writes_a_copy_of_the_piece(path):
    """The transport can reuse the memory of a piece for the next one."""
    writer, piece = AdaptiveWriter(Clock()), bytearray(b"begin")
    writer._slow_until = math.inf

    async def pieces():
        yield memoryview(piece)

    class Reused(Streamed):
        async def pipe_to(self, sink):
            is_all = await super().pipe_to(sink)
            piece[:] = b"other"
            return is_all

    async with open_partial(path, request_id="job-1", writer=writer) as partial_file:
        await partial_file.write(Reused(pieces()).pipe_to, V1, offset=0, max_bytes=10)
        partial_file.commit(digest=False)
    assert path.read_bytes() == b"begin"


async def test_the_size_is_reported_when_the_file_opens_and_then_at_intervals_in_a_task(path, monkeypatch):
    clock, reports = ManualClock(), []
    monkeypatch.setattr(module, "_REPORT_INTERVAL", 2.5)

    async def pieces():
        for _ in range(6):
            clock.time += 1.0
            yield b"!"

    def report(size_bytes, total_bytes):
        assert asyncio.current_task() is not None
        reports.append((clock.time, size_bytes, total_bytes))

    writer = AdaptiveWriter(clock)
    async with module.open_partial(path, request_id="job-1", writer=writer, report=report) as partial_file:
        await partial_file.write(Streamed(pieces()).pipe_to, V1, offset=0, max_bytes=10)
    assert reports == [(0.0, 0, None), (3.0, 3, 10), (6.0, 6, 10)]


async def test_an_os_error_while_writing_a_piece_is_raised(path, monkeypatch):
    monkeypatch.setattr(module, "_EARLY_FLUSH_BYTES", 1)

    def fail(*arguments):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(module.os, "posix_fadvise", fail)
    with pytest.raises(OSError, match="broken"):
        async with open_partial(path, request_id="job-1") as partial_file:
            await partial_file.write(in_pieces(b"12345"), V1, offset=0, max_bytes=10)
    assert names(path) == []


async def test_a_lack_of_descriptors_leaves_the_bytes_for_the_next_try(path):
    with pytest.raises(OSError, match="Too many open files"):
        async with open_partial(path, request_id="job-1") as partial_file:
            await partial_file.write(in_pieces(b"half"), V1, offset=0, max_bytes=10)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert names(path) == ["a.mp4.part", "a.mp4.part.json"]
