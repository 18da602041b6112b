"""Hosts on real sockets that send a little every second, so that no pause is long: each call ends all the same.

The hosts put the clock of the loop forward, so a second takes no time.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import attrs
import pytest
from loopback_proxy import Loopback, run_listener
from quick_loop import AdjustableLoop
from virtual_storage import job_with, video

from kling_async import APITimeoutError, DownloadError, KlingClient, RetryPolicy

pytestmark = pytest.mark.unmeasured

VIDEO = video(1_000_000)
LONGEST = 3000.0
"""Seconds after which a test has found a call that does not end."""
ONCE = RetryPolicy(max_retries=0)
TWICE = RetryPolicy(max_retries=1, initial_delay=0.001)
HEAD = b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nETag: "v1"\r\n'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
GZIP = (
    b"Content-Encoding: gzip\r\n\r\nf\r\n"
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # the head of a gzip
    b"\x00\xff\xff\x00\x00\r\n"  # 64 KiB of any bytes follow
)
PATHS = pytest.mark.parametrize("path", ["fast", "public"])


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": AdjustableLoop}


@pytest.fixture(autouse=True)
def _transport(monkeypatch, request):
    monkeypatch.setenv("KLING_ASYNC_TRANSPORT", request.getfixturevalue("path"))


async def let_pass(seconds):
    """Put the clock forward, and let the client read what was sent before, also where its threads are slow."""
    asyncio.get_running_loop().put_forward(seconds)
    await asyncio.sleep(0.002)


@attrs.define
class Dripping:
    """A host that answers at once with `at_once`, and then sends `drip` every second, without an end."""

    at_once: bytes = b""
    drip: bytes = b"x"
    requests: list[bytes] = attrs.field(factory=list)
    url: str = ""

    async def answer(self, reader, writer):
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self.at_once)
        while True:
            await let_pass(1.0)
            writer.write(self.drip)
            await writer.drain()


@asynccontextmanager
async def serve(host):
    async with run_listener(host.answer, Loopback()) as server:
        host.url = f"http://127.0.0.1:{server.port}"
        yield host


def client_of(url="http://127.0.0.1:9", **settings):
    return KlingClient("any-key", base_url=url, **{"retry": ONCE, **settings})


@PATHS
@pytest.mark.parametrize(
    "host, message",
    [
        (Dripping(HEAD, b"X-A: b\r\n"), "no answer within 60 s"),
        (Dripping(HEAD, b"x"), "no answer within 60 s"),
        (Dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "no answer within 60 s"),
        (
            Dripping(HEAD + b"\r\n"),
            r"only \d+ bytes came in 6\d(\.\d)? s, and a download needs 1,024 bytes a second",
        ),
        (Dripping(CHUNKED + b"\r\n", b"1\r\nx\r\n"), r"only \d+ bytes came in"),
        (
            Dripping(b"HTTP/1.1 200 OK\r\nContent-MD5: XUFAKrxLKna5cZ2REBfFkg==\r\n\r\n"),
            r"only \d+ bytes came in",
        ),
        (Dripping(CHUNKED + b"\r\n1\r\nx\r\n1", b";x"), "no answer within 60 s"),
        (Dripping(CHUNKED + b"\r\n1\r\nx\r\n0\r\nX-A: b"), "no answer within 60 s"),
        (Dripping(CHUNKED + GZIP, b"1\r\nx\r\n"), r"only \d+ bytes came in"),
        (Dripping(b"HTTP/1.1 500 O\r\nContent-Length: 9999\r\n\r\noops"), r"HTTP 500: oopsx+\)"),
    ],
    ids=[
        "header lines",
        "a header",
        "interim answers",
        "a body",
        "chunks",
        "no length",
        "the head of a chunk",
        "a trailer",
        "gzip",
        "an error page",
    ],
)
async def test_a_storage_that_drips_is_given_up_and_the_video_is_said_to_be_there(
    tmp_path, host, message, path
):
    host = attrs.evolve(host, requests=[])
    async with serve(host), asyncio.timeout(LONGEST), client_of() as client:
        with pytest.raises(DownloadError, match=message) as caught:
            await client.download(job_with(f"{host.url}/a.mp4"), tmp_path / "a.mp4")
    assert "It is paid for and still at the service" in caught.value.message
    assert caught.value.advice == "`await client.download('job-1', ...)` tries again."
    assert len(host.requests) == 1
    assert not (tmp_path / "a.mp4").exists()


@PATHS
async def test_the_bytes_that_dripped_are_not_fetched_again(tmp_path, path):
    async with serve(Dripping(HEAD + b"\r\n" + VIDEO[:1000])) as host, client_of(retry=TWICE) as client:
        with pytest.raises(DownloadError, match="only"):
            await client.download(job_with(f"{host.url}/a.mp4"), tmp_path / "a.mp4")
    assert b"Range" not in host.requests[0]
    assert b"Range: bytes=1" in host.requests[1]
    assert (tmp_path / "a.mp4.part").stat().st_size >= 1000


@PATHS
async def test_a_line_of_fifty_kilobytes_a_second_that_eight_downloads_share_is_waited_for(tmp_path, path):
    class Slow(Dripping):
        async def answer(self, reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD + b"\r\n")
            for start in range(0, len(VIDEO), 6250):
                await let_pass(1.0)
                writer.write(VIDEO[start : start + 6250])
            writer.close()

    async with serve(Slow()) as host, client_of() as client:
        saved = await client.download(job_with(f"{host.url}/a.mp4"), tmp_path / "a.mp4")
    assert saved.read_bytes() == VIDEO
    assert asyncio.get_running_loop().ahead > 60.0


@PATHS
@pytest.mark.parametrize(
    "host",
    [
        Dripping(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        Dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{", b" "),
        Dripping(b"HTTP/1.1 503 O\r\nContent-Length: 9999\r\n\r\n", b"x"),
        Dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["header lines", "a body", "an error page", "interim answers"],
)
async def test_a_service_that_drips_is_given_up(tmp_path, host, path):
    host = attrs.evolve(host, requests=[])
    async with serve(host), asyncio.timeout(LONGEST), client_of(host.url) as client:
        with pytest.raises(APITimeoutError, match=r"no answer within 60 s"):
            await client.get_job("job-1")
    assert len(host.requests) == 1


@PATHS
async def test_a_storage_that_drips_its_answer_to_an_upload_is_given_up(tmp_path, path):
    class WithTicket(Dripping):
        async def answer(self, reader, writer):
            ticket = {"upload_url": f"{self.url}/put", "public_url": f"{self.url}/a.png"}
            head, body = await reader.readuntil(b"\r\n\r\n"), json.dumps(ticket).encode()
            if head.startswith(b"POST"):
                writer.write(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
                )
                writer.write(body)
                writer.close()
            else:
                reader.feed_data(b"\r\n\r\n")
                await super().answer(reader, writer)

    (tmp_path / "a.png").write_bytes(b"a picture")
    async with (
        serve(WithTicket(HEAD, b"X-A: b\r\n")) as host,
        asyncio.timeout(LONGEST),
        client_of(host.url) as client,
    ):
        with pytest.raises(APITimeoutError, match=r"/put: no answer within 60 s"):
            await client.upload(tmp_path / "a.png")
    assert len(host.requests) == 1
