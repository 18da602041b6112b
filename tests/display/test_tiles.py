from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from html_page import Page
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from kling_async._display.colors import SLATE, TEAL
from kling_async._display.tiles import (
    Tile,
    fold,
    make_job_tile,
    make_tile,
    render_tile,
    wrap,
)
from kling_async.errors import DownloadError, JobFailedError, WaitTimeoutError
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.lines import one_line
from kling_async.requests import VideoRequest
from kling_async.results import Result, ResultState

VIDEO = "https://storage.example/a.mp4"
PICTURE = "https://storage.example/a.jpg"
AT = datetime(2026, 1, 1, tzinfo=UTC)
VOID = {"img", "br", "source"}
HOSTILE = [
    "</script><script>hit()</script>",
    '"></video><img src=x onerror="hit()">',
    "' autofocus onfocus='hit()",
    "\u202eright to left \u05d0\u05d1",
    "👩\u200d🚀 水墨",
    "nul \x00 and lone \ud800",
    "x" * 2_500,
]


def job_of(status=JobStatus.SUCCESS, *, video=VIDEO, picture=PICTURE, **fields) -> Job:
    media = (Media(video),) if video else ()
    outcome = Outcome(media=media, thumbnail_url=picture, error=fields.pop("reason", None))
    return Job(request_id="job-1", status=status, outcome=outcome, **fields)


def result_of(prompt="rain", state=ResultState.SUCCEEDED, **fields) -> Result:
    request = VideoRequest.__new__(VideoRequest) if prompt is None else VideoRequest(prompt, model="any")
    return Result(index=7, state=state, **{"request": request, "job": job_of(), **fields})


def page_of(result: Result, tmp_path: Path = Path(), **options) -> Page:
    return Page(wrap(render_tile(make_tile(result, beside=tmp_path, **options))))


def test_a_video_at_the_service_is_not_loaded_before_it_is_played():
    page = page_of(result_of())
    video = page.first("video")
    assert (video["src"], video["poster"], video["preload"]) == (VIDEO, PICTURE, "none")
    assert "controls" in video
    assert page.first("a")["href"] == VIDEO
    assert page.text == "#7 rain● succeeded · video"


@pytest.mark.parametrize("picture", [None, VIDEO, "javascript:hit()"])
def test_without_a_picture_the_video_shows_its_beginning(picture):
    video = page_of(result_of(job=job_of(picture=picture))).first("video")
    assert "poster" not in video
    assert video["preload"] == "metadata"


def test_a_saved_video_is_played_from_its_file(tmp_path):
    path = tmp_path / "videos" / "a.mp4"
    path.parent.mkdir()
    path.write_bytes(b"video")
    page = page_of(result_of(path=path), tmp_path)
    assert page.first("video")["src"] == "videos/a.mp4"
    assert page.first("video")["preload"] == "metadata"
    assert page.first("a")["title"] == str(path)
    assert page.text.endswith("file")


def test_a_small_file_becomes_part_of_the_page_and_needs_no_link(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"video")
    page = page_of(result_of(path=path), tmp_path, inline_bytes=5)
    assert page.first("video")["src"].startswith("data:video/mp4;base64,")
    assert page.first("a") is None
    assert page_of(result_of(path=path), tmp_path, inline_bytes=4).first("a")["href"] == "a.mp4"


@pytest.mark.parametrize("picture, poster", [(PICTURE, PICTURE), ("http://127.0.0.1:8000/a.jpg", None)])
def test_a_saved_video_has_no_picture_from_an_emulator(tmp_path, picture, poster):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"video")
    page = page_of(result_of(path=path, job=job_of(picture=picture)), tmp_path)
    assert page.first("video").get("poster") == poster


def test_a_file_that_is_gone_is_no_source():
    page = page_of(result_of(path=Path("gone.mp4")))
    assert page.first("video")["src"] == VIDEO
    assert page.text.endswith("video")


