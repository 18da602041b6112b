from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_service import Service, Stream, VirtualLoop, always, on, reply, session_for
from virtual_storage import CUT, URL, Storage, job_with, video

from kling_async import APIConnectionError, DownloadError, RetryPolicy
from kling_async._engine.download.output_folder import FileDestination, is_whole
from kling_async.events import Downloading, Notifier, Retrying

VIDEO = video(10_000)
FRESH = "https://storage.example/a.mp4?signature=new"


async def fetch(path, service, *, job=None, notify=None, max_retries=3, digest=False):
    service = service.service() if isinstance(service, Storage) else service
    session = session_for(service, retry=RetryPolicy(max_retries=max_retries))
    job = job or job_with()
    return await session.downloader.download(
        job, FileDestination(path, job.request_id), emit=session.api.emitter(Notifier(notify)), digest=digest
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


async def test_a_video_is_saved_whole_with_its_size_and_digest(tmp_path):
    path = tmp_path / "new" / "a.mp4"
    saved = await fetch(path, Storage(VIDEO), digest=True)
    assert (saved.size_bytes, saved.sha256) == (10_000, hashlib.sha256(VIDEO).hexdigest())
    assert path.read_bytes() == VIDEO
    assert names(path.parent) == ["a.mp4"]


async def test_without_digest_none_is_computed(tmp_path):
    assert (await fetch(tmp_path / "a.mp4", Storage(VIDEO))).sha256 is None


async def test_a_file_is_whole_if_it_has_the_size_and_the_digest(tmp_path):
    path = tmp_path / "a.mp4"
    saved = await fetch(path, Storage(VIDEO), digest=True)
    assert is_whole(path, size_bytes=saved.size_bytes)
    assert is_whole(path, size_bytes=saved.size_bytes, sha256=saved.sha256)
    assert not is_whole(path, size_bytes=saved.size_bytes, sha256="0" * 64)
    assert not is_whole(path, size_bytes=9_999)
    assert not is_whole(path, size_bytes=None)
    assert not is_whole(tmp_path / "b.mp4", size_bytes=10_000)


@pytest.mark.parametrize("tenth", range(10))
async def test_after_a_cut_no_byte_is_sent_twice(tmp_path, tenth):
    events = []
    storage = Storage(VIDEO, cuts=[tenth * 1000])
    assert (await fetch(tmp_path / "a.mp4", storage, notify=events.append)).size_bytes == 10_000
    assert (tmp_path / "a.mp4").read_bytes() == VIDEO
    assert storage.sent_bytes == 10_000
    leave_partial, retry = events
    assert (leave_partial.size_bytes, leave_partial.total_bytes) == (0, None)
    assert (type(retry), retry.call, retry.attempt) == (Retrying, "download", 1)


async def test_the_size_is_emitted_at_the_start_and_then_twice_a_second(tmp_path):
    events = []
    storage = Storage(VIDEO, cuts=[3000, 3000])
    session = session_for(storage.service(), retry=RetryPolicy(initial_delay=1.0, max_retries=3))
    job = job_with(request_id="job-7")
    await session.downloader.download(
        job,
        FileDestination(tmp_path / "a.mp4", job.request_id),
        emit=session.api.emitter(Notifier(events.append)),
        index=4,
    )
    downloading = [event for event in events if isinstance(event, Downloading)]
    assert [(event.size_bytes, event.total_bytes) for event in downloading] == [
        (0, None),
        (4000, 10_000),
        (7000, 10_000),
    ]
    assert {(event.index, event.request_id) for event in downloading} == {(4, "job-7")}


async def test_tries_that_bring_a_twentieth_of_the_video_reset_the_retries(tmp_path):
    storage = Storage(VIDEO, cuts=[500] * 19)
    await fetch(tmp_path / "a.mp4", storage, max_retries=1)
    assert (tmp_path / "a.mp4").read_bytes() == VIDEO
    assert len(storage.requests) == 20


async def test_tries_that_bring_a_twentieth_together_reset_the_retries(tmp_path):
    storage = Storage(VIDEO, cuts=[250] * 39)
    await fetch(tmp_path / "a.mp4", storage, max_retries=2)
    assert (tmp_path / "a.mp4").read_bytes() == VIDEO
    assert len(storage.requests) == 40


async def test_a_storage_that_cuts_each_answer_after_a_byte_uses_up_the_retries(tmp_path):
    path, storage = tmp_path / "a.mp4", Storage(VIDEO, cuts=[1] * 10_000)
    with pytest.raises(DownloadError, match="cut") as caught:
        await fetch(path, storage, max_retries=5)
    assert caught.value.advice == "`await client.download('job-1', ...)` tries again."
    assert len(storage.requests) == 6
    storage.cuts.clear()
    await fetch(path, storage, max_retries=0)
    assert path.read_bytes() == VIDEO
    assert storage.requested_ranges[-1] == "bytes=6-"


@attrs.define
class Drip(Stream):
    """A body that brings one byte after each pause."""

    pause: float = 1.0

    async def body(self):
        for piece in self.pieces:
            await anyio.sleep(self.pause)
            yield piece


def drip(*, size_bytes=1, pause=1.0):
    pieces = [VIDEO[start : start + size_bytes] for start in range(0, len(VIDEO), size_bytes)]
    return Drip(200, pieces, {"content-length": str(len(VIDEO)), "etag": '"v1"'}, pause)


async def test_a_body_that_drips_is_given_up_after_the_retries_and_resumed_by_the_next_run(tmp_path):
    path, service = tmp_path / "a.mp4", Service(media={URL: drip()})
    message = r"only 60 bytes came in 60 s, and a download needs 1,024 bytes a second\. It is paid for"
    with pytest.raises(DownloadError, match=message):
        await fetch(path, service)
    assert anyio.current_time() < 6 * 60
    assert service.calls == {"media": 4}
    assert path.with_name("a.mp4.part").stat().st_size == 60
    await fetch(path, storage := Storage(VIDEO))
    assert storage.requested_ranges == ["bytes=60-"]
    assert path.read_bytes() == VIDEO


async def test_a_slow_line_that_keeps_the_floor_is_waited_for(tmp_path):
    await fetch(tmp_path / "a.mp4", Service(media={URL: drip(size_bytes=100, pause=0.09)}), max_retries=0)
    assert (tmp_path / "a.mp4").read_bytes() == VIDEO


async def test_without_a_download_timeout_a_download_goes_on_to_its_end(tmp_path):
    service = Service(media={URL: drip(size_bytes=100, pause=0.09)})
    session = session_for(service, retry=RetryPolicy(download_timeout=None))
    emit = session.api.emitter(Notifier(None))
    await session.downloader.download(job_with(), FileDestination(tmp_path / "a.mp4", "job-1"), emit=emit)
    assert anyio.current_time() > 8


@pytest.mark.parametrize(
    "answer", [drip(size_bytes=50, pause=0.04), Stream(503, [b"busy"])], ids=["slow", "busy"]
)
async def test_a_download_ends_after_its_timeout_with_all_its_retries(tmp_path, answer):
    retry = RetryPolicy(download_timeout=5, max_retries=10**6)
    session = session_for(Service(media={URL: answer}), retry=retry)
    emit = session.api.emitter(Notifier(None))
    with pytest.raises(DownloadError, match=r"not complete after 5 s|HTTP 503"):
        await session.downloader.download(job_with(), FileDestination(tmp_path / "a.mp4", "job-1"), emit=emit)
    assert anyio.current_time() <= 5.1


@pytest.mark.parametrize("wait", ["30", "86400", "9" * 300, "Fri, 31 Dec 9999 23:59:59 GMT"], ids=len)
@pytest.mark.parametrize("status", [429, 503])
async def test_no_wait_of_a_download_goes_beyond_its_timeout(tmp_path, status, wait):
    retry = RetryPolicy(download_timeout=4)
    session = session_for(Service(media={URL: Stream(status, [b"busy"], {"retry-after": wait})}), retry=retry)
    message = (
        rf"HTTP {status}.*next try would begin after [0-9.e+]+ s.*download_timeout of 4 s\. It is paid for"
    )
    with pytest.raises(DownloadError, match=message) as caught:
        emit = session.api.emitter(Notifier(None))
        await session.downloader.download(job_with(), FileDestination(tmp_path / "a.mp4", "job-1"), emit=emit)
    assert caught.value.status_code == status
    assert anyio.current_time() == 0


async def test_a_wait_that_ends_within_the_timeout_of_a_download_is_waited_out(tmp_path):
    answers = [Stream(503, [b"busy"], {"retry-after": "3"}), Stream(200, [VIDEO])]
    session = session_for(
        Service(media={URL: lambda _: answers.pop(0)}), retry=RetryPolicy(download_timeout=4)
    )
    emit = session.api.emitter(Notifier(None))
    await session.downloader.download(job_with(), FileDestination(tmp_path / "a.mp4", "job-1"), emit=emit)
    assert anyio.current_time() == pytest.approx(3)


async def test_the_requests_of_a_download_have_no_more_time_than_the_download(tmp_path):
    answers = [Stream(503, [b"busy"], {"retry-after": "3"}), Stream(403, [b"expired"])]
    service = Service(media={URL: lambda _: answers.pop(0)}, before=[at_other_address(URL)])
    session = session_for(service, retry=RetryPolicy(download_timeout=4))
    emit = session.api.emitter(Notifier(None))
    with pytest.raises(DownloadError, match="HTTP 403"):
        await session.downloader.download(job_with(), FileDestination(tmp_path / "a.mp4", "job-1"), emit=emit)
    assert [request.timeout for request in service.requests] == [4, pytest.approx(1), pytest.approx(1)]


async def test_tries_that_bring_no_bytes_use_up_the_retries(tmp_path):
    storage = Storage(VIDEO, cuts=[100, 0, 0, 0])
    with pytest.raises(DownloadError, match="cut"):
        await fetch(tmp_path / "a.mp4", storage, max_retries=2)
    assert len(storage.requests) == 3


async def test_tries_that_begin_again_use_up_the_retries(tmp_path):
    storage = Storage(VIDEO, ranges=False, cuts=[5000] * 99)
    with pytest.raises(DownloadError, match="cut"):
        await fetch(tmp_path / "a.mp4", storage, max_retries=3)
    assert len(storage.requests) == 4


@pytest.mark.parametrize(
    "broken",
    [
        Stream(200, [b"short"], {"content-length": "10"}),
        Stream(200, [b"long" * 10], {"content-length": "10"}),
        Stream(200, []),
        Stream(200, [b"begin", CUT]),
        Stream(503, [b"busy"]),
        APIConnectionError("reset"),
    ],
    ids=["short", "long", "empty", "cut", "503", "reset"],
)
async def test_a_broken_transfer_is_retried_and_leaves_no_incomplete_file(tmp_path, broken):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"the old one")
    answers = [broken, Stream(200, [b"whole"])]
    assert (await fetch(path, Service(media={URL: lambda _: answers.pop(0)}))).size_bytes == 5
    assert path.read_bytes() == b"whole"

    with pytest.raises(DownloadError, match="still at the service") as caught:
        await fetch(path, Service(media={URL: broken}))
    assert caught.value.request_id == "job-1"
    assert path.read_bytes() == b"whole"
    assert names(tmp_path) == ["a.mp4"]


