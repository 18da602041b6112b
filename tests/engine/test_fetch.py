"""One try to fetch a video: the effect of each response on the partial file."""

from __future__ import annotations

import base64
import gzip
import hashlib

import anyio
import pytest
from virtual_service import KEY, Service, Stream, session_for
from virtual_storage import CUT, URL, Storage, google_md5, video

from kling_async import APIConnectionError, APIStatusError, DownloadError
from kling_async._engine.clock import Clock
from kling_async._engine.download import fetch as module
from kling_async._engine.download.fetch import fetch
from kling_async._engine.download.partial_file import AdaptiveWriter, open_partial

VIDEO = video(10_000)
OTHER = video(10_000, seed=1)


@pytest.fixture
async def partial_file(tmp_path):
    async with open_partial(
        tmp_path / "a.mp4", request_id="job-1", writer=AdaptiveWriter(Clock())
    ) as partial_file:
        yield partial_file


def commit_and_read(partial_file):
    partial_file.commit(digest=False)
    return partial_file.path.read_bytes()


async def try_once(partial_file, storage, *, url=URL):
    service = storage if isinstance(storage, Service) else Service(media={URL: storage})
    await fetch(session_for(service).api, url, partial_file)


async def cut_at(partial_file, size, storage):
    storage.cuts.append(size)
    with pytest.raises(APIConnectionError, match="cut"):
        await try_once(partial_file, storage)
    assert partial_file.size == size


async def test_a_whole_video_is_written(partial_file):
    storage = Storage(VIDEO)
    await try_once(partial_file, storage)
    assert commit_and_read(partial_file) == VIDEO
    assert storage.requested_ranges == [None]


async def test_the_missing_bytes_are_requested_by_their_range(partial_file):
    storage = Storage(VIDEO)
    await cut_at(partial_file, 4000, storage)
    await try_once(partial_file, storage)
    assert storage.requested_ranges == [None, "bytes=4000-"]
    assert storage.requests[1].headers["If-Range"] == '"v1"'
    assert storage.sent_bytes == len(VIDEO)
    assert commit_and_read(partial_file) == VIDEO


async def test_without_a_validator_a_download_resumes_if_the_length_is_the_same(partial_file):
    storage = Storage(VIDEO, etag=None)
    await cut_at(partial_file, 4000, storage)
    await try_once(partial_file, storage)
    assert storage.requested_ranges == [None, "bytes=4000-"]
    assert "If-Range" not in storage.requests[1].headers
    assert commit_and_read(partial_file) == VIDEO


@pytest.mark.parametrize(
    "change",
    [
        {"ranges": False},
        {"etag": '"v2"'},
        {"etag": '"v2"', "obeys_if_range": False},
        {"headers": {"content-range": "bytes 3999-9999/10000"}},
        {"headers": {"content-range": "bytes 4000-9999/10001"}},
        {"headers": {"content-range": "nonsense"}},
        {"content": OTHER[:4000]},
        {"content": OTHER[:2000], "obeys_if_range": False},
    ],
    ids=str,
)
async def test_bytes_that_may_be_of_another_version_are_fetched_from_the_beginning(partial_file, change):
    storage = Storage(VIDEO)
    await cut_at(partial_file, 4000, storage)
    changed = Storage(**{"content": OTHER, **change})
    await try_once(partial_file, changed)
    assert partial_file.size == len(changed.content)
    assert commit_and_read(partial_file) == changed.content
    assert changed.requests[0].headers["Range"] == "bytes=4000-"
    assert len(changed.requests) <= 2


async def test_a_shorter_range_than_requested_is_kept(partial_file):
    storage = Storage(VIDEO)
    await cut_at(partial_file, 4000, storage)
    shorter = Stream(206, [VIDEO[4000:7000]], {"content-range": "bytes 4000-6999/10000", "etag": '"v1"'})
    with pytest.raises(APIConnectionError, match="7,000 bytes came of 10,000"):
        await try_once(partial_file, lambda _: shorter)
    await try_once(partial_file, storage)
    assert storage.requested_ranges[-1] == "bytes=7000-"
    assert commit_and_read(partial_file) == VIDEO


@pytest.mark.parametrize("status", [206, 416])
async def test_a_response_with_an_unrequested_range_is_an_error(partial_file, status):
    with pytest.raises(APIStatusError, match=f"HTTP {status}"):
        await try_once(partial_file, lambda _: Stream(status, [b"?"], {"content-range": "bytes 0-0/1"}))
    assert partial_file.size == 0


