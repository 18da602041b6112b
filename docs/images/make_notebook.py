"""Take `notebook-live.webp` and `notebook.webp`: a cell while its batch runs, and its gallery, in JupyterLab.

Run it with the extras `emulator` and `notebook` and the group `browser` installed, where `chromium` is in PATH:
`PYTHONPATH=tests python docs/images/make_notebook.py`.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from browser.lab import Notebook, served
from PIL import Image
from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent
CLIENT = """\
from kling_async import KlingClient
from kling_async.emulator import Emulator, EmulatorSettings, JobScript

def choose_script(number, payload):
    return JobScript(ending="failed", error="The prompt was refused.") if number == 6 else None

emulator = Emulator(EmulatorSettings(time_scale=40, workers=4, script=choose_script))
await emulator.start()
client = KlingClient("any-key", base_url=emulator.url)
"""
PROMPTS = """\
prompts = [
    "A paper boat on a rain-swept street at dusk, neon signs trembling in the puddles",
    "A lighthouse in a winter storm",
    "A kettle begins to sing",
    "A dandelion lets go of its seeds, each carrying a tiny lantern into the night",
    "A village square at noon, time lapse",
    "A tide coming in over black sand",
]
prompts += [f"A harvest moon over the sea, take {number}" for number in range(1, 13)]"""
BATCH = """\
batch = await client.generate_many(prompts, max_concurrency=8, output="videos/", prices={"kling-v2-6": 0.35})"""


def photograph(shown: Notebook, at: int, name: str, *, height: int) -> None:
    """Keep the upper part of a cell."""
    cell = shown.cell(at)
    cell.scroll_into_view_if_needed()
    box = cell.bounding_box()
    assert box is not None
    clip = {**box, "height": min(box["height"], height)}
    picture = Image.open(io.BytesIO(shown.page.screenshot(clip=clip)))
    picture.save(FOLDER / f"{name}.webp", quality=82, method=6)


def draw() -> None:
    """Run a batch of stand-in pictures and look twice."""
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder)) as lab,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        size = {"width": 1290, "height": 1100}
        page = browser.new_page(viewport=size, device_scale_factor=1.5)
        lab.write("films.ipynb", CLIENT, PROMPTS, BATCH, "batch")
        shown = lab.open(page, "films.ipynb")
        shown.run(0, 1)
        shown.start(2)
        shown.output(2).get_by_text("9 of 18 ended").wait_for()
        photograph(shown, 2, "notebook-live", height=150)
        shown.wait(2)
        shown.run(3)
        page.wait_for_timeout(1_000)  # the videos draw their first frames
        photograph(shown, 3, "notebook", height=560)
        browser.close()


if __name__ == "__main__":
    draw()
