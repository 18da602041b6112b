from __future__ import annotations

import base64
import hashlib
import os
import re
import stat
from pathlib import Path

import pytest
from page_reader import read
from virtual_service import Service, VirtualLoop

from kling_async import (
    BatchResult,
    ConfigurationError,
    Job,
    JobStatus,
    KlingClient,
    KlingError,
    Media,
    Outcome,
    Result,
    ResultState,
)
from kling_async import report as room
from kling_async._policy.file_names import partial_name
from kling_async.report import check_target, report_html, write_report
from kling_async.requests import VideoRequest

VIDEO, STILL = "https://storage.example/a.mp4", "https://pictures.example:8443/a.jpg"


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


def result_of(index=0, *, video: str | None = VIDEO, still: str | None = None, path=None) -> Result:
    media = (Media(video),) if video else ()
    job = Job(request_id="a", status=JobStatus.SUCCESS, outcome=Outcome(media=media, thumbnail_url=still))
    request = VideoRequest(f"prompt {index}")
    return Result(index=index, request=request, state=ResultState.SUCCEEDED, job=job, path=path)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def policy_of(page: str) -> dict[str, list[str]]:
    (meta,) = (tag for tag in read(page).all("meta") if "http-equiv" in tag.attributes)
    rules = (rule.split() for rule in meta.attributes["content"].split(";"))
    return {name: allowed for name, *allowed in rules}