@pytest.mark.parametrize(
    "response, message",
    [
        (Stream(200, [b"short"], {"content-length": "10"}), "5 bytes came of 10"),
        (Stream(200, [b"long" * 10], {"content-length": "10"}), "more came than the 10 bytes"),
        (Stream(200, []), "no bytes came"),
        (Stream(200, [], {"content-length": "0"}), "no bytes came"),
    ],
    ids=["short", "long", "empty", "length 0"],
)
async def test_a_body_of_another_length_is_a_broken_transfer(partial_file, response, message):
    with pytest.raises(APIConnectionError, match=message):
        await try_once(partial_file, lambda _: response)


async def test_remaining_bytes_beyond_the_length_truncate_the_file(partial_file):
    await cut_at(partial_file, 4000, Storage(VIDEO))
    long = Stream(206, [VIDEO], {"content-range": "bytes 4000-9999/10000", "etag": '"v1"'})
    with pytest.raises(APIConnectionError, match="more came"):
        await try_once(partial_file, lambda _: long)
    assert partial_file.resume_offset == 0


async def test_a_video_from_several_responses_is_checked_against_the_digest(partial_file):
    await cut_at(partial_file, 4000, Storage(VIDEO, headers=google_md5(VIDEO)))
    wrong = Storage(OTHER)
    with pytest.raises(APIConnectionError, match="do not fit together"):
        await try_once(partial_file, wrong)
    assert partial_file.resume_offset == 0
    true = Storage(VIDEO, headers=google_md5(VIDEO))
    await cut_at(partial_file, 4000, true)
    await try_once(partial_file, true)
    assert commit_and_read(partial_file) == VIDEO


@pytest.mark.parametrize("coding", ["gzip", "x-gzip"])
async def test_a_compressed_body_is_decompressed_and_not_resumed(partial_file, coding):
    compressed = gzip.compress(VIDEO)
    storage = Storage(compressed, headers={"content-encoding": coding})
    storage.cuts.append(8000)
    with pytest.raises(APIConnectionError, match="cut"):
        await try_once(partial_file, storage)
    await try_once(partial_file, storage)
    assert storage.requested_ranges == [None, None]
    assert commit_and_read(partial_file) == VIDEO


async def test_a_page_instead_of_the_video_is_a_transient_error(partial_file):
    storage = Storage(b"<html>log in first</html>", headers={"content-type": "text/html"})
    with pytest.raises(APIConnectionError, match=r"'text/html' came, which is no video"):
        await try_once(partial_file, storage)
    assert partial_file.size == 0


async def test_an_unknown_content_coding_is_an_error_that_names_it(partial_file):
    with pytest.raises(DownloadError, match="compressed as 'br'"):
        await try_once(partial_file, Storage(VIDEO, headers={"content-encoding": "br"}))


@pytest.mark.parametrize(
    "headers, pieces",
    [
        ({"content-length": "2001"}, []),
        ({}, [b"x" * 2001]),
        ({"content-encoding": "gzip"}, [gzip.compress(bytes(10**6))]),
        ({"content-encoding": "gzip"}, [gzip.compress(b"")[:10], *[b"\0\0\0\xff\xff"] * 400]),
    ],
    ids=["in the head", "in the body", "after decompression", "of nothing"],
)
async def test_a_file_above_the_size_limit_is_refused(partial_file, monkeypatch, headers, pieces):
    monkeypatch.setattr(module, "LARGEST_VIDEO_BYTES", 2000)
    with pytest.raises(DownloadError, match="larger than 2,000 bytes"):
        await try_once(partial_file, lambda _: Stream(200, pieces, headers))
    assert partial_file.size == 0


async def test_an_error_response_leaves_the_partial_file_as_it_is(partial_file):
    storage = Storage(VIDEO)
    await cut_at(partial_file, 4000, storage)
    with pytest.raises(APIStatusError, match="NoSuchKey"):
        await try_once(partial_file, lambda _: Stream(404, [b"<Error><Code>NoSuchKey</Code></Error>"]))
    assert partial_file.resume_offset == 4000


async def test_an_endless_error_page_is_not_read_to_its_end(partial_file):
    read = []

    class Endless(Stream):
        async def body(self):
            while True:
                read.append(1)
                yield b"x" * 1000

    with pytest.raises(APIStatusError):
        await try_once(partial_file, lambda _: Endless(404, []))
    assert len(read) < 100


