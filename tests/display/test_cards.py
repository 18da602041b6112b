from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_reader import read

from kling_async._display.cards import Card, card_html, make_cards
from kling_async._display.colors import STATE_COLORS, state_class
from kling_async._display.timeline import WORDS, Row, Segment
from kling_async._policy.job_end import error_of
from kling_async._secrets import Secret
from kling_async.errors import AmbiguousSubmitError, DownloadError, InvalidRequestError
from kling_async.history import TimeSpan
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.requests import VideoRequest
from kling_async.results import Result, ResultState

VIDEO, STILL = "https://storage.example/a.mp4", "https://storage.example/a.jpg"
MADE = Job(
    request_id="job-a",
    status=JobStatus.SUCCESS,
    outcome=Outcome(media=(Media(VIDEO),), thumbnail_url=STILL),
)
FAILED = Job(request_id="job-a", status=JobStatus.FAILED, outcome=Outcome(error="policy"))
CANCELLED = Job(request_id="job-a", status=JobStatus.CANCELLED)


def result_of(**fields) -> Result:
    given = {"request": VideoRequest("a cat"), "state": ResultState.SUCCEEDED, "job": MADE, **fields}
    return Result(index=7, **given)


def card_of(folder, *, row=None, **fields):
    result = result_of(**fields)
    (card,) = make_cards([result], beside=folder, rows={7: row} if row else {})
    return card, read(card_html(card)).one("li")


def test_a_card_links_to_a_saved_video_and_loads_nothing(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"film")
    card, item = card_of(tmp_path, path=tmp_path / "a.mp4")
    screen, link = item.all("a")
    assert screen.attributes == {"class": "screen", "href": "a.mp4"}
    assert screen.text == "Play #7"
    assert (link.attributes["href"], link.text) == ("a.mp4", "a.mp4")
    assert (card.source, card.picture) == ("a.mp4", None)
    assert item.all("video") == []


def test_a_card_of_an_unsaved_video_links_to_the_service_and_has_a_still(tmp_path):
    card, item = card_of(tmp_path)
    screen, link = item.all("a")
    assert screen.attributes == {"class": "screen", "href": VIDEO, "data-poster": STILL}
    assert link.text == "at the service"
    assert (card.source, card.picture) == (VIDEO, STILL)


def test_a_card_shows_the_prompt_the_state_and_the_cost(tmp_path):
    _, item = card_of(tmp_path, cost_usd=Decimal("0.35"))
    assert item.one("h3").text == "#7 succeeded"
    assert item.one("p", class_="prompt").text == "a cat"
    assert item.one("span", class_="cost").text == "$0.35"
    assert item.one("code").text == "job-a"
    assert item.one("h3").attributes["id"] == "name-7"


@pytest.mark.parametrize(
    "fields, state, reason",
    [
        (
            {"state": ResultState.FAILED, "job": FAILED, "error": error_of(FAILED, secret=Secret("key"))},
            "failed",
            "policy",
        ),
        (
            {
                "state": ResultState.CANCELLED,
                "job": CANCELLED,
                "error": error_of(CANCELLED, secret=Secret("key")),
            },
            "cancelled",
            "Job job-a was cancelled at the service: no reason given. It may have been charged.",
        ),
        (
            {
                "state": ResultState.AMBIGUOUS,
                "job": None,
                "error": AmbiguousSubmitError("it may be.", request_id="job-a"),
            },
            "ambiguous",
            "it may be.",
        ),
        ({"error": DownloadError("disk full")}, "made, not saved", "disk full"),
    ],
)
def test_a_card_shows_why_its_job_failed(tmp_path, fields, state, reason):
    _, item = card_of(tmp_path, **fields)
    assert item.one("span", class_="state").text == state
    assert item.one("p", class_="error").text == reason
    assert item.one("code").text == "job-a"


def test_a_card_without_a_video_has_no_link(tmp_path):
    card, item = card_of(
        tmp_path, state=ResultState.FAILED, job=FAILED, error=error_of(FAILED, secret=Secret("key"))
    )
    assert item.all("a") == []
    assert item.one("div", class_="empty").text == "no video"
    assert (card.source, card.picture) == (None, None)


def test_an_item_that_could_not_be_read_has_a_card(tmp_path):
    error = InvalidRequestError("A request needs a prompt.")
    _, item = card_of(tmp_path, request=None, job=None, state=ResultState.NOT_SUBMITTED, error=error)
    assert item.one("p", class_="prompt").text == "This item could not be read as a request."
    assert item.all("p", class_="facts") == []