async def test_a_batch_writes_its_report_beside_its_videos(tmp_path):
    client = KlingClient("key", transport=Service(run_time=5.0))
    batch = await client.generate_many(["a cat", "a dog"], output=tmp_path / "videos")
    path = batch.write_report(tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    page = read(path.read_text(encoding="utf-8"))
    assert page.one("h1").text == page.one("title").text == "2 of 2 videos made"
    for screen, file in zip(page.all("a", class_="screen"), batch.paths, strict=True):
        assert tmp_path / screen.attributes["href"] == file
    assert page.one("h2", id="time-line").text == "Time line"
    assert sorted((tmp_path / "videos").iterdir()) == sorted(batch.paths)
    assert names_in(tmp_path) == ["report.html", "videos"]


def test_results_without_a_history_have_a_report_without_a_time_line(tmp_path):
    page = read(write_report(BatchResult((result_of(),)), tmp_path / "r.html").read_text("utf-8"))
    assert len(page.all("li", class_="card")) == 1
    assert page.all("h2", id="time-line") == []


def test_a_batch_of_nothing_has_a_report(tmp_path):
    page = read(report_html(BatchResult(()), beside=tmp_path))
    assert page.all("p", class_="interrupted") == []
    assert page.one("h1").text == "0 of 0 videos made"


@pytest.mark.parametrize("missing, words", [(1, "1 video had"), (1_200, "1,200 videos had")])
def test_a_report_of_an_interrupted_batch_says_how_many_items_are_missing(tmp_path, missing, words):
    page = read(report_html(BatchResult((result_of(),)), beside=tmp_path, missing=missing))
    (paragraph,) = page.all("p", class_="interrupted")
    assert paragraph.text.startswith(f"Interrupted: {words} not ended")
    assert page.one("h1").text == f"1 of {missing + 1:,} videos made"
    assert page.all("dd")[0].text == f"1 of {missing + 1:,}"


def test_the_folder_is_made_and_a_former_report_replaced(tmp_path):
    target = tmp_path / "a" / "b" / "r.html"
    write_report(BatchResult(()), target)
    write_report(BatchResult((result_of(),)), os.fspath(target))
    assert "1 of 1 videos made" in target.read_text("utf-8")
    assert names_in(target.parent) == ["r.html"]


@pytest.mark.parametrize(
    "name, reason",
    [
        ("taken/r.html", "File exists|Not a directory"),
        ("folder", "Is a directory"),
        (".", "Is a directory"),
        ("a\x00b", "null"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_path_that_cannot_be_written_is_one_sentence_and_leaves_nothing(
    tmp_path, monkeypatch, name, reason
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(KlingError, match=reason) as caught:
        write_report(BatchResult(()), name)
    assert str(caught.value).startswith(f"The report cannot be written to {name!r}: ")
    assert names_in(tmp_path) == ["folder", "taken"]


def test_the_policy_names_the_pages_own_style_and_script_and_nothing_else(tmp_path):
    page = report_html(BatchResult(()), beside=tmp_path)
    allowed = policy_of(page)
    assert allowed.pop("default-src") == ["'none'"]
    for rule, tag in (("style-src", "style"), ("script-src", "script")):
        (text,) = re.findall(f"<{tag}>(.*)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert allowed.pop(rule) == [f"'sha256-{digest}'"]
    assert allowed == {
        "media-src": ["'none'"],
        "img-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
    }


def test_the_policy_allows_media_from_the_origins_of_the_results(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"film")
    results = (
        result_of(0, path=tmp_path / "a.mp4"),
        result_of(1, still=STILL),
        result_of(2, video="http://[::1]:8000/a.mp4"),
        result_of(3, video="https://a;script-src.example/a.mp4"),
    )
    allowed = policy_of(report_html(BatchResult(results), beside=tmp_path))
    assert allowed["media-src"] == ["'self'", "http:", "https:", "https://storage.example"]
    assert allowed["img-src"] == ["https://pictures.example:8443"]
    assert len(allowed["script-src"]) == 1


def test_the_page_names_no_address_but_those_of_its_videos(tmp_path):
    page = report_html(BatchResult((result_of(),)), beside=tmp_path)
    assert set(re.findall(r"https?://[\w.]+", page)) == {"https://storage.example"}


def test_a_report_of_too_many_results_shows_the_first_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MAX_CARDS", 3)
    page = read(report_html(BatchResult(tuple(map(result_of, range(5)))), beside=tmp_path))
    assert [card.attributes["id"] for card in page.all("li", class_="card")] == ["job-0", "job-1", "job-2"]
    assert "The first 3 of 5." in page.text
    assert page.one("h1").text == "5 of 5 videos made"


def test_every_id_is_unique_and_every_label_refers_to_one(tmp_path):
    page = read(report_html(BatchResult(tuple(map(result_of, range(3)))), beside=tmp_path))
    elements = list(_within(page))
    ids = [element.attributes["id"] for element in elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    labels = {element.attributes.get("aria-labelledby") for element in elements} - {None}
    assert labels <= set(ids)


def _within(element):
    for part in element.parts:
        if not isinstance(part, str):
            yield part
            yield from _within(part)


def test_a_path_of_any_kind_is_taken(tmp_path):
    class Elsewhere(os.PathLike):
        def __fspath__(self):
            return os.fspath(tmp_path / "r.html")

    assert BatchResult(()).write_report(Elsewhere()) == Path(tmp_path, "r.html")


@pytest.mark.parametrize("place", ["s3://bucket/report.html", 5, ""], ids=repr)
def test_a_report_is_a_file_on_this_machine(place):
    for call in (room.check_target, lambda place: write_report([], place)):
        with pytest.raises(room.ConfigurationError, match="path="):
            call(place)


@pytest.fixture(params=["symbolic link", "hard link", "pipe", "folder"])
def trap(request, tmp_path):
    """What another user puts where the partial file of a report is expected, and the file that is to be overwritten."""
    victim, trap = tmp_path / "victim", tmp_path / "r.html.part"
    victim.write_text("precious")
    match request.param:
        case "symbolic link":
            trap.symlink_to(victim)
        case "hard link":
            trap.hardlink_to(victim)
        case "pipe":
            os.mkfifo(trap)
        case "folder":
            trap.mkdir()
    return victim


def test_a_trap_at_the_partial_file_is_passed_by(trap, tmp_path):
    check_target(tmp_path / "r.html")
    assert write_report(BatchResult(()), tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert trap.read_text() == "precious"
    assert names_in(tmp_path) == ["r.html", "r.html.part", "victim"]


@pytest.mark.parametrize("name", [".", "folder", "x" * 300])
def test_a_target_that_takes_no_report_is_known_before_anything_is_paid_for(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=r"The report cannot be written to '.+Choose another file"):
        check_target(name)
    assert names_in(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    "content",
    [
        b"A kite over dunes\n",
        b"SQLite format 3\x00",
        b"prompt,duration\r\nA kite,5",
        b"<",
        b"\xff\xfe",
        b"<!DOCTYPE html>\n<p>Mine",
        b'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>',
    ],
)
def test_a_file_that_is_no_report_is_never_replaced(tmp_path, content):
    target = tmp_path / "prompts.txt"
    target.write_bytes(content)
    for call in (check_target, lambda path: write_report(BatchResult(()), path)):
        with pytest.raises(
            KlingError, match=r"a file is there that is no report of kling_async\. Choose another file\."
        ):
            call(target)
    assert target.read_bytes() == content
    assert names_in(tmp_path) == ["prompts.txt"]


def test_a_pipe_is_never_replaced_by_a_report(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for call in (check_target, lambda path: write_report(BatchResult(()), path)):
        with pytest.raises(KlingError, match="it is no regular file"):
            call(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.parametrize("is_report", [False, True])
def test_an_empty_file_and_a_former_report_are_replaced(tmp_path, is_report):
    target = tmp_path / "r.html"
    target.touch()
    if is_report:
        write_report(BatchResult(()), target)
    check_target(target)
    assert write_report(BatchResult(()), target).read_bytes().startswith(b"<!doctype html>\n<html")


def test_a_thousand_traps_are_an_error(tmp_path):
    for number in range(1_000):
        (tmp_path / partial_name("r.html", number + 1)).touch()
    with pytest.raises(KlingError, match="all names for its partial file are taken"):
        write_report(BatchResult(()), tmp_path / "r.html")


@pytest.mark.parametrize("umask", [0o022, 0o000], ids=oct)
def test_a_report_is_for_its_owner_alone_until_that_user_gives_it_another_mode(tmp_path, umask):
    before, path = os.umask(umask), tmp_path / "report.html"
    try:
        write_report([result_of()], path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        write_report([result_of()], path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(before)


def test_a_report_gets_no_mode_of_a_link_that_it_replaces(tmp_path):
    (tmp_path / "theirs").touch(mode=0o644)
    (tmp_path / "report.html").symlink_to(tmp_path / "theirs")
    write_report([result_of()], tmp_path / "report.html")
    assert stat.S_IMODE((tmp_path / "report.html").lstat().st_mode) == 0o600