async def test_of_an_error_page_that_drips_only_the_beginning_is_read(partial_file):
    class Dripping(Stream):
        async def body(self):
            yield b"<Code>NoSuchKey</Code>"
            while True:
                await anyio.sleep(1.0)
                yield b"x"

    with pytest.raises(APIStatusError, match="NoSuchKey x"):
        await try_once(partial_file, lambda _: Dripping(404, []))
    assert anyio.current_time() == 60.0


async def test_an_error_page_that_is_cut_is_the_same_error(partial_file):
    with pytest.raises(APIStatusError, match="NoSuchKey"):
        await try_once(partial_file, lambda _: Stream(404, [b"<Code>NoSuchKey</Code>", CUT]))


async def test_redirects_are_followed_without_the_key_and_with_the_range(partial_file):
    storage = Storage(VIDEO)
    await cut_at(partial_file, 4000, storage)
    service = Service(
        media={
            URL: Stream(302, [], {"location": "/b.mp4"}),
            "https://storage.example/b.mp4": Stream(307, [], {"location": "https://cdn.example/c.mp4"}),
            "https://cdn.example/c.mp4": storage,
        }
    )
    await try_once(partial_file, service)
    assert len(service.requests) == 3
    assert {request.headers["Range"] for request in service.requests} == {"bytes=4000-"}
    for request in service.requests:
        assert KEY not in repr(request.headers)
        assert "authorization" not in {name.lower() for name in request.headers}
    assert commit_and_read(partial_file) == VIDEO


@pytest.mark.parametrize(
    "location",
    [
        "http://other.example/x.mp4",
        "file:///etc/passwd",
        "https://[bad",
        "http://127.0.0.1:8000/admin",
        "https://10.0.0.1/",
    ],
)
async def test_a_redirect_to_an_unsafe_url_is_refused(partial_file, location):
    service = Service(media={URL: Stream(302, [], {"location": location})})
    with pytest.raises(DownloadError, match="is not fetched"):
        await try_once(partial_file, service)
    assert service.calls["media"] == 1


async def test_each_host_on_the_way_to_a_video_has_to_be_public_after_its_lookup_too(partial_file):
    other = "https://other.example/b.mp4"
    service = Service(media={URL: Stream(302, [], {"location": other}), other: Storage(VIDEO)})
    await try_once(partial_file, service)
    assert [request.is_public_only for request in service.requests] == [True, True]


async def test_redirects_in_a_circle_are_an_error(partial_file):
    service = Service(media={URL: Stream(302, [], {"location": URL})})
    with pytest.raises(DownloadError, match="more than 5 redirects"):
        await try_once(partial_file, service)
    assert service.calls["media"] == 6


async def test_a_redirect_without_a_location_is_an_error(partial_file):
    with pytest.raises(APIStatusError, match="HTTP 302"):
        await try_once(partial_file, lambda _: Stream(302, [b""]))


def digests(content, **names):
    return {
        field.replace("_", "-"): text.format(
            md5=base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode(),
            hex=hashlib.md5(content, usedforsecurity=False).hexdigest(),
            sha256=base64.b64encode(hashlib.sha256(content).digest()).decode(),
        )
        for field, text in names.items()
    }


PROOFS = pytest.mark.parametrize(
    "names",
    [
        {"content_md5": "{md5}"},
        {"x_goog_hash": "crc32c=AAAAAA==, md5={md5}"},
        {"repr_digest": "sha-256=:{sha256}:"},
        {"digest": "SHA-256={sha256}"},
        {"etag": '"{hex}"'},
        {"etag": '"0123456789abcdef0123456789abcdef"', "content_md5": "{md5}"},
        {"digest": "sha-256={sha256}, md5=AAAAAAAAAAAAAAAAAAAAAA=="},
    ],
    ids=str,
)
OTHER_SHA256 = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
DENIED = pytest.mark.parametrize(
    "names",
    [
        {"digest": f"sha-256={OTHER_SHA256}, md5={{md5}}"},
        {"repr_digest": f"sha-256=:{OTHER_SHA256}:", "etag": '"{hex}"'},
        {"repr_digest": f"sha-256=:{OTHER_SHA256}:", "x_goog_hash": "md5={md5}"},
        {"repr_digest": f"sha-256=:{OTHER_SHA256}:", "content_digest": "sha-256=:{sha256}:"},
        {"x_goog_hash": "md5=AAAAAAAAAAAAAAAAAAAAAA==", "content_md5": "{md5}"},
        {"etag": '"{hex}"', "digest": "md5=AAAAAAAAAAAAAAAAAAAAAA=="},
    ],
    ids=str,
)


