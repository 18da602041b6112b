"""The README's row about this client, column by column: what it does when the service fails after accepting a job."""

from __future__ import annotations

import anyio
import pytest

from kling_async import KlingClient, PollingPolicy, RetryPolicy
from kling_async.emulator import Drop, Edit, EmulatorSettings, Fault, Reply, Stall
from kling_async.events import Submitted

HASTE = RetryPolicy(initial_delay=0.001, max_delay=0.01)
CURIOUS = PollingPolicy(poll_interval=0.01)


@pytest.fixture
def kling_emulator_settings():
    return EmulatorSettings(time_scale=10_000.0)


@pytest.mark.parametrize(
    "fault",
    [Reply(500, {"error": "Backend error (400)"}, accepted=True), Drop(accepted=True), Stall(0.5)],
    ids=["answers-500", "drops-the-reply", "stalls"],
)
async def test_a_submit_whose_reply_is_lost_is_one_post_and_reconciled(kling_emulator, fault):
    kling_emulator.faults.add(Fault("submit", fault, times=None))

    async with KlingClient("any-key", base_url=kling_emulator.url, timeout=0.2, retry=HASTE) as client:
        job = await client.generate("rain")

    assert job.is_success

    assert kling_emulator.stats.requests["submit"] == 1
    assert len(kling_emulator.stats.accepted) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", Reply(500), times=2),
        Fault("status", Reply(503, "<html>busy</html>"), times=12),
        Fault("status", Edit({"status": "polishing"}), times=2),
    ],
    ids=["two-polls-fail", "twelve-503s", "new-status"],
)
async def test_a_wait_rides_out_what_status_calls_say(kling_emulator, fault):
    kling_emulator.faults.add(fault)

    url = kling_emulator.url
    async with KlingClient("any-key", base_url=url, retry=HASTE, polling=CURIOUS) as client:
        job = await client.generate("rain")

    assert job.is_success
    assert kling_emulator.stats.requests["submit"] == 1


async def test_a_cancelled_submit_keeps_its_id(kling_emulator):
    kling_emulator.faults.add(Fault("submit", Stall(0.05)))
    told = []

    async with (
        KlingClient("any-key", base_url=kling_emulator.url, on_event=told.append) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.submit, "rain")
        while not kling_emulator.stats.requests:  # noqa: ASYNC110 - the emulator lives in another thread
            await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()

    (paid,) = kling_emulator.stats.accepted
    ids = [event.request_id for event in told if isinstance(event, Submitted)]
    assert ids == [paid.request_id]
