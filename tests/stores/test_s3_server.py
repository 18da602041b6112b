"""What an object store is trusted to do, against a real S3 server; `nox -s stores` brings it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import anyio.to_thread
import obstore
import pytest
from s3_server import run_line
from stores.store_batch import PROMPTS

from kling_async import ConfigurationError, KlingClient, Limits, RetryPolicy
from kling_async._policy.object_stores import LARGEST_SINGLE_PUT_BYTES, StoredObject
from kling_async._stores import open_store, sign_urls
from kling_async.emulator import Emulator, EmulatorSettings, LogNormal
from kling_async.errors import APIConnectionError, DownloadError
from kling_async.types import ObjectUrl

pytestmark = pytest.mark.usefixtures("tiny_films", "log_in")
FAST = EmulatorSettings(
    queue_time=LogNormal(0.1), dispatch_time=0.1, run_time=LogNormal(0.5, 0.1), time_scale=100.0
)
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def prefix(request):
    """A prefix of the test's own."""
    return ObjectUrl(
        f"s3://videos/{hashlib.md5(request.node.name.encode(), usedforsecurity=False).hexdigest()}"
    )


def names(prefix):
    bucket = open_store(prefix)
    return sorted(found["path"] for page in obstore.list(bucket.store, prefix.key) for found in page)


def client_of(emulator):
    retry = RetryPolicy(initial_delay=0.05, max_retries=4)
    return KlingClient("key", base_url=emulator.url, limits=Limits(max_polls_per_second=200), retry=retry)


def large_file(folder):
    path = folder / "large.mp4"
    path.write_bytes(os.urandom(LARGEST_SINGLE_PUT_BYTES + 1))
    return path


async def test_an_object_is_created_once_and_keeps_its_marks(prefix):
    bucket, key = open_store(prefix), prefix.child("a é.mp4").key
    assert await bucket.find(key) is None
    assert await bucket.put(key, b"123", size_bytes=3, mark="mark", sha256="digest")
    assert not await bucket.put(key, b"other", size_bytes=5)
    assert await bucket.find(key) == StoredObject(3, mark="mark", sha256="digest")
    await bucket.delete(key)
    assert names(prefix) == []


async def test_a_batch_is_stored_and_resumed(prefix, tmp_path):
    async with Emulator(FAST) as emulator, client_of(emulator) as client:
        for _ in range(2):
            batch = await client.generate_many(PROMPTS, output=prefix, journal=tmp_path / "run.db")
            assert [result.path.key for result in batch] == names(prefix)
        assert len(emulator.stats.accepted) == len(PROMPTS)


async def test_a_large_video_is_stored_in_parts_with_its_marks(prefix, tmp_path, s3_server):
    path, bucket, key = large_file(tmp_path), open_store(prefix), prefix.child("large.mp4").key
    assert await bucket.put(key, path, size_bytes=path.stat().st_size, mark="mark", sha256="digest")
    assert await bucket.find(key) == StoredObject(path.stat().st_size, mark="mark", sha256="digest")
    content = await (await obstore.get_async(bucket.store, key)).bytes_async()
    assert bytes(content) == path.read_bytes()
    assert s3_server.open_uploads() == []


async def test_a_large_video_of_which_a_part_fails_is_not_there_and_leaves_no_part(
    prefix, tmp_path, s3_server, log_in
):
    path, key = large_file(tmp_path), prefix.child("large.mp4").key
    with run_line(s3_server.endpoint) as line:
        log_in(endpoint=line.endpoint)
        line.watch = lambda piece: BUSY if b"partNumber=3&" in piece else None
        with pytest.raises(APIConnectionError, match=r"503|connection"):
            await open_store(prefix).put(key, path, size_bytes=path.stat().st_size)
    log_in()
    assert names(prefix) == []
    assert s3_server.open_uploads() == []


async def test_a_signed_url_shows_the_object_without_credentials(prefix):
    url = prefix.child("a é.mp4")
    await open_store(url).put(url.key, b"123", size_bytes=3)
    signed = sign_urls([url], seconds=60)
    assert await anyio.to_thread.run_sync(read_url, signed[url]) == b"123"


@pytest.mark.parametrize("fault", ["cut", BUSY], ids=["cut", "busy"])
async def test_a_line_that_fails_is_tried_again(prefix, s3_server, log_in, fault):
    left = [5]

    def fail_sometimes(piece):
        if not piece.startswith(b"PUT ") or b".mp4" not in piece.partition(b"\r\n")[0] or not left[0]:
            return None
        left[0] -= 1
        return fault

    with run_line(s3_server.endpoint) as line:
        log_in(endpoint=line.endpoint)
        line.watch = fail_sometimes
        async with Emulator(FAST) as emulator, client_of(emulator) as client:
            batch = await client.generate_many(PROMPTS[:2], output=prefix)
            assert [result.path.key for result in batch] == names(prefix)
            assert len(emulator.stats.accepted) == 2
    assert left == [0]


