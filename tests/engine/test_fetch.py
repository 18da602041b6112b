"""One try: what each answer of the storage does to the part."""

from __future__ import annotations

import gzip

import pytest
from virtual_service import KEY, Service, Stream, session_for
from virtual_storage import URL, Storage, google_md5, video

from kling_async import APIConnectionError, APIStatusError, DownloadError, NotFoundError
from kling_async._engine.clock import Clock
from kling_async._engine.download import fetch as room
from kling_async._engine.download.fetch import fetch
from kling_async._engine.download.partial_file import AdaptiveWriter, opened

VIDEO = video(10_000)
OTHER = video(10_000, seed=1)


@pytest.fixture
async def part(tmp_path):
    async with opened(tmp_path / "a.mp4", request_id="job-1", disk=AdaptiveWriter(Clock())) as part:
        yield part


def content_of(part):
    part.keep(digest=False)
    return part.path.read_bytes()


async def try_once(part, storage, *, url=URL):
    service = storage if isinstance(storage, Service) else Service(media={URL: storage})
    await fetch(session_for(service).caller, url, part)


async def cut_at(part, size, storage):
    storage.cuts.append(size)
    with pytest.raises(APIConnectionError, match="cut"):
        await try_once(part, storage)
    assert part.size == size


async def test_the_whole_is_written(part):
    storage = Storage(VIDEO)
    await try_once(part, storage)
    assert content_of(part) == VIDEO
    assert storage.asked == [None]


async def test_what_is_missing_is_asked_for_by_its_range_unless_the_file_has_changed(part):
    storage = Storage(VIDEO)
    await cut_at(part, 4000, storage)
    await try_once(part, storage)
    assert storage.asked == [None, "bytes=4000-"]
    assert storage.requests[1].headers["If-Range"] == '"v1"'
    assert storage.sent_bytes == len(VIDEO)
    assert content_of(part) == VIDEO


async def test_without_a_validator_it_goes_on_where_the_length_is_the_same(part):
    storage = Storage(VIDEO, etag=None)
    await cut_at(part, 4000, storage)
    await try_once(part, storage)
    assert storage.asked == [None, "bytes=4000-"]
    assert "If-Range" not in storage.requests[1].headers
    assert content_of(part) == VIDEO


@pytest.mark.parametrize(
    "change",
    [
        {"ranges": False},
        {"etag": '"v2"'},
        {"etag": '"v2"', "minds_if_range": False},
        {"headers": {"content-range": "bytes 3999-9999/10000"}},
        {"headers": {"content-range": "bytes 4000-9999/10001"}},
        {"headers": {"content-range": "nonsense"}},
        {"content": OTHER[:4000]},
        {"content": OTHER[:2000], "minds_if_range": False},
    ],
    ids=str,
)
async def test_what_is_not_provably_the_rest_is_fetched_from_the_beginning(part, change):
    storage = Storage(VIDEO)
    await cut_at(part, 4000, storage)
    now = Storage(**{"content": OTHER, **change})
    await try_once(part, now)
    assert part.size == len(now.content)
    assert content_of(part) == now.content
    assert now.requests[0].headers["Range"] == "bytes=4000-"
    assert len(now.requests) <= 2


async def test_a_part_of_the_rest_brings_it_further(part):
    storage = Storage(VIDEO)
    await cut_at(part, 4000, storage)
    less = Stream(206, [VIDEO[4000:7000]], {"content-range": "bytes 4000-6999/10000", "etag": '"v1"'})
    with pytest.raises(APIConnectionError, match="7,000 bytes came of 10,000"):
        await try_once(part, lambda _: less)
    await try_once(part, storage)
    assert storage.asked[-1] == "bytes=7000-"
    assert content_of(part) == VIDEO


@pytest.mark.parametrize("status", [206, 416])
async def test_an_answer_about_a_part_that_nobody_asked_for_is_an_error(part, status):
    with pytest.raises(APIStatusError, match=f"HTTP {status}"):
        await try_once(part, lambda _: Stream(status, [b"?"], {"content-range": "bytes 0-0/1"}))
    assert part.size == 0


@pytest.mark.parametrize(
    "answer, said",
    [
        (Stream(200, [b"short"], {"content-length": "10"}), "5 bytes came of 10"),
        (Stream(200, [b"long" * 10], {"content-length": "10"}), "more came than the 10 bytes"),
        (Stream(200, []), "no bytes came"),
        (Stream(200, [], {"content-length": "0"}), "no bytes came"),
    ],
    ids=["short", "long", "empty", "said to be empty"],
)
async def test_a_length_that_is_not_kept_is_a_broken_transfer(part, answer, said):
    with pytest.raises(APIConnectionError, match=said):
        await try_once(part, lambda _: answer)


async def test_a_rest_that_is_too_long_spoils_the_part(part):
    await cut_at(part, 4000, Storage(VIDEO))
    long = Stream(206, [VIDEO], {"content-range": "bytes 4000-9999/10000", "etag": '"v1"'})
    with pytest.raises(APIConnectionError, match="more came"):
        await try_once(part, lambda _: long)
    assert part.resumes_at == 0


