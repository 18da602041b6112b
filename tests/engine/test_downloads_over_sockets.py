"""Downloads from real sockets to real disks."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import pytest
from loopback_proxy import Loopback, run_listener
from virtual_storage import job_with, video

from kling_async import DownloadError, KlingClient, RetryPolicy
from kling_async.emulator import EmulatorSettings, Fault, SlowReply, Stall, TruncatedReply, WrongLength
from kling_async.emulator.settings import ResponseFormat
from kling_async.events import Submitted

HASTE = RetryPolicy(initial_delay=0.001, max_delay=0.01)
ONCE = RetryPolicy(max_retries=0)
MIB = 1024 * 1024

pytestmark = pytest.mark.usefixtures("tiny_films")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def kling_emulator_settings():
    return EmulatorSettings(instant_rate=1.0)


def client_of(emulator, **settings):
    return KlingClient("any-key", base_url=emulator.url, **{"retry": HASTE, **settings})


@attrs.define
class Host:
    """A storage with one file, on a socket; it obeys `Range` and counts the bytes that it sends."""

    content: bytes
    pace: float = 0.0
    """Seconds between two pieces of 256 KiB."""
    redirect_to: str | None = None
    url: str = ""
    heads: list[str] = attrs.field(factory=list)
    sent_bytes: int = 0

    async def answer(self, reader, writer):
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            self.heads.append(head)
            await self._send(writer, head)

    async def _send(self, writer, head):
        if self.redirect_to:
            writer.write(
                f"HTTP/1.1 302 F\r\nLocation: {self.redirect_to}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            return
        size, found = len(self.content), re.search(r"\r\nrange: bytes=(\d+)-", head, re.IGNORECASE)
        at = int(found[1]) if found else 0
        status = f"206 P\r\nContent-Range: bytes {at}-{size - 1}/{size}" if found else "200 OK"
        writer.write(f'HTTP/1.1 {status}\r\nETag: "v1"\r\nContent-Length: {size - at}\r\n\r\n'.encode())
        for start in range(at, size, MIB // 4):
            piece = self.content[start : start + MIB // 4]
            writer.write(piece)
            await writer.drain()
            self.sent_bytes += len(piece)
            await asyncio.sleep(self.pace)


@asynccontextmanager
async def serve(host):
    async with run_listener(host.answer, Loopback()) as server:
        host.url = f"http://127.0.0.1:{server.port}/a.mp4"
        yield host


async def save(host, path, *, retry=HASTE):
    async with KlingClient("key-of-the-tests", base_url="http://127.0.0.1:9", retry=retry) as client:
        return await client.download(job_with(host.url), path)


async def test_a_video_that_is_cut_at_any_tenth_is_saved_whole(kling_emulator, tmp_path):
    async with client_of(kling_emulator) as client:
        job = await client.generate("rain")
        true = (await client.download(job, tmp_path / "true.mp4")).read_bytes()
        for tenth in range(1, 10):
            kling_emulator.faults.add(Fault("media", TruncatedReply(len(true) * tenth // 10)))
            path = await client.download(job, tmp_path / f"{tenth}.mp4")
            assert path.read_bytes() == true
    assert kling_emulator.stats.requests["media"] == 1 + 2 * 9
    assert kling_emulator.stats.credentials_at_storage == 0


class TestWithoutRanges:
    @pytest.fixture
    def kling_emulator_settings(self):
        return EmulatorSettings(instant_rate=1.0, response_format=ResponseFormat(ranges=False))

    async def test_a_cut_video_is_fetched_from_its_beginning(self, kling_emulator, tmp_path):
        async with client_of(kling_emulator) as client:
            job = await client.generate("rain")
            true = (await client.download(job, tmp_path / "true.mp4")).read_bytes()
            kling_emulator.faults.add(Fault("media", TruncatedReply(), times=2))
            assert (await client.download(job, tmp_path / "a.mp4")).read_bytes() == true


@pytest.mark.parametrize("difference_bytes", [1, 1000])
async def test_a_wrong_content_length_is_a_broken_transfer(kling_emulator, tmp_path, difference_bytes):
    kling_emulator.faults.add(Fault("media", WrongLength(difference_bytes)))
    async with client_of(kling_emulator) as client:
        job = await client.generate("rain")
        retried = (await client.download(job, tmp_path / "a.mp4")).read_bytes()
        assert retried == (await client.download(job, tmp_path / "true.mp4")).read_bytes()
        kling_emulator.faults.add(Fault("media", WrongLength(difference_bytes), times=None))
        with pytest.raises(DownloadError, match="was not saved"):
            await client.download(job, tmp_path / "b.mp4")
    assert not (tmp_path / "b.mp4").exists()


async def test_a_stalled_transfer_is_resumed(kling_emulator, tmp_path):
    kling_emulator.faults.add(Fault("media", Stall(5.0)))
    patient = RetryPolicy(max_retries=50, initial_delay=0.001, max_delay=0.01)
    async with client_of(kling_emulator, timeout=1.0, retry=patient) as client:
        job = await client.generate("rain")
        assert (await client.download(job, tmp_path / "a.mp4")).exists()
    assert kling_emulator.stats.requests["media"] >= 2


async def test_no_credential_reaches_the_storage_or_a_host_that_it_redirects_to(tmp_path):
    async with serve(Host(video(1000))) as end, serve(Host(b"", redirect_to=end.url)) as begin:
        path = await save(begin, tmp_path / "a.mp4")
    assert path.read_bytes() == end.content
    for head in begin.heads + end.heads:
        assert "authorization" not in head.lower()
        assert "key-of-the-tests" not in head
        assert "cookie" not in head.lower()


KILLED = """
import asyncio, sys
from kling_async import Job, JobStatus, KlingClient, Media, Outcome

