from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import json
import math
import sys
import threading

import anyio
import pytest
from virtual_service import Stream, Streamed

from kling_async._engine.clock import Clock
from kling_async._engine.download import partial_file as room
from kling_async._engine.download.partial_file import AdaptiveWriter, PartialFile, sha256_of
from kling_async._policy.http_ranges import FileVersion

V1 = FileVersion(request_id="job-1", size_bytes=10, validator='"v1"', md5=None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.mp4"


def opened(path, *, request_id, disk=None):
    return room.opened(path, request_id=request_id, disk=disk or AdaptiveWriter(Clock()))


def names(path):
    return sorted(other.name for other in path.parent.iterdir())


def in_pieces(*pieces):
    return Streamed(Stream(200, list(pieces)).body()).pipe_to


async def begun(path, content=b"begin", *, version=V1, request_id="job-1"):
    """Leave a part behind, as a process does that goes on no further."""
    async with opened(path, request_id=request_id) as part:
        await part.write(in_pieces(content), version, at=0, most=100)


async def test_a_part_is_written_from_where_it_goes_on_and_gets_its_name_when_it_is_kept(path):
    async with opened(path, request_id="job-1") as part:
        assert await part.write(in_pieces(b"begun!!", b"!"), V1, at=0, most=10)
        assert names(path) == ["a.mp4.part", "a.mp4.part.json"]
        assert part.resumes_at == 8
        assert await part.write(in_pieces(b"and ", b"done"), V1, at=5, most=13)
        assert part.size == 13
        assert await anyio.to_thread.run_sync(part.md5) == _md5(b"begunand done")
        part.keep(digest=False)
    assert names(path) == ["a.mp4"]
    assert path.read_bytes() == b"begunand done"


def _md5(content):
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


async def test_the_digest_is_of_the_whole_file(path):
    await begun(path)
    async with opened(path, request_id="job-1") as part:
        await part.write(in_pieces(b" done"), V1, at=5, most=10)
        assert part.keep(digest=True) == hashlib.sha256(b"begin done").hexdigest() == sha256_of(path)


async def test_pieces_that_pass_the_limit_are_not_written(path):
    async with opened(path, request_id="job-1") as part:
        assert not await part.write(in_pieces(b"12345", b"6"), V1, at=0, most=5)
        assert part.size == 5


async def test_what_an_earlier_run_left_is_gone_on_with(path):
    await begun(path)
    async with opened(path, request_id="job-1") as part:
        assert (part.version, part.size, part.resumes_at) == (V1, 5, 5)


async def test_of_what_is_whole_already_one_byte_is_asked_for_again(path):
    await begun(path, b"0123456789")
    async with opened(path, request_id="job-1") as part:
        assert (part.size, part.resumes_at) == (10, 9)


@pytest.mark.parametrize(
    "note",
    [
        None,
        "",
        "\udcff",
        '{"request_id": "job-1"}',
        json.dumps({"request_id": "job-2", "size_bytes": 10, "validator": '"v1"', "md5": None}),
        json.dumps({"request_id": "job-1", "size_bytes": 4, "validator": '"v1"', "md5": None}),
        json.dumps({"request_id": "job-1", "size_bytes": None, "validator": '"v1"', "md5": None}),
        json.dumps({"request_id": "job-1", "size_bytes": 10, "validator": None, "md5": None}),
    ],
    ids=["none", "empty", "no text", "half", "of another job", "longer than whole", "of no length", "unsure"],
)
async def test_a_part_that_is_not_provably_of_this_video_is_begun_anew(path, note):
    await begun(path)
    left = path.with_name("a.mp4.part.json")
    if note is None:
        left.unlink()
    else:
        left.write_text(note, errors="surrogateescape")
    async with opened(path, request_id="job-1") as part:
        assert (part.version, part.size, part.resumes_at) == (None, 0, 0)
        await part.write(in_pieces(b"new"), V1, at=0, most=10)
        part.keep(digest=False)
    assert path.read_bytes() == b"new"
    assert names(path) == ["a.mp4"]


async def test_a_note_is_of_what_was_written_last(path):
    v2 = FileVersion(request_id="job-1", size_bytes=20, validator='"v2"', md5=None)
    async with opened(path, request_id="job-1") as part:
        await part.write(in_pieces(b"begin"), V1, at=0, most=10)
        await part.write(in_pieces(b"other"), v2, at=0, most=20)
    async with opened(path, request_id="job-1") as part:
        assert (part.version, part.size) == (v2, 5)


@pytest.mark.parametrize(
    "version",
    [
        FileVersion(request_id="job-1", size_bytes=10, validator=None, md5=None),
        FileVersion(request_id="job-1", size_bytes=None, validator=None, md5=None),
    ],
    ids=["no validator", "nothing known"],
)
async def test_what_nobody_can_go_on_with_is_not_left_behind(path, version):
    await begun(path, version=version)
    assert names(path) == []


async def test_an_empty_part_is_not_left_behind(path):
    await begun(path, b"")
    assert names(path) == []


async def test_what_is_of_no_use_is_gone_at_once_even_if_the_process_is_killed_then(path):
    async with opened(path, request_id="job-1") as part:
        await part.write(in_pieces(b"wrong"), V1, at=0, most=10)
        await part.empty()
        assert (part.size, part.version, part.resumes_at) == (0, None, 0)
        assert path.with_name("a.mp4.part").read_bytes() == b""
        assert names(path) == ["a.mp4.part"]


async def test_no_note_of_an_earlier_version_stands_beside_a_later_one(path):
    unsure = FileVersion(request_id="job-1", size_bytes=10, validator=None, md5=None)
    async with opened(path, request_id="job-1") as part:
        await part.write(in_pieces(b"begin"), V1, at=0, most=10)
        await part.write(in_pieces(b"other"), unsure, at=0, most=10)
        assert names(path) == ["a.mp4.part"]


async def test_two_at_once_do_not_mix_their_bytes(path):
    async with opened(path, request_id="job-1") as one, opened(path, request_id="job-1") as two:
        await one.write(in_pieces(b"one"), V1, at=0, most=10)
        await two.write(in_pieces(b"two!"), V1, at=0, most=10)
        one.keep(digest=False)
        assert path.read_bytes() == b"one"
        two.keep(digest=False)
        assert path.read_bytes() == b"two!"
    assert names(path) == ["a.mp4"]


async def test_without_locks_a_part_is_kept_or_removed_but_never_left(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    await begun(path)
    assert names(path) == []
    async with opened(path, request_id="job-1") as part:
        await part.write(in_pieces(b"whole"), V1, at=0, most=10)
        part.keep(digest=True)
    assert names(path) == ["a.mp4"]


async def test_a_destination_that_is_a_folder_is_refused_before_anything_is_fetched(tmp_path):
    with pytest.raises(IsADirectoryError):
        async with opened(tmp_path, request_id="job-1"):
            pass


async def test_a_name_that_no_file_can_have_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="null") as caught:
        async with opened(tmp_path / "a\0.mp4", request_id="job-1"):
            pass
    assert caught.value.errno == errno.EINVAL


async def test_a_file_that_gets_no_name_is_not_left_behind(path):
    with pytest.raises(IsADirectoryError):
        async with opened(path, request_id="job-1") as part:
            await part.write(in_pieces(b"whole"), V1, at=0, most=10)
            path.mkdir()
            part.keep(digest=False)
    assert names(path) == ["a.mp4"]


async def test_a_part_that_somebody_took_away_is_no_second_error(path):
    with pytest.raises(OSError, match="full"):
        async with opened(path, request_id="job-1") as part:
            part._claim.path.unlink()
            raise OSError(errno.ENOSPC, "full")


async def test_a_folder_that_cannot_be_flushed_holds_the_file_all_the_same(path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError

    async with opened(path, request_id="job-1") as part:
        await part.write(in_pieces(b"whole"), V1, at=0, most=10)
        monkeypatch.setattr(room.os, "open", refuse)
        part.keep(digest=False)
        monkeypatch.undo()
    assert path.read_bytes() == b"whole"


async def test_the_file_is_flushed_before_it_gets_its_name_and_its_folder_after(path, monkeypatch):
    flushed = []
    true_fsync = room.os.fsync

    def fsync(descriptor):
        flushed.append(path.exists())
        true_fsync(descriptor)

    monkeypatch.setattr(room.os, "fsync", fsync)
    async with opened(path, request_id="job-1") as part:
        await part.write(in_pieces(b"whole"), V1, at=0, most=10)
        part.keep(digest=False)
    assert flushed == [False, True]


async def test_the_disk_begins_with_what_is_written_while_the_rest_comes(path, monkeypatch):
    begun = []
    monkeypatch.setattr(room, "_HASTENED_BYTES", 4)
    monkeypatch.setattr(
        room.os,
        "posix_fadvise",
        lambda _, at, length, advice: begun.append((at, length, path.with_name("a.mp4.part").stat().st_size)),
    )
    async with opened(path, request_id="job-1") as part:
        await part.write(in_pieces(b"12", b"345", b"67", b"8"), V1, at=0, most=10)
        await part.write(in_pieces(b"9abcdef"), V1, at=8, most=20)
        part.keep(digest=False)
    assert begun == [(0, 5, 5), (8, 7, 15)]
    assert path.read_bytes() == b"123456789abcdef"


async def test_a_system_that_takes_no_advice_gets_none(path, monkeypatch):
    monkeypatch.setattr(room, "_HASTENED_BYTES", 4)
    monkeypatch.delattr(room.os, "posix_fadvise", raising=False)
    async with opened(path, request_id="job-1") as part:
        await part.write(in_pieces(b"12345", b"67890"), V1, at=0, most=10)
        part.keep(digest=False)
    assert path.read_bytes() == b"1234567890"


async def test_what_a_cancelled_task_asked_for_comes_too_late_for_a_closed_part(path):
    """A thread that was started before the task was cancelled may begin after the part was closed."""
    part = PartialFile(path, request_id="job-1", disk=AdaptiveWriter(Clock()))
    part.close()
    part.open()
    assert names(path) == []
    assert await part.write(in_pieces(b"late"), V1, at=0, most=10)
    assert names(path) == []


async def test_cancelled_between_two_pieces_it_leaves_what_can_be_gone_on_with(path):
    is_written = anyio.Event()

    async def endless():
        yield b"begin"
        is_written.set()
        await asyncio.Event().wait()

    async def write():
        async with opened(path, request_id="job-1") as part:
            await part.write(Streamed(endless()).pipe_to, V1, at=0, most=10)

    task = asyncio.create_task(write())
    await is_written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with opened(path, request_id="job-1") as part:
        assert part.size == 5


class Rotating:
    """The clock of a disk that takes long for some bytes; only writing takes time."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time


async def test_after_a_write_that_took_long_threads_write_for_a_while():
    clock = Rotating()
    disk = AdaptiveWriter(clock)

    def is_slow_after(seconds):
        disk.do(lambda: setattr(clock, "time", clock.time + seconds))
        return disk.is_slow

    assert [is_slow_after(seconds) for seconds in (0.001, 0.02, 0.021)] == [False, False, True]
    clock.time += 59.0
    assert disk.is_slow
    clock.time += 1.0
    assert not disk.is_slow


@pytest.mark.parametrize("slow", [False, True], ids=["at once", "in threads"])
async def test_a_part_is_the_same_whoever_writes_it(path, slow, monkeypatch):
    disk, writers = AdaptiveWriter(Clock()), []
    if slow:
        disk._slow_until = math.inf

    def note(*arguments):
        writers.append(threading.current_thread() is threading.main_thread())

    monkeypatch.setattr(room, "_HASTENED_BYTES", 1)
    monkeypatch.setattr(room.os, "posix_fadvise", note)
    async with opened(path, request_id="job-1", disk=disk) as part:
        await part.write(in_pieces(b"12345", memoryview(b"67890")), V1, at=0, most=10)
        part.keep(digest=False)
    assert path.read_bytes() == b"1234567890"
    assert writers == [not slow, not slow]


async def test_a_piece_that_a_thread_writes_is_a_copy(path):
    """The next piece may come into the same memory."""
    disk, piece = AdaptiveWriter(Clock()), bytearray(b"begin")
    disk._slow_until = math.inf

    async def pieces():
        yield memoryview(piece)

    class Reused(Streamed):
        async def pipe_to(self, sink):
            is_all = await super().pipe_to(sink)
            piece[:] = b"other"
            return is_all

    async with opened(path, request_id="job-1", disk=disk) as part:
        await part.write(Reused(pieces()).pipe_to, V1, at=0, most=10)
        part.keep(digest=False)
    assert path.read_bytes() == b"begin"


async def test_it_is_told_of_growth_when_it_is_time_and_in_a_task(path):
    clock, told = Rotating(), []

    async def pieces():
        for _ in range(6):
            clock.time += 1.0
            yield b"!"

    async with opened(path, request_id="job-1", disk=AdaptiveWriter(clock)) as part:

        def tell():
            assert asyncio.current_task() is not None
            part.tells_at = clock.time + 2.5
            told.append((clock.time, part.size))

        part.on_growth = tell
        await part.write(Streamed(pieces()).pipe_to, V1, at=0, most=10)
    assert told == [(1.0, 1), (4.0, 4)]


async def test_what_the_disk_says_against_a_piece_is_raised(path, monkeypatch):
    monkeypatch.setattr(room, "_HASTENED_BYTES", 1)

    def refuse(*arguments):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(room.os, "posix_fadvise", refuse)
    with pytest.raises(OSError, match="broken"):
        async with opened(path, request_id="job-1") as part:
            await part.write(in_pieces(b"12345"), V1, at=0, most=10)
    assert names(path) == []
