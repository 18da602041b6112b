from __future__ import annotations

from pathlib import Path

import pytest

from kling_async import ConfigurationError
from kling_async.paths import ObjectUrl, expand_home, is_object_url, local_path, output_path


@pytest.mark.parametrize("given", ["videos", "videos/", "/a/b.mp4", "C:\\videos", "C:/videos", "a:b", "2:/x"])
def test_a_path_stays_as_it_is(given):
    assert local_path(given, name="output") == given


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.setenv("USERPROFILE", "/home/a")
    assert local_path("~/videos/", name="output") == "/home/a/videos/"
    assert local_path(Path("~"), name="output") == "/home/a"


@pytest.mark.parametrize(
    "given", ["s3://bucket/videos/", "gs://b", "file:///videos", "HTTPS://a.example", Path("s3://bucket/v")]
)
def test_a_url_is_refused(given):
    with pytest.raises(ConfigurationError, match=r"output='.+' is a URL: give the path"):
        local_path(given, name="output")


@pytest.mark.parametrize("given", [5, b"videos", True, ["videos"], "", "  ", ":memory:", None])
def test_a_value_that_names_no_file_is_refused(given):
    with pytest.raises(ConfigurationError, match=r"output=.+ is not the path"):
        local_path(given, name="output")


def test_an_unknown_home_folder_is_refused():
    with pytest.raises(
        ConfigurationError, match=r"output='~no-such-user/v' names a home folder that is not known"
    ):
        local_path("~no-such-user/v", name="output")


def test_the_home_folder_of_a_picture_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.setenv("USERPROFILE", "/home/a")
    assert expand_home("~/a.png") == "/home/a/a.png"
    assert expand_home(Path("~/a.png")) == "/home/a/a.png"
    assert expand_home("https://a.example/~/a.png") == "https://a.example/~/a.png"
    assert expand_home(5) == 5


@pytest.mark.parametrize(
    "given, scheme, bucket, key",
    [
        ("s3://bucket", "s3", "bucket", ""),
        ("s3://bucket/", "s3", "bucket", ""),
        ("S3://my.bucket-1/videos/a b/é.mp4", "s3", "my.bucket-1", "videos/a b/é.mp4"),
        ("gs://b/videos/", "gs", "b", "videos/"),
        ("az://container/x", "az", "container", "x"),
    ],
)
def test_a_url_of_an_object_store_is_read(given, scheme, bucket, key):
    url = output_path(given, name="output")
    assert isinstance(url, ObjectUrl)
    assert (url.scheme, url.bucket, url.key) == (scheme, bucket, key)
    assert output_path(url, name="output") == url


@pytest.mark.parametrize(
    "given, is_prefix",
    [
        ("s3://b", True),
        ("s3://b/v", True),
        ("s3://b/v.d/", True),
        ("s3://b/a.mp4", False),
        ("s3://b/v/a.mp4", False),
    ],
)
def test_a_url_that_ends_in_a_slash_or_has_no_suffix_is_a_prefix(given, is_prefix):
    assert ObjectUrl(given).is_prefix is is_prefix


@pytest.mark.parametrize("given", ["s3://b/v", "s3://b/v/"])
def test_a_url_has_the_names_of_a_path(given):
    assert ObjectUrl(given).child("a.mp4") == "s3://b/v/a.mp4"
    assert ObjectUrl("s3://b/v/a.mp4").name == "a.mp4"
    assert ObjectUrl("s3://b/v/a.mp4").with_name("b.mp4") == "s3://b/v/b.mp4"
    assert ObjectUrl("s3://b").child("a.mp4") == "s3://b/a.mp4"
    assert is_object_url("s3://b/a.mp4")
    assert not is_object_url("/s3/a.mp4")


@pytest.mark.parametrize(
    "given, path",
    [
        ("file:///videos/", "/videos/"),
        ("FILE://localhost/a%20b.mp4", "/a b.mp4"),
        ("file:/videos", "/videos"),
        ("~/v", None),
        ("videos", "videos"),
    ],
)
def test_a_path_and_a_file_url_are_places_on_this_machine(given, path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.setenv("USERPROFILE", "/home/a")
    assert output_path(given, name="output") == (path or "/home/a/v")
    assert not isinstance(output_path(given, name="output"), ObjectUrl)


@pytest.mark.parametrize(
    "given, words",
    [
        ("https://bucket.example/videos", "neither a path on this machine nor the URL of an object store"),
        ("s3a://bucket/videos", "neither a path on this machine nor the URL of an object store"),
        (Path("s3://bucket/videos"), "has one slash after the colon, as in a Path"),
        ("s3://", "names no bucket"),
        ("s3:///videos", "names no bucket"),
        ("s3://bucket:9000/videos", "names no bucket"),
        ("s3://bücket/videos", "names no bucket"),
        ("s3://bucket/a//b", "empty segment"),
        ("s3://bucket//", "empty segment"),
        ("s3://bucket/../b", "empty segment, '.', '..'"),
        ("s3://bucket/a\nb", "unprintable"),
        ("s3://bucket/" + "é" * 401, "too long"),
        ("file://host/videos", "of another host"),
        (b"s3://bucket", "is not the path"),
    ],
)
def test_any_other_place_is_refused_in_one_sentence(given, words):
    with pytest.raises(ConfigurationError) as refused:
        output_path(given, name="output")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        "s3://key:hidden@bucket/videos",
        "s3://key:hid/den@bucket/videos",
        "s3://bucket/videos?X-Amz-Signature=hidden",
        "s3://bucket/videos#hidden",
        "gs:/key:hidden@bucket",
        "https://user:hidden@host/videos",
        "file:///videos?hidden",
    ],
)
def test_a_url_that_can_hold_a_secret_is_refused_without_it(given):
    for read in (output_path, local_path):
        with pytest.raises(ConfigurationError) as refused:
            read(given, name="output")
        assert "hid" not in str(refused.value)
        assert "bucket/videos?" not in str(refused.value)
