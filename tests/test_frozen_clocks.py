"""Tests of users freeze the time; nothing of ours stops in them as long as the event loop goes on."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest
from freezegun import freeze_time

from kling_async import KlingClient, PollingPolicy
from kling_async.emulator import Emulator, EmulatorSettings, LogNormal

FAST = PollingPolicy(poll_interval=0.01, wait_timeout=20)
SETTINGS = EmulatorSettings(time_scale=100.0, run_time=LogNormal(2.0))
FREEZERS = pytest.mark.parametrize(
    "options",
    [{"real_asyncio": True}, {"real_asyncio": True, "ignore": ["kling_async"]}],
    ids=["all modules", "without ours"],
)

pytestmark = [pytest.mark.unmeasured, pytest.mark.usefixtures("tiny_films")]


def freeze(**options):
    return freeze_time("2024-01-01", **options)


async def generate(client):
    async with asyncio.timeout(30):  # fails instead of hanging
        assert (await client.generate("A comet")).is_success


async def make_videos(url, folder):
    async with KlingClient("any-key", base_url=url, polling=FAST) as client, asyncio.timeout(30):
        job = await client.generate("A comet")
        await client.download(job, folder / "comet.mp4")
        batch = await client.generate_many(
            ["One", "Two"], output=folder / "videos", journal=folder / "run.db"
        )
        batch.raise_for_failures()
        assert dt.datetime.now(dt.UTC).year == 2024
        return batch


@FREEZERS
def test_a_client_and_an_emulator_of_the_fixture_go_on_while_the_time_is_frozen(
    kling_emulator, options, tmp_path
):
    with freeze(**options):
        batch = asyncio.run(make_videos(kling_emulator.url, tmp_path))
    assert len(batch.succeeded) == 2


@FREEZERS
def test_an_emulator_that_starts_in_frozen_time_goes_on(options, tmp_path):
    async def main():
        async with Emulator(SETTINGS) as emulator:
            return await make_videos(emulator.url, tmp_path)

    with freeze(**options):
        assert len(asyncio.run(main()).succeeded) == 2


async def test_a_client_and_an_emulator_that_opened_before_go_on_in_frozen_time_and_after_it():
    async with (
        Emulator(SETTINGS) as emulator,
        KlingClient("any-key", base_url=emulator.url, polling=FAST) as client,
    ):
        await generate(client)
        with freeze(real_asyncio=True):
            await generate(client)
        await generate(client)


async def test_a_client_and_an_emulator_that_opened_in_frozen_time_go_on_after_it():
    with freeze(real_asyncio=True):
        emulator = Emulator(SETTINGS)
        await emulator.start()
        client = KlingClient("any-key", base_url=emulator.url, polling=FAST)
        await generate(client)
    await generate(client)
    await client.aclose()
    await emulator.aclose()
