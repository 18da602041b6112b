"""How code that makes videos is tested, with the fixture that the package brings to pytest."""

from __future__ import annotations

import asyncio

import pytest

from kling_async import JobFailedError, KlingClient, PollingPolicy
from kling_async.emulator import Drop, Emulator, EmulatorSettings, Fault, JobScript


async def make_teaser(client: KlingClient, title: str) -> str | None:
    """The code under test."""
    async with client:
        job = await client.generate(f"A teaser for {title}", duration=5)
    return job.video_url


@pytest.fixture
def client(kling_emulator: Emulator) -> KlingClient:
    """A client that asks often, because jobs are quick here."""
    hasty = PollingPolicy(poll_interval=0.01)
    return KlingClient("any-key", base_url=kling_emulator.url, polling=hasty)


def test_a_teaser_is_one_paid_job(client: KlingClient, kling_emulator: Emulator) -> None:
    """The emulator knows what was paid for, and how it was asked."""
    assert asyncio.run(make_teaser(client, "Dune"))

    (job,) = kling_emulator.stats.accepted
    assert job.payload == {"prompt": "A teaser for Dune", "duration": "5"}


def test_a_lost_reply_is_not_paid_twice(client: KlingClient, kling_emulator: Emulator) -> None:
    """A fault hits the next submit: the job is made, and its answer gets lost."""
    kling_emulator.faults.add(Fault("submit", Drop(accepted=True)))

    assert asyncio.run(make_teaser(client, "Dune")), "the job is found in the service's list"
    assert kling_emulator.stats.requests["submit"] == 1


class TestRefusedByTheModel:
    """Other settings for the tests of a class or a module."""

    @pytest.fixture
    def kling_emulator_settings(self) -> EmulatorSettings:
        """Every job fails, for a reason of our own."""
        fate = JobScript(ending="failed", error="too dark")
        return EmulatorSettings(time_scale=1000, script=lambda _number, _payload: fate)

    def test_the_reason_is_told(self, client: KlingClient) -> None:
        """The service's own words are in the error."""
        with pytest.raises(JobFailedError, match="too dark"):
            asyncio.run(make_teaser(client, "Dune"))
