"""Answers of real sockets that are cut at any byte: no cut video gets the name of a whole one."""

from __future__ import annotations

import base64
import gzip
import hashlib
from contextlib import asynccontextmanager

import pytest
from loopback_proxy import Loopback, run_listener
from virtual_storage import job_with, video

from kling_async import DownloadError, KlingClient, RetryPolicy

pytestmark = pytest.mark.unmeasured

VIDEO = video(5000)
MD5 = b"Content-MD5: " + base64.b64encode(hashlib.md5(VIDEO, usedforsecurity=False).digest()) + b"\r\n"
TWO_MEMBERS = gzip.compress(VIDEO[:2500]) + gzip.compress(VIDEO[2500:])
PATHS = pytest.mark.parametrize("path", ["fast", "public"])


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def _transport(monkeypatch, path):
    monkeypatch.setenv("KLING_ASYNC_TRANSPORT", path)


def head(*lines, version=b"1.1"):
    return b"HTTP/" + version + b" 200 OK\r\n" + b"".join(lines) + b"\r\n"


def in_chunks(body, *, size_bytes=700):
    pieces = [body[start : start + size_bytes] for start in range(0, len(body), size_bytes)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


CHUNKS, GZIP = b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n"
LENGTH = b"Content-Length: %d\r\n"
KNOWN = {
    "length": head(LENGTH % 5000) + VIDEO,
    "length in 1.0": head(LENGTH % 5000, version=b"1.0") + VIDEO,
    "chunks": head(CHUNKS) + in_chunks(VIDEO),
    "gzip": head(GZIP, LENGTH % len(TWO_MEMBERS)) + TWO_MEMBERS,
    "gzip in chunks": head(GZIP, CHUNKS)
    + in_chunks(TWO_MEMBERS, size_bytes=len(gzip.compress(VIDEO[:2500]))),
    "digest": head(MD5) + VIDEO,
    "digest in 1.0": head(MD5, version=b"1.0") + VIDEO,
}
WHOLE_SHA256 = b"sha-256=" + base64.b64encode(hashlib.sha256(VIDEO).digest())
CUT = VIDEO[:3000]
CUT_MD5 = base64.b64encode(hashlib.md5(CUT, usedforsecurity=False).digest())
UNKNOWN = {
    "a stronger digest of the whole": head(b"Digest: " + WHOLE_SHA256 + b", md5=" + CUT_MD5 + b"\r\n") + CUT,
    "a cut that ends with a last chunk": head(CHUNKS, b"Digest: " + WHOLE_SHA256 + b"\r\n") + in_chunks(CUT),
    "a cut that has its own length": head(LENGTH % 3000, MD5) + CUT,
    "nothing": head() + VIDEO,
    "1.0": head(version=b"1.0") + VIDEO,
    "gzip": head(GZIP) + TWO_MEMBERS,
    "a digest of other bytes": head(MD5) + VIDEO[::-1],
}


@asynccontextmanager
async def serve(answer, requests):
    """The URL of a host that sends each client these bytes, and then closes the connection."""

    async def send(reader, writer):
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with run_listener(send, Loopback()) as server:
        yield f"http://127.0.0.1:{server.port}/a.mp4"


async def save(answer, path, *, max_retries=0, requests=None):
    retry = RetryPolicy(max_retries=max_retries, initial_delay=0.001)
    async with (
        serve(answer, [] if requests is None else requests) as url,
        KlingClient("any-key", base_url="http://127.0.0.1:9", retry=retry) as client,
    ):
        return await client.download(job_with(url), path)


@PATHS
@pytest.mark.parametrize("answer", KNOWN.values(), ids=KNOWN)
async def test_an_answer_is_saved_only_if_it_came_to_its_end(tmp_path, answer, path):
    start = answer.index(b"\r\n\r\n") + 4
    step = (len(answer) - start) // 6
    members = answer.find(b"\x1f\x8b\x08", start + 20)
    for end in {*range(start, len(answer), step), members, len(answer) - 2, len(answer) - 1} - {-1}:
        with pytest.raises(DownloadError):
            await save(answer[:end], tmp_path / "a.mp4")
        assert not (tmp_path / "a.mp4").exists()
        for left in tmp_path.iterdir():
            left.unlink()
    assert (await save(answer, tmp_path / "a.mp4")).read_bytes() == VIDEO


@PATHS
@pytest.mark.parametrize("answer", UNKNOWN.values(), ids=UNKNOWN)
async def test_an_answer_that_only_its_connection_ends_is_tried_again_and_not_saved(tmp_path, answer, path):
    requests = []
    with pytest.raises(
        DownloadError, match=r"(came without a length|its digest is not).*It is paid for and still"
    ) as caught:
        await save(answer, tmp_path / "a.mp4", max_retries=2, requests=requests)
    assert len(requests) == 3
    assert caught.value.advice == "`await client.download('job-1', ...)` tries again."
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "gzip in chunks": head(b"Transfer-Encoding: gzip, chunked\r\n") + in_chunks(gzip.compress(VIDEO)),
    "gzip and chunks": head(b"Transfer-Encoding: gzip\r\n", CHUNKS) + in_chunks(gzip.compress(VIDEO)),
    "a part": head(LENGTH % 3000, b"Content-Range: bytes 0-2999/5000\r\n") + CUT,
}


@PATHS
@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
async def test_an_answer_that_says_that_it_is_not_the_video_is_not_saved(tmp_path, answer, path):
    with pytest.raises(DownloadError, match="It is paid for and still"):
        await save(answer, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
