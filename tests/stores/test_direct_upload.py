"""Videos that go to an object store without a file on this machine."""

from __future__ import annotations

import hashlib
import threading

import anyio
import pytest
from independent_store import Stored, error
from virtual_service import session_for
from virtual_storage import Storage, google_md5, job_with, video

from kling_async import ConfigurationError, DownloadError, KlingClient, RetryPolicy
from kling_async._engine.download.output_store import ObjectDestination, StreamedDestination
from kling_async._policy.object_stores import LARGEST_SINGLE_PUT_BYTES, PART_BYTES, job_mark
from kling_async._stores import open_store
from kling_async.emulator import Emulator, EmulatorSettings, LogNormal
from kling_async.events import Downloading, Notifier
from kling_async.types import ObjectUrl

SINGLE_PUT, PART = LARGEST_SINGLE_PUT_BYTES // 512, PART_BYTES // 512
URL = ObjectUrl("s3://videos/batch/a.mp4")
SMALL, LARGE = video(10_000), video(SINGLE_PUT + 2 * PART + PART // 4)
TRULY_LARGE = video(LARGEST_SINGLE_PUT_BYTES + 2 * PART_BYTES + PART_BYTES // 4)


@pytest.fixture(autouse=True)
def small_parts(request, monkeypatch):
    """A large video has 100,000 bytes, except where the content of a test is truly large."""
    if "truly large" not in request.node.name:
        for room in ("_stores", "_engine.download.streamed_video"):
            monkeypatch.setattr(f"kling_async.{room}.LARGEST_SINGLE_PUT_BYTES", SINGLE_PUT)
            monkeypatch.setattr(f"kling_async.{room}.PART_BYTES", PART)


def storage_of(content, **settings):
    return Storage(content, piece_bytes=1000 if content is SMALL else len(content) // 50, **settings)


async def download(storage, *, notify=None, max_retries=3, is_streamed=True, **settings):
    retry = RetryPolicy(**{"initial_delay": 0.001, "max_retries": max_retries} | settings)
    session = session_for(storage.service(), retry=retry)
    destination = (StreamedDestination if is_streamed else ObjectDestination)(open_store(URL), URL, "job-1")
    return await session.downloader.download(
        job_with(), destination, emit=session.api.emitter(Notifier(notify))
    )


@pytest.mark.unmeasured
@pytest.mark.parametrize("content", [SMALL, TRULY_LARGE], ids=["small", "truly large"])
async def test_a_video_is_stored_whole_without_a_file(store, temporary, content):
    events = []
    saved = await download(storage_of(content), notify=events.append)
    assert (saved.path, saved.size_bytes) == (URL, len(content))
    assert saved.sha256 == hashlib.sha256(content).hexdigest()
    assert store.videos == {URL.key: content}
    assert store.objects[URL.key].headers["x-amz-meta-klingjob"] == job_mark("job-1")
    assert store.uploads == {}
    assert list(temporary.iterdir()) == []
    assert [event.size_bytes for event in events if isinstance(event, Downloading)][-1] == len(content)
    assert (await download(storage_of(content))).path == URL  # it is there already
    assert store.count("PUT", "a.mp4") == (1 if content is SMALL else 7)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "content, cuts",
    [
        (SMALL, [3000, 2000]),
        (SMALL, [10_000]),
        (LARGE, [SINGLE_PUT + PART // 4, PART // 4]),
        (LARGE, [len(LARGE)]),
    ],
    ids=["small", "small, after its last byte", "large", "large, after its last byte"],
)
async def test_after_a_cut_the_missing_bytes_alone_come(store, content, cuts):
    storage = storage_of(content, cuts=list(cuts))
    assert (await download(storage)).size_bytes == len(content)
    assert store.videos == {URL.key: content}
    assert storage.sent_bytes - len(content) in {0, 1}


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "content, cut", [(SMALL, 3000), (LARGE, SINGLE_PUT + PART // 3)], ids=["small", "large"]
)
async def test_a_storage_that_cannot_continue_begins_again_and_no_part_is_left(store, content, cut):
    assert (await download(storage_of(content, cuts=[cut], ranges=False))).size_bytes == len(content)
    assert store.videos == {URL.key: content}
    assert store.uploads == {}


@pytest.mark.parametrize(
    "content, cut", [(SMALL, 3000), (LARGE, SINGLE_PUT + PART // 3)], ids=["small", "large"]
)
async def test_a_video_whose_parts_do_not_fit_together_is_not_stored(store, content, cut):
    true, wrong = google_md5(content), google_md5(b"other")
    storage = storage_of(content, cuts=[cut], headers=wrong)
    with pytest.raises(DownloadError, match="do not fit together"):
        await download(storage, max_retries=1)
    assert store.videos == store.uploads == {}
    assert (await download(storage_of(content, cuts=[cut], headers=true))).size_bytes == len(content)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_a_video_that_is_longer_than_said_is_not_stored(store, content):
    with pytest.raises(DownloadError, match="more came than"):
        await download(storage_of(content, headers={"content-length": str(len(content) - 5)}), max_retries=0)
    assert store.videos == store.uploads == {}


async def test_a_part_that_fails_is_sent_again_from_the_beginning(store):
    left = [3]  # one call of obstore tries three times

    def fail(request):
        if request.query.get("partNumber") == "2" and left[0]:
            left[0] -= 1
            return error(503, "SlowDown")
        return None

    store.faults.append(fail)
    assert (await download(storage_of(LARGE))).size_bytes == len(LARGE)
    assert store.videos == {URL.key: LARGE}
    assert store.uploads == {}


@pytest.mark.parametrize("method", ["HEAD", "PUT"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_no_wait_for_a_store_goes_beyond_the_timeout_of_the_download(store, method, content):
    def fail(request):
        return error(503, "SlowDown") if request.method == method and "a.mp4" in request.path else None

    store.faults.append(fail)
    with pytest.raises(DownloadError, match="download_timeout of 3,600 s"):
        await download(storage_of(content), initial_delay=10_000, max_delay=10_000, download_timeout=3600)
    assert store.videos == store.uploads == {}


@pytest.mark.parametrize("method", ["HEAD", "PUT"])
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_store_that_does_not_answer_is_given_up_with_the_download(
    store, temporary, method, is_streamed, monkeypatch
):
    monkeypatch.setattr("kling_async._engine.download.downloader._LAST_ANSWER", 0.0)
    is_over = threading.Event()

    def wait(request):
        if request.method == method and "a.mp4" in request.path:
            is_over.wait()

    store.faults.append(wait)
    try:
        with pytest.raises(DownloadError, match=r"the store did not answer .* download_timeout of 0\.2 s"):
            await download(storage_of(SMALL), is_streamed=is_streamed, download_timeout=0.2)
    finally:
        is_over.set()


def lose_answer(store, *, seen_after):
    """Let the store complete an upload and lose its answer, and show the object after so many questions."""
    completed, heads = [], []

    def fault(request):
        if request.method == "HEAD" and completed:
            heads.append(request)
            return error(404, "NoSuchKey") if len(heads) <= seen_after else None
        if request.method != "POST" or "uploadId" not in request.query:
            return None
        if not completed:
            completed.append(request)
            store._handle_parts(request, URL.key, b"")
        return error(503, "SlowDown")

    store.faults.append(fault)


@pytest.mark.parametrize(
    "seen_after, max_retries",
    [(0, 0), (0, 3), (1, 3), (2, 3)],
    ids=["at once, without a retry", "at once", "after a wait", "after another download"],
)
async def test_a_large_video_is_saved_whose_last_answer_was_lost(store, seen_after, max_retries):
    lose_answer(store, seen_after=seen_after)
    storage = storage_of(LARGE)
    saved = await download(storage, max_retries=max_retries)
    assert (saved.path, saved.size_bytes) == (URL, len(LARGE))
    assert store.videos == {URL.key: LARGE}
    assert store.uploads == {}
    assert len(storage.requests) == (2 if seen_after == 2 else 1)


async def test_parts_that_the_store_refuses_leave_nothing(store):
    store.faults.append(lambda request: error(403, "AccessDenied") if "partNumber" in request.query else None)
    with pytest.raises(DownloadError, match="may not write to it"):
        await download(storage_of(LARGE))
    assert store.videos == store.uploads == {}


async def test_a_cancelled_upload_leaves_nothing(store):
    with anyio.CancelScope() as scope:

        def cancel(event):
            if isinstance(event, Downloading) and event.size_bytes > SINGLE_PUT + PART // 4:
                scope.cancel()

        await download(storage_of(LARGE, cuts=[len(LARGE) - 1]), notify=cancel)
    assert scope.cancelled_caught
    assert store.videos == store.uploads == {}


@pytest.mark.parametrize("mark", ["another", job_mark("job-1")])
@pytest.mark.parametrize("before", [True, False], ids=["before the first part", "before the end"])
async def test_a_name_that_is_taken_meanwhile_is_not_replaced(store, mark, before):
    heads = []

    def take(request):
        heads.extend(["HEAD"] if request.method == "HEAD" else [])
        if len(heads) == 2 if before else "uploads" in request.query:
            store.objects.setdefault(URL.key, Stored(b"other", {"x-amz-meta-klingjob": mark}))

    store.faults.append(take)
    ended = download(storage_of(LARGE), max_retries=0)
    if mark == job_mark("job-1"):
        saved = await ended  # by another process that downloads the same job
        assert (saved.path, saved.size_bytes) == (URL, len(b"other"))
    elif before:
        assert (await ended).path.name.startswith("a-")
    else:
        with pytest.raises(DownloadError, match="has just taken the name"):
            await ended
    assert store.videos[URL.key] == b"other"
    assert store.uploads == {}


@pytest.mark.usefixtures("tiny_films")
async def test_a_batch_can_be_uploaded_directly(store, temporary, tmp_path):
    fast = EmulatorSettings(
        queue_time=LogNormal(0.1), dispatch_time=0.1, run_time=LogNormal(0.5, 0.1), time_scale=100.0
    )
    async with Emulator(fast) as emulator, KlingClient("key", base_url=emulator.url) as client:
        batch = await client.generate_many(["a comet", "the sea"], output="s3://videos", direct_upload=True)
        assert [result.path.key for result in batch] == sorted(store.videos)
        assert list(temporary.iterdir()) == []
        for _ in ("stores the videos", "finds the videos"):
            await client.generate_many(
                ["a comet"], output="s3://videos/b", direct_upload=True, journal=tmp_path / "run.db"
            )
            assert list(temporary.iterdir()) == []
        for output in (tmp_path, None):
            with pytest.raises(ConfigurationError, match="A direct upload needs the URL of an object store"):
                await client.generate_many(["a comet"], output=output, direct_upload=True)
        assert len(emulator.stats.accepted) == 3