async def test_a_file_that_was_put_together_is_checked_against_the_storages_digest(part):
    await cut_at(part, 4000, Storage(VIDEO, headers=google_md5(VIDEO)))
    lying = Storage(OTHER)
    with pytest.raises(APIConnectionError, match="do not fit together"):
        await try_once(part, lying)
    assert part.resumes_at == 0
    true = Storage(VIDEO, headers=google_md5(VIDEO))
    await cut_at(part, 4000, true)
    await try_once(part, true)
    assert content_of(part) == VIDEO


@pytest.mark.parametrize("coding", ["gzip", "x-gzip"])
async def test_a_packed_body_is_unpacked_and_not_gone_on_with(part, coding):
    packed = gzip.compress(VIDEO)
    storage = Storage(packed, headers={"content-encoding": coding})
    storage.cuts.append(8000)
    with pytest.raises(APIConnectionError, match="cut"):
        await try_once(part, storage)
    await try_once(part, storage)
    assert storage.asked == [None, None]
    assert content_of(part) == VIDEO


async def test_a_page_instead_of_the_video_is_no_video_and_may_pass(part):
    storage = Storage(b"<html>log in first</html>", headers={"content-type": "text/html"})
    with pytest.raises(APIConnectionError, match=r"'text/html' came, which is no video"):
        await try_once(part, storage)
    assert part.size == 0


async def test_a_packing_that_nobody_asked_for_is_named(part):
    with pytest.raises(DownloadError, match="packed as 'br'"):
        await try_once(part, Storage(VIDEO, headers={"content-encoding": "br"}))


@pytest.mark.parametrize(
    "headers, pieces",
    [
        ({"content-length": "11"}, []),
        ({}, [b"x" * 11]),
        ({"content-encoding": "gzip"}, [gzip.compress(bytes(10**6))]),
    ],
    ids=["said", "unsaid", "unpacked"],
)
async def test_a_file_beyond_the_ceiling_is_refused(part, monkeypatch, headers, pieces):
    monkeypatch.setattr(room, "LARGEST_VIDEO_BYTES", 10)
    with pytest.raises(DownloadError, match="larger than 10 bytes"):
        await try_once(part, lambda _: Stream(200, pieces, headers))
    assert part.size == 0


async def test_a_refusal_leaves_the_part_as_it_is(part):
    storage = Storage(VIDEO)
    await cut_at(part, 4000, storage)
    with pytest.raises(NotFoundError, match="NoSuchKey"):
        await try_once(part, lambda _: Stream(404, [b"<Error><Code>NoSuchKey</Code></Error>"]))
    assert part.resumes_at == 4000


async def test_an_endless_page_of_an_error_is_not_read_to_its_end(part):
    read = []

    class Endless(Stream):
        async def body(self):
            while True:
                read.append(1)
                yield b"x" * 1000

    with pytest.raises(NotFoundError):
        await try_once(part, lambda _: Endless(404, []))
    assert len(read) < 100


async def test_redirects_are_followed_without_the_key_and_with_the_range(part):
    storage = Storage(VIDEO)
    await cut_at(part, 4000, storage)
    service = Service(
        media={
            URL: Stream(302, [], {"location": "/b.mp4"}),
            "https://storage.example/b.mp4": Stream(307, [], {"location": "https://cdn.example/c.mp4"}),
            "https://cdn.example/c.mp4": storage,
        }
    )
    await try_once(part, service)
    assert len(service.requests) == 3
    assert {request.headers["Range"] for request in service.requests} == {"bytes=4000-"}
    for request in service.requests:
        assert KEY not in repr(request.headers)
        assert "authorization" not in {name.lower() for name in request.headers}
    assert content_of(part) == VIDEO


@pytest.mark.parametrize(
    "location",
    ["http://other.example/x.mp4", "file:///etc/passwd", "https://[bad", "http://127.0.0.1:8000/admin"],
)
async def test_a_redirect_to_where_nothing_is_fetched_from_is_refused(part, location):
    service = Service(media={URL: Stream(302, [], {"location": location})})
    with pytest.raises(DownloadError, match="is not fetched"):
        await try_once(part, service)
    assert service.calls["media"] == 1


async def test_redirects_in_a_circle_end(part):
    service = Service(media={URL: Stream(302, [], {"location": URL})})
    with pytest.raises(DownloadError, match="more than 5 redirects"):
        await try_once(part, service)
    assert service.calls["media"] == 6


async def test_a_redirect_to_nowhere_is_an_error(part):
    with pytest.raises(APIStatusError, match="HTTP 302"):
        await try_once(part, lambda _: Stream(302, [b""]))


async def test_a_cut_packed_body_of_unknown_length_is_found(part):
    with pytest.raises(APIConnectionError, match="cut short"):
        await try_once(part, lambda _: Stream(200, [gzip.compress(VIDEO)[:-1]], {"content-encoding": "gzip"}))
