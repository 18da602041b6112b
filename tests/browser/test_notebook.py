"""What a batch looks like in a real JupyterLab."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.lab import start_lab
from playwright.sync_api import expect

from kling_async.emulator import EmulatorSettings, JobScript, LogNormal

pytestmark = pytest.mark.browser

HOSTILE = [
    "</script><script>window.hit = 1</script>",
    '"></video><img src="x" onerror="window.hit = 1">',
    "<svg onload='window.hit = 1'>",
    "\u202eright to left \u05d0\u05d1",
    "👩\u200d🚀 水墨",
    "nul \x00",
    "long " * 500,
]
SAVED = "batch = await client.generate_many([f'take {n}' for n in range(3)], output='videos/')"
LARGE = """
with batch[2].path.open("ab") as file:  # a box that players skip
    file.write((600_000).to_bytes(4, "big") + b"free" + bytes(600_000 - 8))
"""
TUTORIAL = Path(__file__).parents[2] / "docs" / "examples" / "tutorial.ipynb"
JOB_SCRIPTS = {"Doomed:": JobScript(ending="failed"), "Slow": JobScript(queue_time=0.0, run_time=600.0)}
FAST_POLLING = "polling=PollingPolicy(poll_interval=0.1)"
"""The usual pace is for jobs that take minutes."""
INLINED = 'video[src^="data:"]'
FROM_FILE = 'video[src*="/files/videos/"]'
FROM_SERVICE = 'video[src^="http://127.0.0.1"]:not([src*="/files/"])'
PROMPTS = [
    "A paper boat on a rain-swept street at dusk, neon signs trembling in the puddles",
    "A lighthouse in a winter storm",
    "水墨风格的长卷：一只白鹤掠过晨雾中的湖面",  # noqa: RUF001 - Chinese punctuation
    "A dandelion lets go of its seeds one by one, each carrying a tiny lantern into the night, " * 3,
    "A kettle begins to sing",
    "A village square at noon, time lapse",
    "Doomed: a comet over a quiet sea",
    "A tide coming in over black sand",
    "A street musician at dusk",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with start_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def kling_emulator_settings():
    return EmulatorSettings(
        time_scale=100.0,
        queue_time=LogNormal(20.0, 0.4),
        run_time=LogNormal(120.0, 0.3),
        workers=5,
        script=lambda number, payload: JOB_SCRIPTS.get(payload["prompt"].split()[0]),
    )


@pytest.fixture
def notebook(lab, new_page, request, kling_emulator):
    """Opens a notebook whose first cell has made a client of the emulator; its other cells are given."""

    def notebook(*cells, **options):
        first = (
            "from kling_async import KlingClient, PollingPolicy\n"
            f"client = KlingClient('any-key', base_url={kling_emulator.url!r}, {FAST_POLLING})"
        )
        name = lab.write(f"{request.node.name}.ipynb", first, *cells)
        shown = lab.open(new_page(**options), name)
        shown.run(0)
        return shown

    yield notebook
    lab.end_kernels()


def bars(shown, at):
    return shown.output(at).locator("[role=progressbar]")


def play(page, selector):
    """Where a video has come to when it has played for a moment."""
    return page.evaluate(
        """async selector => {
            const video = document.querySelector(selector);
            video.muted = true;
            await video.play();
            await new Promise(done => video.addEventListener("timeupdate", () => video.currentTime > 0.2 && done()));
            return video.currentTime;
        }""",
        selector,
    )


def test_a_batch_has_one_output_that_changes_and_that_a_second_run_of_the_cell_replaces(notebook):
    shown = notebook("batch = await client.generate_many([f'take {n}' for n in range(8)])")
    for _ in range(2):
        shown.start(1)
        bar, seen = bars(shown, 1), set()
        while (value := bar.get_attribute("aria-valuenow")) != "8" or not seen:
            seen.add(value)
            assert shown.output(1).count() <= 1
            shown.page.wait_for_timeout(50)
        shown.wait(1)
        assert len(seen) >= 3
        assert "8 of 8 videos made" in shown.output(1).inner_text()


def test_two_batches_in_one_cell_have_an_output_each(notebook):
    one, other = "client.generate_many(['a', 'b', 'c'])", "client.generate_many(['d', 'e'])"
    shown = notebook(f"import asyncio\nboth = await asyncio.gather({one}, {other})")
    shown.run(1)
    ends = shown.output(1).all_inner_texts()
    assert ["3 of 3 videos made" in ends[0], "2 of 2 videos made" in ends[1]] == [True, True]
    assert len(ends) == 2


def test_a_finished_batch_is_a_gallery_whose_videos_play(notebook):
    shown = notebook(f"{SAVED}{LARGE}batch", "batch[0]", "batch[0].job")
    shown.run(1, 2, 3)
    assert shown.output(1).locator("video").count() == 3
    for at in (2, 3):
        assert shown.output(at).locator("video").count() == 1
    for way in (INLINED, FROM_FILE, FROM_SERVICE):
        assert play(shown.page, way) > 0.2


def test_the_tutorial_runs_from_top_to_bottom(lab, new_page):
    shutil.copy(TUTORIAL, lab.folder)
    shown = lab.open(new_page(), TUTORIAL.name)
    shown.run_all()
    shown.wait(shown.cells - 1)
    assert shown.page.locator('[data-mime-type*="error"], [data-mime-type*="stderr"]').count() == 0
    assert play(shown.page, INLINED) > 0.2
    assert "4 videos, 0 more submits" in shown.page.locator(".jp-Notebook").inner_text()
    assert (lab.folder / "videos" / "report.html").exists()
    lab.end_kernels()


def test_an_interrupt_stops_the_batch_and_the_offered_lines_resume_it(notebook, kling_emulator, lab):
    shown = notebook(SAVED.replace("take", "Slow take"), "# paste here")
    shown.start(1)
    expect(shown.output(1)).to_contain_text("running")
    shown.interrupt()
    shown.wait(1)
    view = shown.output(1).first
    assert "Stopped: 0 of 3 videos made" in view.inner_text()
    assert "3 jobs go on at the service" in view.inner_text()
    view.get_by_text("Pick up with these lines").click()
    shown.write(2, view.locator("pre").inner_text())
    shown.run(2)
    assert kling_emulator.stats.requests["submit"] == 3
    assert len(list((lab.folder / "videos").glob("kling-*.mp4"))) == 3


def test_no_prompt_runs_anything(notebook):
    shown = notebook(
        f"batch = await client.generate_many({HOSTILE!r})\nbatch",
        "batch[0]",
        "batch[1].job",
        "from kling_async.notebook import Gallery\nGallery([result.job for result in batch])",
    )
    shown.run(1, 2, 3, 4)
    assert shown.page.evaluate("window.hit") is None
    texts = shown.output(1).last.inner_text()
    assert HOSTILE[0] in texts
    assert HOSTILE[1] in texts
    for at in range(1, 5):
        assert shown.output(at).locator("script, img, svg").count() == 0


def test_amounts_and_prompts_with_dollars_are_no_formulas(notebook):
    prompts = ["A coin of $5 beside one of $10", r"A blackboard with \(x^2\) and $$y$$"]
    capped = "prices={'kling-v2-6': 0.35}, max_cost_usd=0.35"
    shown = notebook(f"batch = await client.generate_many({prompts!r}, {capped})\nbatch", "print('$x$')")
    shown.run(1, 2)
    gallery = shown.output(1).last
    for text in (*prompts, "bring the spend to $0.70, above the cap of $0.35"):
        expect(gallery).to_contain_text(text)
    shown.page.wait_for_timeout(1000)  # formulas are set a moment later
    expect(shown.page.locator("mjx-container")).to_have_count(0)


def test_an_untrusted_notebook_keeps_its_shape(notebook, lab, new_page, keep_picture):
    shown = notebook(f"{SAVED}{LARGE}batch")
    shown.run(1)
    content = json.loads(shown.save(lab.folder).read_text())
    content["cells"][0]["source"] = "# no longer what was signed"
    (lab.folder / "stranger.ipynb").write_text(json.dumps(content))
    strange = lab.open(new_page(), "stranger.ipynb")
    videos = strange.output(1).locator("video")
    expect(videos).to_have_count(3)
    first, second = (videos.nth(at).bounding_box() for at in (0, 1))
    assert (round(first["width"]), first["y"]) == (256, second["y"])
    assert "3 of 3 videos made" in strange.output(1).first.inner_text()
    assert play(strange.page, FROM_FILE) > 0.2
    keep_picture(strange.page, "notebook-untrusted")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_both_themes(notebook, scheme, keep_picture):
    shown = notebook(
        f"batch = await client.generate_many({PROMPTS!r}, output='videos/')\nbatch", "batch[0]", scheme=scheme
    )
    shown.start(1)
    expect(shown.output(1)).to_contain_text("running")
    keep_picture(shown.page, f"notebook-{scheme}-live")
    shown.wait(1)
    shown.run(2)
    keep_picture(shown.page, f"notebook-{scheme}-end")
    shown.output(1).last.scroll_into_view_if_needed()
    keep_picture(shown.page, f"notebook-{scheme}")
    rules = {"runOnly": ["color-contrast"]}
    found = Axe().run(shown.page, context=".jp-OutputArea-output", options=rules)
    assert found.violations_count == 0, found.generate_report()
