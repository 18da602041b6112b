"""The report as people meet it: from the disk, in Chromium, with a keyboard, on paper."""

from __future__ import annotations

import io
import math
import random
import shutil
from decimal import Decimal
from pathlib import Path

import attrs
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from kling_async._policy.job_end import error_of
from kling_async._secrets import Secret
from kling_async.batch_result import BatchResult
from kling_async.emulator.media import Clip, encode_video
from kling_async.errors import APIConnectionError, DownloadError, RateLimitError, WaitTimeoutError
from kling_async.events import Downloaded, Finished, PollFailed, StatusChanged, Submitted, Throttled
from kling_async.history import HistoryRecorder
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.requests import VideoRequest
from kling_async.results import Result, ResultState
from tests.browser.conftest import until

pytestmark = pytest.mark.browser

BEGAN = 1_800_000_000.0
AT_ONCE = 50
UNSAVED = 19
ODD = {7: ResultState.FAILED, 11: ResultState.CANCELLED, 13: ResultState.TIMED_OUT, 17: ResultState.AMBIGUOUS}
HOSTILE = (
    "<script>window.ran = 1</script>",
    '"></video><img src=x onerror="window.ran = 1">',
    "'></a><svg onload='window.ran = 1'>",
    "</style></script><script>window.ran = 1</script>",
    "\u202egnp.exe turned around \u2067 and not turned back",
    "👩‍🚀 水墨 \N{REPLACEMENT CHARACTER}",
    "<b>" * 833 + "<",
)


READY = "document.querySelector('#job-0 video')?.readyState >= 1"


@attrs.define(kw_only=True)
class Maker:
    """Makes a batch that might have been, with the files of its videos."""

    folder: Path
    prompts: list[str]
    rng: random.Random = attrs.field(factory=lambda: random.Random(5))  # noqa: S311
    film: bytes = attrs.field(factory=lambda: encode_video(Clip(prompt="a film", seconds=2)))
    events: list = attrs.field(factory=list)

    def batch(self) -> BatchResult:
        results = [self._result(index, prompt) for index, prompt in enumerate(self.prompts)]
        self.events += [
            Throttled(at=BEGAN + 200, delay=40, error=RateLimitError("slow")),
            PollFailed(at=BEGAN + 20, index=0, delay=9, error=APIConnectionError("lost")),
        ]
        recorder = HistoryRecorder()
        for event in sorted(self.events, key=lambda event: event.at):
            recorder(event)
        return BatchResult(tuple(results), history=recorder.build())

    def _result(self, index: int, prompt: str) -> Result:
        state = ODD.get(index % 20, ResultState.SUCCEEDED)
        request, request_id = VideoRequest(prompt), f"job-of-{index}"
        if state is ResultState.AMBIGUOUS:
            error = APIConnectionError(f"no connection: {prompt[:300]}")
            return Result(index=index, request=request, state=state, error=error)
        at = BEGAN + index // AT_ONCE * 70 + self.rng.random() * 10
        times = at, at + 8, at + 8 + self.rng.lognormvariate(math.log(50), 0.3)
        self._hear(index, state, *times)
        if state is ResultState.TIMED_OUT:
            job = Job(request_id=request_id, status=JobStatus.PROCESSING)
            error = WaitTimeoutError(f"Job {request_id} is still processing.", request_id=request_id, job=job)
        elif state is not ResultState.SUCCEEDED:
            status = JobStatus.FAILED if state is ResultState.FAILED else JobStatus.CANCELLED
            job = Job(request_id=request_id, status=status, outcome=Outcome(error=prompt[:300]))
            error = error_of(job, secret=Secret("key"))
        else:
            return self._save(index, request, request_id, times[-1] + 1)
        return Result(
            index=index, request=request, state=state, job=job, error=error, cost_usd=Decimal("0.35")
        )

    def _hear(self, index: int, state: ResultState, submitted: float, running: float, ended: float) -> None:
        job = Job(request_id="x", status=JobStatus.QUEUED)
        now, before = JobStatus.PROCESSING, JobStatus.QUEUED
        self.events += [
            Submitted(at=submitted, index=index, job=job),
            StatusChanged(at=running, index=index, status=now, previous=before),
            Finished(at=ended, index=index, state=state),
        ]

    def _save(self, index: int, request: VideoRequest, request_id: str, at: float) -> Result:
        outcome = Outcome(media=(Media("https://storage.invalid/gone.mp4"),))
        job = Job(request_id=request_id, status=JobStatus.SUCCESS, outcome=outcome)
        made = Result(index=index, request=request, state=ResultState.SUCCEEDED, job=job)
        if index % 20 == UNSAVED:
            # An address that cannot be fetched is no link: a page that asked another host would fail its test.
            error = DownloadError("once more, please")
            return attrs.evolve(made, job=attrs.evolve(job, outcome=Outcome()), error=error)
        path = self.folder / f"{index:05d} #1?.mp4"
        path.write_bytes(self.film)
        self.events.append(Downloaded(at=at, index=index, path=path, size_bytes=len(self.film)))
        return attrs.evolve(made, path=path)