@DENIED
@pytest.mark.parametrize("has_end", [True, False])
async def test_a_body_is_refused_if_the_strongest_digest_that_is_named_disagrees(
    partial_file, names, has_end
):
    for extra in (
        ({"content-length": str(len(VIDEO))}, {"transfer-encoding": "chunked"}) if has_end else ({},)
    ):
        answer = Stream(200, [VIDEO], digests(VIDEO, **names) | extra, has_end=has_end)
        with pytest.raises(APIConnectionError, match="its digest is not that of the 10,000 bytes that came"):
            await try_once(partial_file, lambda _, answer=answer: answer)
        assert partial_file.size == 0


async def test_an_etag_that_disagrees_says_nothing_about_a_body_whose_end_came(partial_file):
    headers = {"etag": '"0123456789abcdef0123456789abcdef"', "content-length": str(len(VIDEO))}
    await try_once(partial_file, lambda _: Stream(200, [VIDEO], headers))
    assert commit_and_read(partial_file) == VIDEO


@pytest.mark.parametrize("codings", ["gzip, chunked", "chunked, gzip", "gzip", "identity"])
async def test_a_body_in_a_transfer_coding_is_not_read(partial_file, codings):
    answer = Stream(200, [VIDEO], {"transfer-encoding": codings} | digests(VIDEO, content_md5="{md5}"))
    with pytest.raises(DownloadError, match=f"it comes compressed as '{codings}', which was not asked for"):
        await try_once(partial_file, lambda _: answer)
    assert partial_file.size == 0


async def test_a_part_with_the_status_of_the_whole_is_not_read(partial_file):
    headers = {"content-length": "9000", "content-range": "bytes 0-8999/10000"}
    with pytest.raises(APIConnectionError, match="only a part of it came: 'bytes 0-8999/10000'"):
        await try_once(partial_file, lambda _: Stream(200, [VIDEO[:9000]], headers))
    assert partial_file.size == 0
    whole = {"content-length": "10000", "content-range": "bytes 0-9999/10000"}
    await try_once(partial_file, lambda _: Stream(200, [VIDEO], whole))
    assert commit_and_read(partial_file) == VIDEO


@PROOFS
async def test_a_body_that_ends_with_its_connection_is_whole_if_a_digest_agrees(partial_file, names):
    await try_once(partial_file, lambda _: Stream(200, [VIDEO], digests(VIDEO, **names), has_end=False))
    assert commit_and_read(partial_file) == VIDEO


@PROOFS
async def test_a_body_that_ends_with_its_connection_is_not_whole_if_no_digest_agrees(partial_file, names):
    cut = Stream(200, [VIDEO[:-1]], digests(VIDEO, **names), has_end=False)
    with pytest.raises(APIConnectionError, match="its digest is not that of the 9,999 bytes that came"):
        await try_once(partial_file, lambda _: cut)
    assert partial_file.size == 0


@pytest.mark.parametrize(
    "headers, pieces",
    [
        ({}, [VIDEO]),
        ({"etag": '"v1"'}, [VIDEO]),
        ({"content-encoding": "gzip"}, [gzip.compress(VIDEO)]),
        ({"content-encoding": "gzip", **google_md5(VIDEO)}, [gzip.compress(VIDEO)]),
        ({"content-encoding": "gzip", **google_md5(gzip.compress(VIDEO))}, [gzip.compress(VIDEO)]),
    ],
    ids=["nothing", "an ETag", "gzip", "gzip and digest", "gzip and its digest"],
)
async def test_a_body_without_an_end_and_without_a_digest_is_not_read(partial_file, headers, pieces):
    with pytest.raises(APIConnectionError, match="without a length and without a digest, so it can be cut"):
        await try_once(partial_file, lambda _: Stream(200, pieces, headers, has_end=False))
    assert partial_file.size == 0


async def test_a_compressed_body_of_unknown_length_that_was_cut_is_an_error(partial_file):
    with pytest.raises(APIConnectionError, match="cut short"):
        await try_once(
            partial_file, lambda _: Stream(200, [gzip.compress(VIDEO)[:-1]], {"content-encoding": "gzip"})
        )