def test_a_card_has_its_times_in_words_and_its_row_of_the_time_line(tmp_path):
    segments = (
        Segment("queued", TimeSpan(100.0, 108.0)),
        Segment("running", TimeSpan(108.0, 170.0)),
        Segment("saving", TimeSpan(170.0, 170.5)),
    )
    _, item = card_of(tmp_path, row=Row(result_of(), segments, lane=3))
    assert item.one("div", class_="times").text == "8.0 s queued, 1 min 02 s running, 0.5 s until saved"
    assert item.attributes["data-bar"] == "3 100.000 170.500"
    assert item.attributes["data-seconds"] == "70.000"


def test_a_card_says_that_its_times_begin_where_a_run_resumed_the_job(tmp_path):
    segments = (Segment("running", TimeSpan(100.0, 108.0)),)
    _, item = card_of(tmp_path, row=Row(result_of(), segments, is_resumed=True))
    assert item.one("div", class_="times").text == "8.0 s running, since this run resumed it"


def test_a_card_of_an_unsaved_video_says_so_without_a_duration(tmp_path):
    segments = (Segment("running", TimeSpan(100.0, 162.0)), Segment("unsaved", TimeSpan(162.0, 162.0)))
    error = DownloadError("disk full")
    _, item = card_of(tmp_path, error=error, row=Row(result_of(error=error), segments))
    assert item.one("div", class_="times").text == "1 min 02 s running, not saved"
    mark = item.one("rect", class_="unsaved").attributes
    assert (mark["x"], mark["width"]) == ("950", "50")
    assert item.attributes["data-state"] == "unsaved"


def test_a_card_without_a_row_has_no_times(tmp_path):
    _, item = card_of(tmp_path)
    assert item.all("div", class_="times") == []
    assert "data-bar" not in item.attributes


def test_a_long_prompt_is_cut_at_a_word_and_whole_on_demand(tmp_path):
    prompt = "word " * 499 + "end"
    _, item = card_of(tmp_path, request=VideoRequest(prompt))
    details = item.one("details")
    assert details.one("summary").text.endswith("word… more")
    assert len(details.one("summary").text) < 240
    assert details.one("p").text == prompt


def test_a_long_prompt_without_spaces_is_cut_as_well(tmp_path):
    _, item = card_of(tmp_path, request=VideoRequest("水" * 2_500))
    assert len(item.one("summary").text) < 240
    assert item.one("details").one("p").text == "水" * 2_500


HOSTILE = st.sampled_from(
    [
        "</script><script>alert(1)</script>",
        '"></video><img src=x onerror=alert(1)>',
        "\u202egnp.exe",
        "😀",
        "\x00",
        "' x=",
    ]
) | st.text(max_size=400)


@given(prompt=HOSTILE, reason=HOSTILE, request_id=HOSTILE, url=HOSTILE)
def test_text_from_outside_stays_text_on_a_card(prompt, reason, request_id, url):
    job = Job(
        request_id=request_id,
        status=JobStatus.FAILED,
        outcome=Outcome(error=reason, media=(Media(f"https://storage.example/{url}"),), thumbnail_url=url),
    )
    request = VideoRequest("a cat", model="other")
    object.__setattr__(request, "prompt", prompt)
    result = Result(
        index=0, request=request, state=ResultState.FAILED, job=job, error=error_of(job, secret=Secret("key"))
    )
    card = Card(result=result, source=f"https://storage.example/{url}", picture=url, row=None)
    item = read(card_html(card)).one("li")
    allowed = {"div", "h3", "span", "p", "bdi", "a", "code", "details", "summary"}
    everything = item.all("")
    tags = {element.tag for element in _within(item)}
    assert everything == []
    assert tags <= allowed
    assert not any(name.startswith("on") for element in _within(item) for name in element.attributes)


def _within(element):
    for part in element.parts:
        if not isinstance(part, str):
            yield part
            yield from _within(part)


@pytest.mark.parametrize("state", sorted(set(ResultState) - {ResultState.SUCCEEDED}))
def test_each_state_in_which_a_job_can_end_has_words_and_a_colour(state):
    """A submit can also be lost after a job of the item failed, so that the item has both times and no answer."""
    result = result_of(state=state, job=FAILED, error=error_of(FAILED, secret=Secret("key")))
    row = Row(result, (Segment(str(state), TimeSpan(0, 10)),))
    page = card_html(Card(result=result, source=None, picture=None, row=row))
    assert f"10 s {WORDS[state]}" in page
    assert state_class(result) in STATE_COLORS