async def test_the_next_download_resumes_one_that_failed(tmp_path):
    path, storage = tmp_path / "a.mp4", Storage(VIDEO, cuts=[6000])
    with pytest.raises(DownloadError):
        await fetch(path, storage, max_retries=0)
    assert names(tmp_path) == ["a.mp4.part", "a.mp4.part.json"]
    await fetch(path, storage, max_retries=0)
    assert path.read_bytes() == VIDEO
    assert storage.sent_bytes == 10_000
    assert names(tmp_path) == ["a.mp4"]


async def test_the_partial_file_of_another_job_is_not_resumed(tmp_path):
    path, storage = tmp_path / "a.mp4", Storage(VIDEO, cuts=[6000])
    with pytest.raises(DownloadError):
        await fetch(path, storage, max_retries=0)
    other = Storage(video(10_000, seed=1))
    await fetch(path, other, job=job_with(request_id="job-2"))
    assert other.requested_ranges == [None]
    assert path.read_bytes() == other.content
    assert names(tmp_path) == ["a.mp4"]


async def test_a_cancelled_download_leaves_its_partial_file_and_its_slot_to_the_next(tmp_path):
    path, storage = tmp_path / "a.mp4", Storage(VIDEO)
    session = session_for(storage.service())
    for _ in range(session.shared.limits.max_concurrent_downloads + 1):
        storage.cuts = [500]
        with anyio.CancelScope() as scope:
            leave = lambda event, scope=scope: isinstance(event, Retrying) and scope.cancel()  # noqa: E731
            await session.downloader.download(
                job_with(), FileDestination(path, "job-1"), emit=session.api.emitter(Notifier(leave))
            )
        assert scope.cancelled_caught
    await session.downloader.download(
        job_with(), FileDestination(path, "job-1"), emit=session.api.emitter(Notifier(None))
    )
    assert path.read_bytes() == VIDEO
    assert storage.sent_bytes == 10_000