async def main():
    outcome = Outcome(media=(Media(sys.argv[1]),))
    job = Job(request_id="job-1", status=JobStatus.SUCCESS, outcome=outcome)
    async with KlingClient("any-key", base_url="http://127.0.0.1:9") as client:
        await client.download(job, sys.argv[2])

asyncio.run(main())
"""


@pytest.mark.unmeasured
async def test_the_next_process_resumes_a_killed_download(tmp_path):
    path, part = tmp_path / "a.mp4", tmp_path / "a.mp4.part"
    async with serve(Host(video(16 * MIB), pace=0.004)) as host:
        process = subprocess.Popen([sys.executable, "-c", KILLED, host.url, str(path)])  # noqa: ASYNC220, S603
        while not part.exists() or part.stat().st_size < 8 * MIB:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
        assert not path.exists()
        await save(host, path)
    assert path.read_bytes() == host.content
    assert "Range: bytes=" in host.heads[-1]
    assert host.sent_bytes < 1.5 * len(host.content)
    assert [other.name for other in tmp_path.iterdir()] == ["a.mp4"]


@contextmanager
def files_of_at_most(size_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_file_above_the_systems_size_limit_is_removed_and_the_error_says_why(tmp_path):
    async with serve(Host(video(2 * MIB))) as host:
        with files_of_at_most(MIB), pytest.raises(DownloadError, match="File too large") as caught:
            await save(host, tmp_path / "a.mp4")
    assert isinstance(caught.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []
    assert len(host.heads) == 1


@contextmanager
def small_disk(folder, size):
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(  # noqa: S603
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],  # noqa: S607
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607


async def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path):
    with small_disk(tmp_path, "1m"):
        async with serve(Host(video(2 * MIB))) as host:
            with pytest.raises(DownloadError, match="No space left on device"):
                await save(host, tmp_path / "a.mp4")
        assert list(tmp_path.iterdir()) == []


@contextmanager
def as_unprivileged_user():
    """Root can write everywhere, so the block runs as another user."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def closed_folder():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


async def test_a_folder_that_cannot_be_written_is_an_error(closed_folder):
    async with serve(Host(video(1000))) as host:
        with as_unprivileged_user(), pytest.raises(DownloadError, match="Permission denied"):
            await save(host, closed_folder / "a.mp4")
    assert host.heads == []


@asynccontextmanager
async def videos_of(kling_emulator, number):
    """A client, and so many jobs with videos that differ."""
    async with client_of(kling_emulator) as client:
        batch = await client.generate_many([f"rain {n}" for n in range(number)])
        yield client, [result.job for result in batch]


@pytest.mark.parametrize("name", ["clips", "clips/", "more.clips/"])
async def test_three_jobs_that_are_saved_to_a_missing_folder_are_three_files(
    kling_emulator, tmp_path, name, caplog
):
    async with videos_of(kling_emulator, 3) as (client, jobs):
        paths = [await client.download(job, f"{tmp_path}/{name}") for job in jobs]
    assert {path.parent for path in paths} == {tmp_path / name}
    assert len(set(paths)) == 3
    assert not caplog.records


@pytest.mark.parametrize("is_at_once", [False, True])
async def test_the_file_of_another_job_is_never_replaced(kling_emulator, tmp_path, is_at_once, caplog):
    async with videos_of(kling_emulator, 3) as (client, jobs):
        wanted = [
            (await client.download(job, tmp_path / f"{n}.mp4")).read_bytes() for n, job in enumerate(jobs)
        ]
        saves = [client.download(job, tmp_path / "a.mp4") for job in jobs]
        paths = await asyncio.gather(*saves) if is_at_once else [await save for save in saves]
        assert [path.read_bytes() for path in paths] == wanted
        assert sum(path.name == "a.mp4" for path in paths) == 1
        assert len([record for record in caplog.records if "a.mp4' is another file" in record.message]) == 2
        again = [await client.download(job, tmp_path / "a.mp4") for job in jobs]
        assert again == paths
    assert not list(tmp_path.glob("*.part*"))


