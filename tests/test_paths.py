from __future__ import annotations

from pathlib import Path

import pytest

from kling_async import ConfigurationError
from kling_async.paths import expand_home, local_path


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