async def test_two_downloads_to_one_path_are_each_whole(tmp_path):
    one, two = Storage(VIDEO, cuts=[3000] * 3), Storage(video(12_000, seed=2), cuts=[5000])
    urls = {"https://storage.example/1.mp4": one, "https://storage.example/2.mp4": two}
    session = session_for(Service(media=urls))
    sizes = []

    async def save(request_id, url):
        job = job_with(url, request_id=request_id)
        saved = await session.downloader.download(
            job, FileDestination(tmp_path / "a.mp4", job.request_id), emit=session.api.emitter(Notifier(None))
        )
        sizes.append(saved.size_bytes)

    async with anyio.create_task_group() as tasks:
        for number, url in enumerate(urls):
            tasks.start_soon(save, f"job-{number}", url)
    assert sorted(sizes) == [10_000, 12_000]
    assert (tmp_path / "a.mp4").read_bytes() in {one.content, two.content}
    assert names(tmp_path) == ["a.mp4"]


async def test_at_most_max_concurrent_downloads_run_at_once(tmp_path):
    max_concurrent, most, is_full = 0, 0, anyio.Event()

    class Slow(Stream):
        async def body(self):
            nonlocal max_concurrent, most
            max_concurrent += 1
            most = max(most, max_concurrent)
            if max_concurrent == session.shared.limits.max_concurrent_downloads:
                is_full.set()
            await is_full.wait()
            await anyio.sleep(1.0)
            max_concurrent -= 1
            yield b"whole"

    session = session_for(Service(media={URL: Slow(200, [])}))

    async def save(number):
        await session.downloader.download(
            job_with(),
            FileDestination(tmp_path / f"{number}.mp4", "job-1"),
            emit=session.api.emitter(Notifier(None)),
        )

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(save, number)
    assert most == session.shared.limits.max_concurrent_downloads
    assert len(names(tmp_path)) == 30