@pytest.fixture(scope="session")
def thousand(tmp_path_factory) -> str:
    """The address of a report on a thousand results."""
    folder = tmp_path_factory.mktemp("thousand")
    prompts = [f"number {index}, {'a cat' if index % 2 else 'a dog'} in the rain" for index in range(1_000)]
    batch = Maker(folder=folder, prompts=prompts).batch()
    yield batch.write_report(folder / "report.html").as_uri()
    shutil.rmtree(folder)


@pytest.fixture
def report(tmp_path) -> str:
    """The address of a report on a few results of every state, some with long prompts."""
    prompts = [f"number {index} {'and so on ' * (index * 5)}" for index in range(24)]
    return Maker(folder=tmp_path, prompts=prompts).batch().write_report(tmp_path / "report.html").as_uri()


@pytest.fixture
def hostile(tmp_path) -> str:
    """The address of a report whose every text is an attack."""
    prompts = [HOSTILE[index % len(HOSTILE)] for index in range(20 * len(HOSTILE))]
    return Maker(folder=tmp_path, prompts=prompts).batch().write_report(tmp_path / "report.html").as_uri()


def count_shown(page) -> int:
    return page.locator(".card:not([hidden])").count()


def read_focus(page) -> str:
    """What has the focus: its tag, its type or its class."""
    return page.evaluate(
        "(({localName, type, className, id}) => [localName, type || className || id].filter(Boolean).join(' '))"
        "(document.activeElement)"
    )


def test_a_thousand_results_open_from_the_disk_and_load_only_what_is_in_view(page, thousand):
    fetched = set()
    page.on("request", lambda request: fetched.add(request.url))
    page.goto(thousand)
    assert page.locator(".card").count() == 1_000
    assert page.locator("[role=status]").inner_text() == "All 1,000 shown."
    assert page.locator("video").count() == 0
    page.locator("#videos").scroll_into_view_if_needed()
    until(page, READY)
    films = [url for url in fetched if url.endswith(".mp4")]
    assert 0 < len(films) < 60


def test_a_video_plays(page, thousand):
    page.goto(thousand)
    page.locator("#videos").scroll_into_view_if_needed()
    until(page, READY)
    page.locator("video").first.evaluate("video => { video.muted = true; return video.play(); }")
    until(page, "document.querySelector('video').currentTime > 0.2")


def test_a_player_out_of_view_unloads_its_video_unless_it_was_played(page, thousand):
    page.goto(thousand)
    page.locator("#videos").scroll_into_view_if_needed()
    until(page, READY)
    page.locator("#job-1 video").evaluate("video => { video.currentTime = 1; }")
    page.locator(".card").last.scroll_into_view_if_needed()
    until(page, "document.querySelector('#job-0 a.screen') !== null")
    assert page.locator("#job-1 video").count() == 1
    page.locator("#job-0").scroll_into_view_if_needed()
    until(page, READY)


