from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from kling_async import ConfigurationError, DownloadError, Job, JobStatus, KlingClient
from kling_async._engine.download.output_folder import (
    OutputFolder,
    open_folder,
)
from kling_async._engine.download.outputs import Outputs
from kling_async._policy.file_names import longest_name

LONGEST_PATH = 4095
"""In bytes, without the NUL at the end. Source: `PATH_MAX` of Linux."""


def job_named(request_id="550e8400-e29b-41d4-a716-446655440000", prompt="A Cat/Dog"):
    return Job(request_id=request_id, status=JobStatus.SUCCESS, payload={"prompt": prompt})


def folder_of_length(base, size_bytes):
    """A path of so many bytes."""
    while (left := size_bytes - len(os.fsencode(base)) - 1) > 0:
        base = base / ("d" * (left if left <= 200 else min(200, left - 2)))
    assert len(os.fsencode(base)) == size_bytes
    return base


async def test_the_folder_of_a_batch_is_made_and_left_empty(tmp_path):
    folder = await open_folder(tmp_path / "deep" / "videos")
    assert folder == OutputFolder(tmp_path / "deep" / "videos", has_ascii_names=False)
    assert list(folder.path.iterdir()) == []


async def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/videos': Not a directory\. Choose another folder"):
        await open_folder(tmp_path / "file" / "videos")
    with pytest.raises(ConfigurationError, match="null"):
        await open_folder(Path("bad\0name"))


@pytest.mark.parametrize("ascii_names", [False, True])
async def test_a_folder_whose_path_leaves_no_room_for_the_longest_name_is_an_error(tmp_path, ascii_names):
    fits = LONGEST_PATH - len(f"/{longest_name(is_ascii=True)}")
    assert (await open_folder(folder_of_length(tmp_path, fits), ascii_names=ascii_names)).has_ascii_names
    with pytest.raises(ConfigurationError, match=r"too long\. Choose a folder with a shorter path"):
        await open_folder(folder_of_length(tmp_path, fits + 1), ascii_names=ascii_names)


async def test_a_file_system_that_refuses_other_letters_gets_ascii_names(tmp_path, monkeypatch):
    make = tempfile.mkstemp

    def refuse(prefix, **options):
        if not prefix.isascii():
            raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ))
        return make(prefix=prefix, **options)

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    folder = await open_folder(tmp_path)
    assert folder.path_for(job_named(prompt="一只黑狗"), index=3).name == "00003-550e8400.mp4"


async def test_a_folder_on_a_full_disk_is_an_error_and_left_empty(tmp_path, monkeypatch):
    def fail(_descriptor, _content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(ConfigurationError, match="No space left"):
        await open_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_in_a_folder_shows_the_prompt_that_was_given_or_recorded(tmp_path):
    folder = OutputFolder(tmp_path, has_ascii_names=False)
    assert folder.path_for(job_named()) == tmp_path / "kling-a-cat-dog-550e8400.mp4"
    assert folder.path_for(job_named(), prompt="雨", index=0) == tmp_path / "00000-雨-550e8400.mp4"
    assert folder.path_for(job_named(prompt=7)) == tmp_path / "kling-550e8400.mp4"


@pytest.mark.parametrize("given", ["{}/clips/", "{}/clips", "{}", "{}/"])
async def test_a_folder_or_a_missing_path_without_a_suffix_is_a_folder(tmp_path, given):
    chosen = await Outputs().choose(given.format(tmp_path), job_named("../../x"))
    folder = Path(given.format(tmp_path))
    assert chosen.path.parent == folder
    assert chosen.path.name.startswith("kling-a-cat-dog-")
    assert [path.parent for path in chosen.fallbacks] == [folder]
    assert os.listdir(folder) == []  # noqa: PTH208


async def test_any_other_destination_is_a_file_with_a_name_to_fall_back_on(tmp_path):
    (tmp_path / "clips").touch()
    for name, beside in [("clips", "clips-550e8400"), ("a.mp4", "a-550e8400.mp4")]:
        chosen = await Outputs().choose(str(tmp_path / name), job_named())
        assert (chosen.path, chosen.fallbacks[0]) == (tmp_path / name, tmp_path / beside)


@pytest.mark.parametrize("name", ["a.mp4", "x" * 251 + ".mp4", "clips/", "clips", "deep/a.mp4"])
async def test_a_destination_is_tried_and_left_empty(tmp_path, name):
    await Outputs().check(f"{tmp_path}/{name}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "name, sentence",
    [
        (
            "x" * 252 + ".mp4",
            r"The video cannot be saved to '.+': File name too long\. Choose a file with a shorter",
        ),
        ("file/a.mp4", r"The video cannot be saved to '.+file/a\.mp4': .+\. Choose another file"),
        ("file/", r"Videos cannot be saved in '.+file': .+\. Choose another folder"),
    ],
)
async def test_a_destination_that_takes_no_video_is_an_error_before_it_is_needed(tmp_path, name, sentence):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=sentence):
        await Outputs().check(f"{tmp_path}/{name}")


async def test_a_short_name_fits_where_the_longest_does_not(tmp_path):
    folder = folder_of_length(tmp_path, LONGEST_PATH - len("/a.mp4.99.part.json"))
    await Outputs().check(f"{folder}/a.mp4")
    with pytest.raises(ConfigurationError, match="shorter path"):
        await Outputs().check(f"{folder}/ab.mp4")


async def test_a_name_in_a_folder_is_ascii_if_the_caller_wants_that(tmp_path):
    chosen = await Outputs().choose(str(tmp_path), job_named(prompt="雨 rain"), ascii_names=True)
    assert chosen.path.name == "kling-rain-550e8400.mp4"


async def test_the_home_folder_is_expanded_and_a_url_of_the_web_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    without_video = job_named()
    async with KlingClient("a-key-of-the-tests") as client:
        with pytest.raises(DownloadError):
            await client.download(without_video, "~/new/")
        with pytest.raises(ConfigurationError, match=r"destination='https://host/a\.mp4' is neither"):
            await client.download(without_video, "https://host/a.mp4")
    assert (tmp_path / "new").is_dir()
