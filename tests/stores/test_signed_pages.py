from __future__ import annotations

import re
import sys
from urllib.parse import urlsplit

import pytest

from kling_async import BatchResult, ConfigurationError, Job, JobStatus, Media, Outcome, Result, ResultState
from kling_async.notebook import Gallery
from kling_async.types import ObjectUrl

VIDEO = "https://storage.example/a.mp4"
URL = ObjectUrl("s3://videos/batch/00000-a.mp4")


def batch_of(*paths):
    job = Job(request_id="job-1", status=JobStatus.SUCCESS, outcome=Outcome(media=(Media(VIDEO),)))
    return BatchResult(
        tuple(
            Result(index=index, request=None, state=ResultState.SUCCEEDED, job=job, path=path)
            for index, path in enumerate(paths)
        )
    )


def links_of(page):
    return [urlsplit(link.replace("&amp;", "&")) for link in re.findall(r'(?:href|src)="([^"]+)"', page)]


def test_a_page_plays_a_stored_video_from_the_service_and_names_its_object(store, tmp_path):
    batch = batch_of(URL)
    for page in (batch.write_report(tmp_path / "r.html").read_text(), batch._repr_html_()):
        assert {link.netloc for link in links_of(page) if link.netloc} == {"storage.example"}
        assert URL in page
        assert "X-Amz" not in page


def test_a_page_with_signed_urls_plays_the_objects(store, tmp_path):
    batch = batch_of(URL, tmp_path / "b.mp4", None)
    (tmp_path / "b.mp4").write_bytes(b"local")
    pages = (
        batch.write_report(tmp_path / "r.html", signed_for=3600).read_text(),
        Gallery(batch, signed_for=3600)._repr_html_(),
    )
    for page in pages:
        (signed, *_) = [link for link in links_of(page) if "X-Amz-Signature=" in link.query]
        assert f"{signed.scheme}://{signed.netloc}" == store.endpoint
        assert signed.path == "/videos/batch/00000-a.mp4"
        assert "X-Amz-Expires=3600" in signed.query
        assert "secret-of-the-store" not in page
        assert URL in page
    assert f"media-src 'self' {store.endpoint} https://storage.example" in pages[0].replace("&#39;", "'")
    assert store.requests == []


@pytest.mark.parametrize("seconds", [0, -5, 604_801, "60", True, float("nan")])
def test_a_time_that_no_signature_holds_is_refused(store, tmp_path, seconds):
    for make in (
        lambda: batch_of(URL).write_report(tmp_path / "r.html", signed_for=seconds),
        lambda: Gallery(batch_of(URL), signed_for=seconds),
    ):
        with pytest.raises(ConfigurationError, match="holds for 1 to 604,800 seconds"):
            make()
    assert not (tmp_path / "r.html").exists()


def test_a_page_without_stored_videos_needs_no_obstore(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert batch_of(None).write_report(tmp_path / "r.html", signed_for=60).exists()


def test_a_store_without_credentials_cannot_sign(store, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="cannot be signed: "):
        batch_of(URL).write_report(tmp_path / "r.html", signed_for=60)


def test_an_endpoint_that_is_no_url_cannot_sign(store, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not a URL")
    with pytest.raises(ConfigurationError, match="cannot be signed: a setting of the store"):
        batch_of(URL).write_report(tmp_path / "r.html", signed_for=60)