@pytest.mark.parametrize(
    "user, place, words",
    [
        ("owner", "s3://no-such-bucket/v", "there is no bucket of this name"),
        ("reader", "s3://videos/v", "may not write to it (it answered 403 AccessDenied)"),
        ("writer", "s3://videos/v", "may not read from it (it answered 403)"),
        ("stranger", "s3://videos/v", "does not accept the credentials"),
    ],
)
async def test_a_store_that_takes_no_videos_is_an_error_before_anything_is_paid(
    log_in, monkeypatch, user, place, words
):
    log_in("owner" if user == "stranger" else user)
    if user == "stranger":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    async with Emulator(FAST) as emulator, client_of(emulator) as client:
        with pytest.raises(ConfigurationError) as refused:
            await client.generate_many(PROMPTS, output=place)
        assert words in str(refused.value)
        assert len(emulator.stats.accepted) == 0


async def test_a_right_that_ends_during_the_batch_leaves_the_videos_unsaved(
    prefix, tmp_path, s3_server, log_in
):
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with run_line(s3_server.endpoint) as line:
        log_in(endpoint=line.endpoint)
        line.watch = lambda piece: refusal if piece.startswith(b"PUT ") and b".mp4" in piece[:300] else None
        async with Emulator(FAST) as emulator, client_of(emulator) as client:
            options = {"output": prefix, "journal": tmp_path / "run.db"}
            batch = await client.generate_many(PROMPTS, **options)
            assert all(result.is_unsaved for result in batch)
            assert isinstance(batch[0].error, DownloadError)
            assert names(prefix) == []
            line.watch = lambda _: None
            again = await client.generate_many(PROMPTS, **options)
            assert [result.path.key for result in again] == names(prefix)
            assert len(emulator.stats.accepted) == len(PROMPTS)


def start(*words, folder=None):
    """A Python of its own, whose folder for temporary files is the given one."""
    environ = {**os.environ, "TMPDIR": str(folder)} if folder else None
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, env=environ)  # noqa: S603 - our own


def run_batch(service, prefix, journal):
    return start(Path(__file__).with_name("store_batch.py"), service, prefix, journal, folder=journal.parent)


@pytest.mark.slow
async def test_a_batch_that_is_killed_while_it_stores_buys_and_stores_nothing_twice(
    prefix, tmp_path, s3_server, log_in
):
    """Killed before each object is there, and when it is there and the answer has not come."""
    journal, put, kills = tmp_path / "run.db", b"PUT /videos/" + prefix.key.encode(), 0
    async with Emulator(FAST) as emulator:
        with run_line(s3_server.endpoint) as line:
            log_in(endpoint=line.endpoint)
            for fault in ("hold", "mute") * 3:
                line.is_held.clear()
                line.watch = lambda piece, fault=fault: (
                    fault if piece.startswith(put) and b".mp4 " in piece[:300] else None
                )
                process = run_batch(emulator.url, prefix, journal)
                held = await wait_for(line.is_held, process)
                process.kill()
                process.communicate()
                if not held:
                    break  # all videos are stored
                kills += 1
            line.watch = lambda _: None
            process = run_batch(emulator.url, prefix, journal)
            records = json.loads(process.communicate()[0])
        log_in()
        assert kills > 1
        assert len(emulator.stats.accepted) == len(PROMPTS)
        assert [record["path"] for record in records] == [f"s3://videos/{name}" for name in names(prefix)]
        for record in records:
            whole = await anyio.to_thread.run_sync(read_url, record["video_url"])
            stored = await obstore.get_async(open_store(prefix).store, ObjectUrl(record["path"]).key)
            assert bytes(await stored.bytes_async()) == whole
        assert list(tmp_path.rglob("*.part*")) == []
    assert s3_server.open_uploads() == []


def read_url(url):
    with urllib.request.urlopen(url) as reply:  # noqa: S310 - the emulator
        return reply.read()


async def wait_for(event, process):
    """Whether the event comes before the process ends."""

    def wait():
        while process.poll() is None:
            if event.wait(0.05):
                return True
        return False

    return await anyio.to_thread.run_sync(wait)


PUT_LARGE = """
import asyncio, sys
from pathlib import Path
from kling_async._stores import open_store, sign_urls
from kling_async.types import ObjectUrl
url, path = ObjectUrl(sys.argv[1]), Path(sys.argv[2])
asyncio.run(open_store(url).put(url.key, path, size_bytes=path.stat().st_size))
"""


async def test_a_kill_during_a_large_upload_shows_nothing_and_leaves_parts_as_the_page_says(
    prefix, tmp_path, s3_server, log_in
):
    path, url = large_file(tmp_path), prefix.child("large.mp4")
    with run_line(s3_server.endpoint) as line:
        log_in(endpoint=line.endpoint)
        line.watch = lambda piece: "hold" if b"partNumber=4&" in piece else None
        process = start("-c", PUT_LARGE, url, path)
        assert await wait_for(line.is_held, process)
        process.kill()
        process.communicate()
    log_in()
    assert names(prefix) == []
    assert len(s3_server.open_uploads()) == 1
    assert await open_store(url).put(url.key, path, size_bytes=path.stat().st_size)
    assert names(prefix) == [url.key]