async def test_no_download_obeys_a_storage_for_longer_than_the_setting_allows(tmp_path):
    answers = [Stream(503, [b"busy"], {"retry-after": "86400"}), Stream(200, [VIDEO])]
    await fetch(tmp_path / "a.mp4", Service(media={URL: lambda _: answers.pop(0)}))
    assert anyio.current_time() == pytest.approx(600.0)


async def test_a_refusal_is_not_retried(tmp_path):
    service = Service(media={URL: Stream(400, [b"<Error><Code>InvalidArgument</Code></Error>"])})
    with pytest.raises(DownloadError, match="InvalidArgument") as caught:
        await fetch(tmp_path / "a.mp4", service)
    assert caught.value.status_code == 400
    assert service.calls == {"media": 1}


def at_other_address(url):
    job = {"request_id": "job-1", "status": "success", "outcome": {"media_urls": [{"url": url, "id": "0"}]}}
    return on("status", reply(200, job))


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_if_a_url_is_no_longer_valid_the_current_url_is_requested_from_the_service(tmp_path, status):
    storage = Storage(VIDEO, cuts=[6000])

    def once(request):
        service.media[URL] = Stream(status, [b"expired"])
        return storage(request)

    service = Service(media={URL: once, FRESH: storage}, before=[at_other_address(FRESH)])
    assert (await fetch(tmp_path / "a.mp4", service)).size_bytes == 10_000
    assert (tmp_path / "a.mp4").read_bytes() == VIDEO
    assert storage.sent_bytes == 10_000
    assert service.calls == {"media": 3, "status": 1}


@pytest.mark.parametrize(
    "present",
    [
        at_other_address(URL),
        on("status", reply(200, {"request_id": "job-1", "status": "success", "outcome": None})),
        on("status", reply(404, {"error": "Request not found"})),
        always("status", APIConnectionError("reset")),
    ],
    ids=["the same", "none", "vanished", "lost"],
)
async def test_without_another_url_the_first_error_is_raised(tmp_path, present):
    service = Service(media={URL: Stream(403, [b"<Code>AccessDenied</Code>"])}, before=[present])
    with pytest.raises(DownloadError, match="AccessDenied") as caught:
        await fetch(tmp_path / "a.mp4", service)
    assert caught.value.status_code == 403
    assert service.calls == {"media": 1, "status": 1}