def test_a_search_finds_prompts_numbers_and_reasons(page, thousand):
    page.goto(thousand)
    search = page.get_by_role("searchbox", name="Search")
    for words, number in (
        ("CAT", 500),
        ("cat rain", 500),
        ("number 999,", 1),
        ("job-of-999", 1),
        ("wolf", 0),
    ):
        search.fill(words)
        assert count_shown(page) == number
        assert page.locator("[role=status]").inner_text() == f"{number:,} of 1,000 shown."
    search.fill("")
    assert count_shown(page) == 1_000


def test_a_state_can_be_chosen_and_the_slowest_put_first(page, thousand):
    page.goto(thousand)
    page.get_by_text("timed out 50").click()
    assert count_shown(page) == 50
    page.get_by_role("combobox", name="Order").select_option("slowest")
    seconds = page.eval_on_selector_all(
        ".card:not([hidden])", "cards => cards.map(card => Number(card.dataset.seconds))"
    )
    assert seconds == sorted(seconds, reverse=True)
    page.get_by_role("combobox", name="Order").select_option("given")
    assert page.locator(".card:not([hidden]) h3").first.inner_text().startswith("#13")
    page.get_by_text("made, not saved 50").click()
    assert page.locator(".card:not([hidden]) h3").first.inner_text() == "#19\nmade, not saved"


def test_a_link_to_a_video_that_is_filtered_out_shows_it(page, thousand):
    page.goto(thousand)
    page.get_by_role("searchbox").fill("wolf")
    page.get_by_role("link", name="#7", exact=True).first.click()
    page.wait_for_selector("#job-7:focus")
    assert page.locator("#job-7").is_visible()
    assert page.get_by_role("searchbox").input_value() == ""


def test_everything_can_be_done_with_the_keyboard(page, report):
    page.goto(report)
    page.keyboard.press("Tab")
    assert read_focus(page) == "a skip"
    page.keyboard.press("Enter")
    assert read_focus(page) == "h2 videos"
    page.keyboard.press("Tab")
    assert read_focus(page) == "input search"
    page.keyboard.type("number")
    page.keyboard.press("Tab")
    assert read_focus(page) == "input radio"
    page.keyboard.press("ArrowRight")
    assert count_shown(page) == page.locator("[data-state=succeeded]").count()
    page.keyboard.press("Tab")
    assert read_focus(page) == "select select-one"
    page.keyboard.press("s")
    assert page.get_by_role("combobox").input_value() == "slowest"
    page.keyboard.press("Tab")
    until(page, "document.activeElement.matches('video.screen')")
    page.keyboard.press("Space")
    until(page, "!document.activeElement.paused")
    for _ in range(20):
        page.keyboard.press("Tab")
        if read_focus(page) == "summary":
            break
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1280])
def test_the_accessibility_checker_finds_nothing(new_page, report, scheme, width):
    page = new_page(scheme, width)
    page.goto(report)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_hostile_text_is_shown_and_does_nothing(page, hostile):
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog came up: {dialog.message}"))
    page.goto(hostile)
    for index, prompt in enumerate(HOSTILE):
        card = page.locator(f"#job-{index}")
        card.scroll_into_view_if_needed()
        whole = card.locator("p.prompt, details.prompt p")
        assert whole.evaluate("element => element.textContent") == prompt
    page.get_by_role("searchbox").fill("<script>")
    assert page.evaluate("window.ran") is None
    assert page.locator("main img, main iframe, .card script, .card style, .card svg[onload]").count() == 0