async def test_a_job_gets_its_own_name_back_and_an_empty_file_is_filled(kling_emulator, tmp_path):
    async with videos_of(kling_emulator, 1) as (client, [job]):
        (tmp_path / "a.mp4").touch()
        assert await client.download(job, tmp_path / "a.mp4") == tmp_path / "a.mp4"
        assert await client.download(job, tmp_path / "a.mp4") == tmp_path / "a.mp4"
        in_folder = await client.download(job, tmp_path)
        assert await client.download(job, tmp_path) == in_folder
        in_folder.write_bytes(b"cut, or another job's")
        beside = await client.download(job, tmp_path)
        assert in_folder.read_bytes() == b"cut, or another job's"
        assert beside.read_bytes() == (tmp_path / "a.mp4").read_bytes()


@pytest.mark.parametrize("size_bytes", [243, 255])
async def test_a_name_as_long_as_the_file_system_takes_is_saved(kling_emulator, tmp_path, size_bytes):
    name = "x" * (size_bytes - 4) + ".mp4"
    async with videos_of(kling_emulator, 2) as (client, jobs):
        for job in jobs:
            assert (await client.download(job, tmp_path / name)).stat().st_size
    assert len(list(tmp_path.iterdir())) == 2


async def test_a_folder_that_cannot_be_made_for_a_download_is_an_error(kling_emulator, tmp_path):
    (tmp_path / "file").touch()
    async with videos_of(kling_emulator, 1) as (client, [job]):
        with pytest.raises(DownloadError, match=r"was not saved to '.+/file/clips': Not a directory"):
            await client.download(job, tmp_path / "file" / "clips")
        with pytest.raises(DownloadError, match="null"):
            await client.download(job, "clips\0/")


@pytest.mark.unmeasured
@pytest.mark.parametrize("how", ["a file", "a broken link"])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_a_spoiled_folder_did_not_take_is_saved_by_the_same_call(
    kling_emulator, tmp_path, how, elsewhere
):
    folder, journal, events = tmp_path / "videos", tmp_path / "run.db", []

    def spoil_at_once(event):
        events.append(event)
        if isinstance(event, Submitted) and folder.is_dir():
            shutil.rmtree(folder)
            folder.touch() if how == "a file" else folder.symlink_to("missing/folder")

    async with client_of(kling_emulator) as client:
        first = await client.generate_many(
            ["rain", "snow"], output=folder, journal=journal, on_event=spoil_at_once
        )
        assert [(result.ok, result.is_unsaved) for result in first] == [(True, True)] * 2
        folder.unlink()
        output = tmp_path / "elsewhere" if elsewhere else folder
        again = await client.generate_many(["rain", "snow"], output=output, journal=journal)
    assert [result.error for result in again] == [None] * 2
    assert {path.parent for path in again.paths} == {output}
    assert kling_emulator.stats.requests["submit"] == 2


async def test_a_folder_that_vanishes_is_made_again(kling_emulator, tmp_path):
    folder = tmp_path / "videos"

    def remove(event):
        if isinstance(event, Submitted) and folder.is_dir():
            folder.rmdir()

    async with client_of(kling_emulator) as client:
        batch = await client.generate_many(["rain", "snow"], output=folder, on_event=remove)
    assert [path.parent for path in batch.paths] == [folder, folder]


async def test_a_batch_into_a_full_disk_is_saved_elsewhere_by_the_same_call(kling_emulator, tmp_path):
    journal = tmp_path / "run.db"
    async with client_of(kling_emulator) as client:
        with small_disk(tmp_path / "a", "8k"):
            first = await client.generate_many(["rain"] * 3, output=tmp_path / "a", journal=journal)
            assert list((tmp_path / "a").iterdir()) == []
        assert [result.is_unsaved for result in first] == [True] * 3
        assert {result.failure_reason for result in first} == {"No space left on device"}
        again = await client.generate_many(["rain"] * 3, output=tmp_path / "b", journal=journal)
    assert len(set(again.paths)) == 3
    assert kling_emulator.stats.requests["submit"] == 3


async def test_a_batch_does_not_wait_for_a_storage_that_drips_and_the_next_run_continues(
    kling_emulator, tmp_path
):
    journal, output = tmp_path / "run.db", tmp_path / "videos"
    kling_emulator.faults.add(Fault("media", SlowReply(delay=0.05, pieces=10_000), times=2))
    async with asyncio.timeout(60), client_of(kling_emulator, retry=ONCE, timeout=2.0) as client:
        first = await client.generate_many(["rain", "snow"], output=output, journal=journal)
        assert [result.is_unsaved for result in first] == [True, True]
        assert all("and a download needs 1,024 bytes a second" in str(result.error) for result in first)
        assert all("It is paid for and still at the service" in str(result.error) for result in first)
        kept = sorted(path.stat().st_size for path in output.glob("*.part"))
        assert len(kept) == 2
        assert kept[0] > 0
        again = await client.generate_many(["rain", "snow"], output=output, journal=journal)
    assert [result.error for result in again] == [None, None]
    assert sorted(path.name for path in output.iterdir()) == sorted(path.name for path in again.paths)
    assert kling_emulator.stats.requests["submit"] == 2