async def test_the_current_url_is_requested_once(tmp_path):
    gone = Stream(410, [b"gone"])
    service = Service(media={URL: gone, FRESH: gone}, before=[at_other_address(FRESH)])
    with pytest.raises(DownloadError, match="HTTP 410"):
        await fetch(tmp_path / "a.mp4", service)
    assert service.calls == {"media": 2, "status": 1}


async def test_a_job_without_a_video_says_so(tmp_path):
    with pytest.raises(DownloadError, match="has no video to download"):
        await fetch(tmp_path / "a.mp4", Service(), job=job_with(None))


@pytest.mark.parametrize(
    "name, number",
    [
        ("file/a.mp4", {errno.ENOTDIR, errno.EEXIST}),
        ("x" * 300 + ".mp4", {errno.ENAMETOOLONG}),
        ("a\0.mp4", {errno.EINVAL}),
        ("folder", {errno.EISDIR}),
    ],
    ids=["below a file", "too long", "NUL", "a folder"],
)
async def test_a_path_that_takes_no_file_is_an_error_before_the_first_request(tmp_path, name, number):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    service = Service()
    with pytest.raises(DownloadError, match="was not saved to") as caught:
        await fetch(tmp_path / name, service)
    assert caught.value.__cause__.errno in number
    assert os.strerror(caught.value.__cause__.errno) in caught.value.message or "null" in caught.value.message
    assert "\n" not in caught.value.message
    assert service.calls == {}


VERSIONS = [video(300, seed=3), video(300, seed=4), video(280, seed=5)]
"""Two of the same length, which only their ETags distinguish."""


@attrs.define(eq=False)
class ChangingStorage:
    """A storage that behaves differently at each response."""

    behaviours: list[tuple[int, int | None, bool, bool]]
    """For each response: the version, the byte at which the body is cut, whether the storage obeys `Range` and `If-Range`."""

    def __call__(self, request):
        version, cut, ranges, obeys_if_range = (
            self.behaviours.pop(0) if self.behaviours else (0, None, True, True)
        )
        return Storage(
            VERSIONS[version],
            etag=f'"v{version}"',
            cuts=[cut],
            ranges=ranges,
            obeys_if_range=obeys_if_range,
            piece_bytes=50,
        )(request)


@given(
    behaviours=st.lists(
        st.tuples(st.integers(0, 2), st.none() | st.integers(0, 300), st.booleans(), st.booleans()),
        max_size=8,
    ),
    runs=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_a_saved_file_is_of_one_version_whatever_the_storage_does(behaviours, runs):
    async def scenario(folder):
        service = Service(media={URL: ChangingStorage(behaviours)})
        for run in range(runs):
            last = run == runs - 1
            with suppress(DownloadError):
                await fetch(folder / "a.mp4", service, max_retries=20 if last else 0)
        assert (folder / "a.mp4").read_bytes() in VERSIONS
        assert names(folder) == ["a.mp4"]

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario(Path(folder)))


NAMES = ["content-length", "content-range", "content-encoding", "etag", "last-modified", "location"]
VALUES = [
    "",
    "0",
    "5",
    "-1",
    "9" * 5000,
    "bytes 0-4/5",
    "bytes */5",
    "gzip",
    "br",
    '"v1"',
    "http://[",
    "//x",
    "\0",
    "é",
]


@given(
    answers=st.lists(
        st.tuples(
            st.sampled_from([200, 206, 204, 302, 304, 404, 416, 429, 500, 999]),
            st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=9)),
            st.lists(st.binary(max_size=5) | st.just(CUT), max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_answered_ends_in_a_file_or_in_an_error_of_ours(answers):
    async def scenario(folder):
        left = [Stream(status, pieces, headers) for status, headers, pieces in answers]
        service = Service(media={URL: lambda _: left.pop(0) if len(left) > 1 else left[0]})
        try:
            saved = await fetch(folder / "a.mp4", service)
        except DownloadError:
            assert set(names(folder)) <= {"a.mp4.part", "a.mp4.part.json"}
        else:
            assert (folder / "a.mp4").stat().st_size == saved.size_bytes > 0
            assert names(folder) == ["a.mp4"]

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario(Path(folder)))
