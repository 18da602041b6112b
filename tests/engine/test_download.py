from __future__ import annotations

import errno

import pytest
from virtual_service import KEY, Service, Stream, engine_for

from kling_async import APIConnectionError, DownloadError, Job, JobStatus, Media, Outcome, RetryPolicy
from kling_async._engine import download as room
from kling_async.events import Notifier, Retrying

URL = "https://storage.example/a.mp4"


@pytest.fixture
def anyio_backend():
    """The real loop: files are written by threads, and a clock that jumps would not wait for them."""
    return "asyncio"


def job_with(url=URL):
    outcome = Outcome(media=(Media(url),)) if url else None
    return Job(request_id="job-1", status=JobStatus.SUCCESS, outcome=outcome)


async def fetch(path, service, *, job=None, notify=None, max_retries=3):
    engine = engine_for(service, retry=RetryPolicy(max_retries=max_retries, initial_delay=0.001))
    return await engine.downloader.download(job or job_with(), path, notify=Notifier(notify))


def answering(*answers):
    left = list(answers)
    return Service(media={URL: lambda _: left.pop(0) if len(left) > 1 else left[0]})


async def test_a_video_is_saved_whole_and_its_size_told(tmp_path):
    pieces = [b"x" * 700_000, b"y" * 700_000, b"z"]
    size = await fetch(
        tmp_path / "new" / "a.mp4", answering(Stream(200, pieces, {"content-length": "1400001"}))
    )
    assert size == 1_400_001
    assert (tmp_path / "new" / "a.mp4").read_bytes() == b"".join(pieces)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    "broken",
    [
        Stream(200, [b"short"], {"content-length": "10"}),
        Stream(200, [b"long" * 10], {"content-length": "10"}),
        Stream(200, []),
        Stream(200, [b"begin", APIConnectionError("cut")]),
        Stream(503, [b"busy"]),
        APIConnectionError("reset"),
    ],
    ids=["short", "long", "empty", "cut", "503", "reset"],
)
async def test_a_broken_transfer_is_tried_again_and_leaves_nothing_half_written(tmp_path, broken):
    events = []
    path = tmp_path / "a.mp4"
    path.write_bytes(b"the old one")
    assert await fetch(path, answering(broken, Stream(200, [b"whole"])), notify=events.append) == 5
    assert path.read_bytes() == b"whole"
    assert [(type(event), event.call) for event in events] == [(Retrying, "download")]

    with pytest.raises(DownloadError, match="still at the service") as caught:
        await fetch(path, answering(broken))
    assert caught.value.request_id == "job-1"
    assert path.read_bytes() == b"whole"


async def test_a_refusal_is_not_tried_again(tmp_path):
    service = answering(Stream(403, [b"<Error><Code>AccessDenied</Code></Error>"]))
    with pytest.raises(DownloadError, match="AccessDenied") as caught:
        await fetch(tmp_path / "a.mp4", service)
    assert caught.value.status_code == 403
    assert service.calls["media"] == 1


async def test_an_endless_page_of_an_error_is_not_read_to_its_end(tmp_path):
    service = answering(Stream(404, [b"x" * 1_000_000] * 50))
    with pytest.raises(DownloadError):
        await fetch(tmp_path / "a.mp4", service)


async def test_redirects_are_followed_without_the_key(tmp_path):
    service = Service(
        media={
            URL: Stream(302, [], {"location": "/b.mp4"}),
            "https://storage.example/b.mp4": Stream(307, [], {"location": "https://cdn.example/c.mp4"}),
            "https://cdn.example/c.mp4": Stream(200, [b"whole"]),
        }
    )
    assert await fetch(tmp_path / "a.mp4", service) == 5
    assert len(service.requests) == 3
    assert all(KEY not in repr(request.headers) for request in service.requests)


@pytest.mark.parametrize("location", ["http://other.example/x.mp4", "file:///etc/passwd", "https://[bad"])
async def test_a_redirect_to_where_nothing_is_fetched_from_is_refused(tmp_path, location):
    service = Service(media={URL: Stream(302, [], {"location": location})})
    with pytest.raises(DownloadError, match="is not fetched"):
        await fetch(tmp_path / "a.mp4", service)
    assert service.calls["media"] == 1


async def test_redirects_in_a_circle_end(tmp_path):
    service = Service(media={URL: Stream(302, [], {"location": URL})})
    with pytest.raises(DownloadError, match="redirects"):
        await fetch(tmp_path / "a.mp4", service)
    assert service.calls["media"] == 6


async def test_a_redirect_to_nowhere_is_an_error(tmp_path):
    with pytest.raises(DownloadError, match="HTTP 302"):
        await fetch(tmp_path / "a.mp4", answering(Stream(302, [b""])))


async def test_a_job_without_a_video_says_so(tmp_path):
    with pytest.raises(DownloadError, match="has no video to download"):
        await fetch(tmp_path / "a.mp4", Service(), job=job_with(None))


async def test_a_video_larger_than_the_ceiling_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "LARGEST_VIDEO_BYTES", 10)
    with pytest.raises(DownloadError, match="larger than 10 bytes"):
        await fetch(tmp_path / "a.mp4", answering(Stream(200, [b"x" * 11])))


async def test_a_disk_that_takes_no_more_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="was not saved") as caught:
        await fetch(tmp_path / "file" / "a.mp4", answering(Stream(200, [b"whole"])))
    assert caught.value.__cause__.errno in {errno.ENOTDIR, errno.EEXIST}


@pytest.mark.parametrize("trailing", ["/", ""])
async def test_a_folder_gets_a_file_named_after_the_prompt_and_the_id(tmp_path, trailing):
    named = Job(request_id="../../x", status=JobStatus.SUCCESS, payload={"prompt": "A Cat/Dog"})
    path = await room.target(f"{tmp_path}{trailing}", named)
    assert path.parent == tmp_path
    assert path.name.startswith("kling-a-cat-dog-")
    unnamed = Job(request_id="x", status=JobStatus.SUCCESS, payload={"prompt": 7})
    assert (await room.target(tmp_path, unnamed)).name.startswith("kling-")
    assert await room.target(tmp_path / "a.mp4", named) == tmp_path / "a.mp4"


async def test_the_folder_of_a_batch_is_made_and_left_clean(tmp_path):
    folder = await room.check_folder(tmp_path / "deep" / "videos")
    assert list(folder.iterdir()) == []
    with pytest.raises(Exception, match="cannot be saved"):
        await room.check_folder("bad\0name")


async def test_a_system_that_takes_one_piece_at_a_time_gets_them_all(tmp_path, monkeypatch):
    monkeypatch.delattr(room.os, "writev", raising=False)
    pieces = [bytes([number]) * 40_000 for number in range(40)]
    assert await fetch(tmp_path / "a.mp4", answering(Stream(200, pieces))) == 1_600_000
    assert (tmp_path / "a.mp4").read_bytes() == b"".join(pieces)


async def test_more_pieces_than_one_system_call_takes_are_all_written(tmp_path):
    pieces = [b"x"] * 3000
    assert await fetch(tmp_path / "a.mp4", answering(Stream(200, pieces))) == 3000
