"""Everything that the emulator can do wrong, over real sockets, against the client."""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp
import attrs
import pytest

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

FAST = EmulatorSettings(time_scale=10_000.0, workers=None)
EVERYTHING = {**ACTIONS, **WRONG_TYPES}
ACCEPTING = {
    name: action
    for name, action in EVERYTHING.items()
    if getattr(action, "accepted", True)
    and not isinstance(action, Redirect)
    and action != DuplicateReply(0.02)
}
"""What leaves a job behind. Bytes that come again while the next call waits for its own are another's answer to it."""
LIES = {"x", "?", "\0\u202e\x1b[31m</script>"}
"""Ids of jobs that are not there, which nobody can see through before asking for them."""


UNSEEN = "half a body that looks whole"
"""A storage that lies about the length of a video, and has its digest wrong as well, is believed."""
UNBOUGHT = {ResultState.AMBIGUOUS, ResultState.NOT_SUBMITTED, ResultState.FAILED}
"""What may be said of an item that the service accepted no job for, or none that was not throttled."""


def client_of(emulator, *, wait_timeout=20.0):
    return KlingClient(
        "any-key",
        base_url=emulator.url,
        timeout=0.5,
        limits=Limits(max_polls_per_second=2000.0),
        retry=RetryPolicy(max_retries=8, initial_delay=0.001, max_delay=0.02),
        polling=PollingPolicy(poll_interval=0.05, wait_timeout=wait_timeout),
    )


async def batch_of(emulator, names, *, wait_timeout=20.0, **options):
    """One job for each of these faults, all of them at once."""
    async with client_of(emulator, wait_timeout=wait_timeout) as client:
        return await client.generate_many(names, max_concurrency=len(names), progress=False, **options)


async def test_no_answer_to_a_status_call_ends_a_wait():
    faults = [Fault("status", action, job=number) for number, action in enumerate(EVERYTHING.values(), 1)]
    async with Emulator(attrs.evolve(FAST, faults=faults)) as emulator:
        batch = await batch_of(emulator, list(EVERYTHING))

    assert [result.request.prompt for result in batch if not result.ok] == []
    assert emulator.stats.requests["submit"] == len(batch)


async def test_every_job_whose_submit_was_answered_oddly_has_its_owner():
    faults = [Fault("submit", action, nth=number) for number, action in enumerate(ACCEPTING.values(), 1)]
    async with Emulator(attrs.evolve(FAST, faults=faults)) as emulator:
        batch = await batch_of(emulator, list(ACCEPTING), wait_timeout=5.0)

    assert {result.job.request_id for result in batch if not result.ok} == LIES
    assert all(result.job.payload["prompt"] == result.request.prompt for result in batch if result.ok)
    assert emulator.stats.requests["submit"] == len(batch)


async def storm_over(seed):
    """A batch in a storm: its results, and the jobs that were accepted."""
    prompts = [f"storm {seed}, prompt {number}" for number in range(30)]
    async with (
        Emulator(random_faults(seed, settings=FAST)) as emulator,
        client_of(emulator, wait_timeout=3.0) as client,
    ):
        batch = await client.generate_many(prompts, max_concurrency=10, progress=False)
    assert [result.request.prompt for result in batch] == prompts
    return batch, emulator.stats.accepted


@pytest.mark.slow
async def test_no_storm_has_a_prompt_bought_twice_or_a_batch_not_end():
    for batch, accepted in await asyncio.gather(*map(storm_over, range(6))):
        bought = Counter(job.payload["prompt"] for job in accepted if job.error != RATE_LIMITED)
        for result in batch:
            assert bought[result.request.prompt] <= 1
            assert bought[result.request.prompt] == 1 or result.state in UNBOUGHT
            assert isinstance(result.error, KlingError | None)


async def test_every_video_is_whole_or_is_not_there(tmp_path):
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
    assert {name for name, error in wrong.items() if error == "None"} <= {UNSEEN}
