"""Downloads from real sockets to real disks."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import pytest
from virtual_storage import job_with, video

from kling_async import DownloadError, KlingClient, RetryPolicy
from kling_async.emulator import EmulatorSettings, Fault, Stall, TruncatedReply, WrongLength
from kling_async.emulator.settings import ResponseFormat

HASTE = RetryPolicy(initial_delay=0.001, max_delay=0.01)
ONCE = RetryPolicy(max_retries=0)
MIB = 1024 * 1024


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
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                self.heads.append(head)
                await self._send(writer, head)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

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
    server = await asyncio.start_server(host.answer, "127.0.0.1", 0)
    host.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.mp4"
    try:
        yield host
    finally:
        server.close()


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
    async with client_of(kling_emulator, timeout=0.1, retry=patient) as client:
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


async def test_a_full_disk_is_an_error_and_leaves_no_file(tmp_path):
    mounted = subprocess.run(  # noqa: ASYNC221, S603
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)],  # noqa: S607
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        async with serve(Host(video(2 * MIB))) as host:
            with pytest.raises(DownloadError, match="No space left on device"):
                await save(host, tmp_path / "a.mp4")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)  # noqa: ASYNC221, S603, S607


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
