"""Tests of code that makes videos, with the pytest fixture of the package."""

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
    """A client that polls often, because the jobs of the emulator are short."""
    fast = PollingPolicy(poll_interval=0.01)
    return KlingClient("any-key", base_url=kling_emulator.url, polling=fast)


def test_a_teaser_is_one_paid_job(client: KlingClient, kling_emulator: Emulator) -> None:
    """The emulator has every paid job with its payload."""
    assert asyncio.run(make_teaser(client, "Dune"))

    (job,) = kling_emulator.stats.accepted
    assert job.payload == {"prompt": "A teaser for Dune", "duration": "5"}


def test_a_lost_reply_is_not_paid_twice(client: KlingClient, kling_emulator: Emulator) -> None:
    """A fault hits the next submit: the job is created, and the reply is lost."""
    kling_emulator.faults.add(Fault("submit", Drop(accepted=True)))

    assert asyncio.run(make_teaser(client, "Dune")), "the client finds the job in the list of the service"
    assert kling_emulator.stats.requests["submit"] == 1


class TestRefusedByTheModel:
    """Tests with other settings; a module can have its own settings too."""

    @pytest.fixture
    def kling_emulator_settings(self) -> EmulatorSettings:
        """Every job fails with this error."""
        failed = JobScript(ending="failed", error="too dark")
        return EmulatorSettings(time_scale=1000, script=lambda _number, _payload: failed)

    def test_the_error_has_the_reason(self, client: KlingClient) -> None:
        """The error has the text of the service."""
        with pytest.raises(JobFailedError, match="too dark"):
            asyncio.run(make_teaser(client, "Dune"))
