from __future__ import annotations

import base64
import os
from decimal import Decimal
from pathlib import Path
from urllib.parse import unquote

import pytest

from kling_async._display.page import duration_text, media_source, picture_source, size_text, web_source
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.lines import clock_text, money_text
from kling_async.results import Result, ResultState

VIDEO = "https://storage.example/a.mp4"


def job_of(video: str | None = VIDEO, picture: str | None = None) -> Job:
    media = (Media(video),) if video else ()
    return Job(request_id="a", status=JobStatus.SUCCESS, outcome=Outcome(media=media, thumbnail_url=picture))


def result_of(*, path: Path | None = None, video: str | None = VIDEO, **fields) -> Result:
    given = {"state": ResultState.SUCCEEDED, "job": job_of(video), **fields}
    return Result(index=0, request=None, path=path, **given)


@pytest.mark.parametrize(
    "seconds, text",
    [
        (-3, "0.0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (187, "3 min 07 s"),
        (7_500, "2 h 05 min"),
        (4_000_000, "1,111 h 06 min"),
    ],
)
def test_a_duration_has_units(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize("seconds, text", [(-1, "0:00"), (0.9, "0:00"), (62, "1:02"), (3_723, "1:02:03")])
def test_a_clock_shows_whole_seconds(seconds, text):
    assert clock_text(seconds) == text


@pytest.mark.parametrize(
    "cost, text",
    [
        ("0", "$0.00"),
        ("1234.5", "$1,234.50"),
        ("0.350", "$0.35"),
        ("0.0350", "$0.035"),
        ("1E+3", "$1,000.00"),
    ],
)
def test_money_has_dollars_and_all_its_digits(cost, text):
    assert money_text(Decimal(cost)) == text


@pytest.mark.parametrize(
    "size, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.0 kB"),
        (3_140_000, "3.1 MB"),
        (9_960_000, "10 MB"),
        (2.4e13, "24 TB"),
        (2.4e16, "24,000 TB"),
    ],
)
def test_a_size_has_a_unit(size, text):
    assert size_text(size) == text


def test_a_file_is_named_relative_to_its_page(tmp_path):
    path = tmp_path / "videos" / "a b#1?.mp4"
    path.parent.mkdir()
    path.write_bytes(b"film")
    assert media_source(result_of(path=path), beside=tmp_path) == "videos/a%20b%231%3F.mp4"
    assert media_source(result_of(path=path), beside=tmp_path / "reports") == "../videos/a%20b%231%3F.mp4"
    assert media_source(result_of(path=path), beside=None) == path.as_uri()


@pytest.mark.parametrize(
    "name", ["javascript:alert(1).mp4", "https:", '"><script>.mp4', b"not-utf8-\xff.mp4"]
)
def test_a_file_name_is_never_read_as_a_scheme_or_as_html(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    path.write_bytes(b"film")
    source = media_source(result_of(path=path), beside=tmp_path)
    assert source is not None
    assert not set(source) & set(":\"<>'& ")
    assert os.fsencode(unquote(source, errors="surrogateescape")) == os.fsencode(path)


def test_a_file_without_a_relative_address_has_an_absolute_one(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"film")

    def other_drive(*_):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", other_drive)
    assert media_source(result_of(path=path), beside=tmp_path) == path.as_uri()


def test_a_small_file_may_become_part_of_the_page(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"film")
    inlined = media_source(result_of(path=path), beside=tmp_path, inline_bytes=4)
    assert inlined == f"data:video/mp4;base64,{base64.b64encode(b'film').decode()}"
    assert media_source(result_of(path=path), beside=tmp_path, inline_bytes=3) == "a.mp4"


def test_a_missing_file_is_replaced_by_the_address_at_the_service(tmp_path):
    assert media_source(result_of(path=tmp_path / "gone.mp4"), beside=tmp_path) == VIDEO
    assert media_source(result_of(path=Path("a\x00b")), beside=tmp_path) == VIDEO


def test_a_result_without_a_video_has_no_address():
    assert media_source(result_of(video=None), beside=None) is None
    assert media_source(result_of(job=None), beside=None) is None


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "file:///etc/passwd",
        "http://storage.example/a.mp4",
        "//storage.example/a.mp4",
        "https://user@storage.example/a.mp4",
        "https://storage.example/a\n.mp4",
        "https://[",
    ],
)
def test_only_what_a_download_would_fetch_becomes_an_address(url):
    assert web_source(url) is None
    assert media_source(result_of(video=url), beside=None) is None
    assert picture_source(job_of(picture=url)) is None


@pytest.mark.parametrize("url", [VIDEO, "http://127.0.0.1:8000/a.mp4", "http://localhost/a.mp4"])
def test_the_services_own_addresses_stay_as_they_are(url):
    assert web_source(url) == url


@pytest.mark.parametrize(
    "picture, expected",
    [
        ("https://storage.example/a.jpg", "https://storage.example/a.jpg"),
        (VIDEO, None),
        ("https://storage.example/other.MP4?x=1", None),
        (None, None),
    ],
)
def test_a_still_is_no_video(picture, expected):
    assert picture_source(job_of(picture=picture)) == expected


def test_a_result_without_a_job_has_no_still():
    assert picture_source(None) is None