def test_the_writing_direction_of_a_prompt_ends_with_it(page, hostile):
    page.goto(hostile)
    assert "\u202e" in page.locator("#job-4 .prompt").text_content()
    edges = page.evaluate(
        """() => ["#job-0", "#job-4"].map((card) => {
            const range = document.createRange();
            range.selectNodeContents(document.querySelector(`${card} h3`));
            return Math.round(range.getBoundingClientRect().width);
        })"""
    )
    assert edges[0] == edges[1]


def test_the_policy_stops_an_injected_script(browser, report):
    page = browser.new_page()
    refused = []
    page.on("console", lambda said: refused.append(said.text))
    page.goto(report)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = 1";
            document.body.append(script);
            const picture = document.createElement("img");
            picture.setAttribute("onerror", "window.ran = 1");
            picture.src = "x.png";
            document.body.append(picture);
        }"""
    )
    page.wait_for_timeout(50)
    assert page.evaluate("window.ran") is None
    assert sum("Content Security Policy" in text for text in refused) >= 2
    page.close()


def test_a_bar_of_the_time_line_names_its_job_and_links_to_it(page, thousand):
    page.goto(thousand)
    rows = page.locator("svg.rows")
    rows.scroll_into_view_if_needed()
    box = rows.bounding_box()
    page.mouse.move(box["x"] + 12, box["y"] + 10)
    assert page.locator(".pointed").inner_text().startswith("#")
    page.mouse.click(box["x"] + 12, box["y"] + 10)
    page.wait_for_selector(".card:target")
    page.mouse.move(1, 1)
    until(page, "document.querySelector('.pointed').textContent === ''")


PLACES = """
[...document.querySelectorAll('figure text, .which a')].map(element => {
  const {left, right} = element.getBoundingClientRect();
  return [element.textContent, left, right];
})
"""


@attrs.define(kw_only=True)
class AllTheTime(Maker):
    """Jobs of which each takes nearly the whole time of the batch, or begins or ends at its edge."""

    def _hear(self, index, state, submitted, running, ended):
        begin, end = [(0, 300), (0, 290), (20, 300), (250, 300), (10, 200)][index % 5]
        super()._hear(index, state, BEGAN + begin, BEGAN + begin + 1, BEGAN + end)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("maker", [Maker, AllTheTime])
def test_no_number_is_cut_off_at_an_edge(new_page, tmp_path, maker, width):
    batch = maker(folder=tmp_path, prompts=[f"number {index} " * 20 for index in range(30)]).batch()
    page = new_page(width=width)
    page.goto(batch.write_report(tmp_path / "report.html").as_uri())
    places = page.evaluate(PLACES)
    assert len(places) > 30
    assert [place for place in places if place[1] < 0 or place[2] > width] == []


def test_a_narrow_page_does_not_scroll_sideways(new_page, report):
    page = new_page(width=320)
    page.goto(report)
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_a_report_without_its_script_is_complete(new_page, report):
    page = new_page(java_script_enabled=False)
    page.goto(report)
    assert page.locator(".filter").is_hidden()
    assert count_shown(page) == 24
    assert page.locator("a.screen").count() == page.locator("[data-state=succeeded]").count()


def test_it_prints_dark_on_light(new_page, report):
    page = new_page("dark")
    page.goto(report)
    assert page.locator(".filter").is_visible()
    page.emulate_media(media="print")
    assert page.locator(".filter").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    paper = page.pdf()
    assert paper.startswith(b"%PDF-")
    assert paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") >= 2


@pytest.mark.parametrize("width", [380, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_the_readers_colours(new_page, thousand, keep_picture, scheme, width):
    page = new_page(scheme, width)
    page.goto(thousand)
    for part in ("h1", "#time-line", "#videos"):
        page.locator(part).evaluate("element => element.scrollIntoView()")
        page.wait_for_timeout(50)
        picture = Image.open(io.BytesIO(keep_picture(page, f"report-{scheme}-{width}-{part.strip('#')}")))
        ground = sum(picture.convert("RGB").getpixel((2, 2)))
        assert ground > 700 if scheme == "light" else ground < 120
