"""The client against every named fault of the emulator, and against random ones, over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp
import attrs
import pytest
from quick_loop import SPEED, AdjustableLoop, QuickLoop

from kling_async import KlingClient, KlingError, Limits, PollingPolicy, ResultState, RetryPolicy
from kling_async.emulator import (
    ACTIONS,
    RATE_LIMITED,
    WRONG_TYPES,
    DuplicateReply,
    Emulator,
    EmulatorSettings,
    Fault,
    Redirect,
    random_faults,
)
from kling_async.events import Finished

pytestmark = pytest.mark.unmeasured

FAST = EmulatorSettings(time_scale=10_000.0, workers=None)
EVERYTHING = {**ACTIONS, **WRONG_TYPES}
ACCEPTING = {
    name: action
    for name, action in EVERYTHING.items()
    if getattr(action, "accepted", True)
    and not isinstance(action, Redirect)
    and action != DuplicateReply(0.02)
}
"""Actions after which the service has the job. A late duplicate is left out: the next call would take it for its own reply."""
WRONG_IDS = {"x", "?", "\0\u202e\x1b[31m</script>"}
"""Ids of submit replies for which the service has no job. The client learns this only when it polls."""
UNDETECTED = "half of the body with a matching length"
"""The client cannot detect a storage whose length and digest match a truncated video."""
WITHOUT_JOB = {ResultState.AMBIGUOUS, ResultState.NOT_SUBMITTED, ResultState.FAILED}
"""States of an item without an accepted job, or with a throttled one."""


def client_of(emulator, *, timeout=1.0, wait_timeout=120.0, use_lists="auto", on_event=None):
    return KlingClient(
        "any-key",
        base_url=emulator.url,
        timeout=timeout,
        limits=Limits(max_polls_per_second=2000.0),
        retry=RetryPolicy(max_retries=8, initial_delay=0.001, max_delay=0.02),
        polling=PollingPolicy(poll_interval=0.05, wait_timeout=wait_timeout, use_lists=use_lists),
        on_event=on_event,
    )


async def batch_of(emulator, names, *, call_timeout=1.0, use_lists="auto", on_event=None, **options):
    """A batch with one job for each fault, all in flight at once."""
    async with client_of(emulator, timeout=call_timeout, use_lists=use_lists, on_event=on_event) as client:
        return await client.generate_many(names, max_concurrency=len(names), progress=False, **options)


async def test_no_reply_to_a_status_call_ends_a_wait():
    faults = [Fault("status", action, job=number) for number, action in enumerate(EVERYTHING.values(), 1)]
    async with Emulator(attrs.evolve(FAST, faults=faults)) as emulator:
        batch = await batch_of(emulator, list(EVERYTHING), use_lists="never", call_timeout=3.0)

    assert [result.request.prompt for result in batch if not result.ok] == []
    assert emulator.stats.requests["submit"] == len(batch)
    assert emulator.stats.requests["status"] > len(batch), "every job's status call met its fault"


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": AdjustableLoop})], ids=["adjustable"])
async def test_every_job_with_a_faulty_submit_reply_is_matched_to_its_item():
    finished = []

    def end_other_waits(event):
        """Once every job that the service has is finished, the waits for the others time out."""
        finished.append(isinstance(event, Finished))
        if sum(finished) == len(ACCEPTING) - len(WRONG_IDS) and finished[-1]:
            asyncio.get_running_loop().put_forward(120.0)

    faults = [Fault("submit", action, nth=number) for number, action in enumerate(ACCEPTING.values(), 1)]
    async with Emulator(attrs.evolve(FAST, faults=faults)) as emulator:
        batch = await batch_of(emulator, list(ACCEPTING), call_timeout=5.0, on_event=end_other_waits)

    assert {result.job.request_id for result in batch if not result.ok} == WRONG_IDS
    assert all(result.job.payload["prompt"] == result.request.prompt for result in batch if result.ok)
    assert emulator.stats.requests["submit"] == len(batch)


async def run_with_random_faults(seed):
    """A batch under random faults: its results, and the accepted jobs."""
    prompts = [f"seed {seed}, prompt {number}" for number in range(30)]
    async with (
        Emulator(random_faults(seed, settings=FAST)) as emulator,
        client_of(emulator, timeout=SPEED, wait_timeout=3 * SPEED) as client,
    ):
        batch = await client.generate_many(prompts, max_concurrency=10, progress=False)
    assert [result.request.prompt for result in batch] == prompts
    return batch, emulator.stats.accepted


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": QuickLoop})], ids=["quick"])
async def test_under_random_faults_a_batch_ends_and_buys_no_prompt_twice():
    for batch, accepted in await asyncio.gather(*map(run_with_random_faults, range(6))):
        bought = Counter(job.payload["prompt"] for job in accepted if job.error != RATE_LIMITED)
        for result in batch:
            assert bought[result.request.prompt] <= 1
            assert bought[result.request.prompt] == 1 or result.state in WITHOUT_JOB
            assert isinstance(result.error, KlingError | None)


async def test_every_video_is_whole_or_absent(tmp_path):
    faults = [Fault("media", action, job=number) for number, action in enumerate(ACTIONS.values(), 1)]
    async with Emulator(attrs.evolve(FAST, faults=faults)) as emulator, aiohttp.ClientSession() as session:
        batch = await batch_of(emulator, ["the same"] * len(ACTIONS), output=tmp_path)
        name_of = {job.request_id: name for job, name in zip(emulator.stats.accepted, ACTIONS, strict=True)}
        wrong = {}
        for result in batch:
            async with session.get(result.job.video_url) as reply:
                whole = await reply.read()
            if result.path is None or result.path.read_bytes() != whole:
                wrong[name_of[result.job.request_id]] = str(result.error)

    assert {result.state for result in batch} == {ResultState.SUCCEEDED}
    assert {name for name, error in wrong.items() if error == "None"} <= {UNDETECTED}
