"""Take `report.webp`: the upper part of a report, as Chromium shows it.

Run it from anywhere with the extra `emulator` and the group `browser` installed, where `chromium` is in PATH:
`python docs/images/make_report.py`.
"""

from __future__ import annotations

import asyncio
import io
import math
import random
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path

from PIL import Image
from playwright.async_api import async_playwright

from kling_async import KlingClient, Limits, PollingPolicy
from kling_async.emulator import Emulator, EmulatorSettings, Fault, JobScript, Reply

PICTURE = Path(__file__).with_name("report.webp")
SLOW, REFUSED = {20, 87}, {9, 32, 55, 78, 101, 124}
WIDTH, HEIGHT = 1200, 860


async def draw() -> None:
    """Run a batch with some trouble in an emulator, and photograph what is reported of it."""
    rng = random.Random(3)  # noqa: S311 - chooses times, keeps no secret

    def choose_script(number: int, _: object) -> JobScript:
        run_time = rng.lognormvariate(math.log(100), 0.35) * (6 if number in SLOW else 1)
        error = "The prompt does not pass the content policy" if number in REFUSED else None
        return JobScript(ending="failed" if error else "success", run_time=run_time, error=error)

    settings = EmulatorSettings(
        script=choose_script,
        time_scale=8.0,
        workers=20,
        instant_rate=0.0,
        faults=[Fault("submit", Reply(429, {"error": "slow down"}, headers={"Retry-After": "9"}), nth=70)],
    )
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Emulator(settings) as emulator,
            KlingClient(
                "any-key",
                base_url=emulator.url,
                limits=Limits(max_polls_per_second=200.0),
                polling=PollingPolicy(poll_interval=0.1),
            ) as client,
        ):
            prompts = [f"a short film, number {number}" for number in range(160)]
            batch = await client.generate_many(
                prompts, max_concurrency=24, prices={"kling-v2-6": Decimal("0.35")}
            )
            page = batch.write_report(Path(folder, "report.html"))
            await photograph(page)


async def photograph(page: Path) -> None:
    """Keep what is in view when the page opens."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        view = await browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        await view.goto(page.as_uri())
        picture = Image.open(io.BytesIO(await view.screenshot()))
        picture.save(PICTURE, quality=82, method=6)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(draw())