@pytest.mark.parametrize("url", ["javascript:hit()", "data:text/html,<b>", "http://far.example/a.mp4", None])
def test_an_unsafe_address_gives_no_player_and_no_link(url):
    page = page_of(result_of(job=job_of(video=url)))
    assert page.first("video") is None
    assert page.first("a") is None
    assert "succeeded" in page.text


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_stays_text(text):
    job = job_of(
        JobStatus.FAILED, video=f"{VIDEO}?{text}", reason=text, payload={"prompt": text}, raw={"status": text}
    )
    result = Result(index=0, request=None, state=ResultState.FAILED, job=job)
    visible = text.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    for page, shown in (
        (page_of(result), visible),
        (Page(wrap(render_tile(make_job_tile(job)))), visible),
        (
            Page(wrap(render_tile(make_job_tile(job_of(JobStatus.UNKNOWN, raw={"status": text}))))),
            one_line(text)[:50],
        ),
    ):
        assert page.tags <= {"div", "span", "bdi", "a", "video", "details", "summary"}
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert shown in page.text


@given(st.text(), st.text(), st.text())
def test_no_text_of_a_tile_becomes_a_tag(prompt, words, trouble):
    tile = Tile(
        name="#0",
        prompt=prompt,
        state=words,
        color=TEAL.any_ground,
        facts=(words,),
        trouble=trouble,
        source=VIDEO,
        path=Path("a"),
        picture=PICTURE,
    )
    page = Page(wrap(render_tile(tile)))
    assert page.tags <= {"div", "span", "bdi", "a", "video", "details", "summary"}


def test_no_reader_of_formulas_looks_into_an_output():
    tag, attributes = Page(wrap(Markup("from $1.40 to $2.80"))).elements[0]
    assert (tag, attributes["class"].split()) == ("div", ["mathjax_ignore", "tex2jax_ignore"])


def test_a_long_text_is_folded_and_complete():
    page = Page(fold("word " * 100, 50))
    assert page.first("details") is not None
    assert "word " * 100 in page.text
    assert Page(fold("word", 4)).first("details") is None


def test_a_failure_shows_its_state_and_the_services_own_words():
    job = job_of(JobStatus.FAILED, video=None, reason="Content refused")
    page = page_of(
        result_of(state=ResultState.FAILED, job=job, error=JobFailedError("Job job-1 failed at …"))
    )
    assert page.text == "● failed#7 rainContent refused"


def test_without_the_services_words_the_error_is_shown():
    error = WaitTimeoutError("still running")
    page = page_of(result_of(state=ResultState.TIMED_OUT, job=None, error=error))
    assert page.text == "● timed out#7 rainstill running"


def test_a_success_that_was_not_saved_says_why():
    page = page_of(result_of(error=DownloadError("the disk is full")))
    assert "made, not saved" in page.text
    assert "the disk is full" in page.text


def test_time_and_cost_are_shown_where_they_are_known():
    job = job_of(created_at=AT, updated_at=AT + timedelta(seconds=125))
    page = page_of(result_of(job=job, cost_usd=Decimal("0.35")))
    assert "● succeeded · 2 min 05 s · $0.35" in page.text
    assert "42 s" in page_of(result_of(job=job), seconds=42.0).text


@pytest.mark.parametrize(
    "job",
    [
        job_of(),
        job_of(created_at=AT),
        job_of(JobStatus.PROCESSING, video=None, created_at=AT, updated_at=AT),
    ],
)
def test_a_job_without_times_shows_no_time(job):
    assert make_job_tile(job).facts == ()


def test_a_job_shows_itself_by_its_id_and_status():
    job = job_of(JobStatus.PROCESSING, video=None, payload={"prompt": "rain"})
    assert Page(wrap(render_tile(make_job_tile(job)))).text == "● processingjob-1 rain"


@pytest.mark.parametrize("payload", [{}, {"prompt": None}, {"prompt": 7}])
def test_a_job_without_a_prompt_in_its_record_says_so(payload):
    assert "no prompt known" in Page(wrap(render_tile(make_job_tile(job_of(payload=payload))))).text


def test_an_item_that_could_not_be_read_has_no_prompt():
    result = Result(index=7, request=None, state=ResultState.NOT_SUBMITTED)
    assert page_of(result).text == "● not submitted#7 no prompt known"


def test_a_status_without_a_color_of_its_own_is_slate():
    assert make_job_tile(job_of(JobStatus.QUEUED)).color == SLATE.any_ground
