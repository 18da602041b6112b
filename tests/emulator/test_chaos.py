from __future__ import annotations

import asyncio
import contextlib
from typing import get_args

import aiohttp
import pytest

from kling_async.emulator import (
    ACTIONS,
    JOB_SCRIPTS,
    RESPONSE_FORMATS,
    WRONG_TYPES,
    EmulatorSettings,
    Fault,
    JobScript,
    random_faults,
)
from kling_async.emulator.faults import Operation

OPERATIONS = get_args(Operation)
BRIEF, PATIENT = aiohttp.ClientTimeout(total=0.08), aiohttp.ClientTimeout(total=10)
LIES = (aiohttp.ClientError, TimeoutError)
"""How a plain HTTP client ends where the answer is not one."""


async def call_of(bench, operation, told, *, timeout=PATIENT):  # noqa: ASYNC109 - aiohttp's own
    """The status of one call of that kind, about a job that was told of before."""
    prefix, media = "/api/v1/ie/requestqueue/apikey", told["outcome"]["thumbnail_image_url"]
    method, path, body = {
        "submit": ("POST", f"{prefix}/requests", {"model": "kling-v2-6", "payload": {"prompt": "rain"}}),
        "status": ("GET", f"{prefix}/requests/{told['request_id']}", None),
        "list": ("GET", f"{prefix}/requests", None),
        "models": ("GET", f"{prefix}/models", None),
        "upload": ("POST", f"{prefix}/upload-url", {"file_type": "png"}),
        "store": ("PUT", "/gmi-video-assests-prod/uploads/x.png", None),
        "media": ("GET", media.removeprefix(bench.emulator.url), None),
    }[operation]
    # On a connection of its own: what an answer left behind there is not its matter.
    url, headers = bench.emulator.url + path, {"Authorization": "Bearer any-key", "Connection": "close"}
    options = {"json": body, "headers": headers, "timeout": timeout, "allow_redirects": False}
    async with bench.session.request(method, url, **options) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("name", ACTIONS)
async def test_every_action_can_befall_every_call_and_the_next_one_hears_the_truth(bench, name):
    told = await bench.finished()
    truth = [await call_of(bench, operation, told) for operation in OPERATIONS]
    bench.emulator.faults.add(*(Fault(operation, ACTIONS[name]) for operation in OPERATIONS))

    before = dict(bench.emulator.stats.requests)
    for operation in OPERATIONS:
        # On a busy machine the time may be over before anything was sent.
        while bench.emulator.stats.requests[operation] == before[operation]:
            with contextlib.suppress(*LIES):
                status = await call_of(bench, operation, told, timeout=BRIEF)
                assert status != 500 or name.startswith("500")

    assert [await call_of(bench, operation, told) for operation in OPERATIONS] == truth


async def test_every_key_can_have_every_wrong_value(bench):
    told = await bench.finished()
    for name, action in WRONG_TYPES.items():
        (key, text), kind = *action.raw_json.items(), name.partition(" is ")[2]
        bench.emulator.faults.add(Fault("status", action))
        async with bench.session.get(
            f"/api/v1/ie/requestqueue/apikey/requests/{told['request_id']}"
        ) as response:
            assert f'"{key}": {text}' in await response.text(), kind


@pytest.mark.parametrize("name", JOB_SCRIPTS)
async def test_every_fate_is_a_life_that_a_job_can_have(open_bench, name):
    bench = await open_bench(script=lambda _number, _payload: JOB_SCRIPTS[name])
    told = await bench.submit()
    bench.clock.now += 1e6
    record = next(iter((await bench.get("/requests"))[1]["requests"]))

    assert record["request_id"] == told["request_id"]
    assert (record["status"] in {"success", "failed", "cancelled"}) == ("for ever" not in name)


@pytest.mark.parametrize("name", RESPONSE_FORMATS)
async def test_every_dialect_is_spoken(open_bench, name):
    bench = await open_bench(response_format=RESPONSE_FORMATS[name])
    await bench.submit()

    assert (await bench.get("/requests"))[0] == 200


def test_a_storm_follows_from_its_seed():
    first, again, other = random_faults(1), random_faults(1), random_faults(2)

    assert (first.faults, first.response_format, first.seed) == (
        again.faults,
        again.response_format,
        again.seed,
    )
    assert first.faults != other.faults
    assert [first.script(number, {}) for number in range(200)] == [
        again.script(number, {}) for number in range(200)
    ]


def test_a_storm_hits_every_kind_of_call_and_some_of_the_jobs():
    weather = random_faults(3, probability=0.3)
    fates = [weather.script(number, {}) for number in range(1000)]

    assert {fault.on for fault in weather.faults} == set(OPERATIONS)
    assert sum(fate is not None for fate in fates) == pytest.approx(300, abs=60)


def test_a_storm_leaves_the_settings_it_is_given():
    chosen, mine = JobScript(ending="cancelled"), Fault("media", ACTIONS["never"])
    settings = EmulatorSettings(
        workers=3, faults=[mine], script=lambda number, _: chosen if number == 1 else None
    )
    weather = random_faults(4, probability=1.0, settings=settings)

    assert (weather.workers, weather.faults[0]) == (3, mine)
    assert weather.script(1, {}) is chosen
    assert weather.script(2, {}) in JOB_SCRIPTS.values()


def test_storms_draw_from_both_tables():
    drawn = [fault.do for seed in range(20) for fault in random_faults(seed).faults]

    assert any(action in ACTIONS.values() for action in drawn)
    assert any(action in WRONG_TYPES.values() for action in drawn)


async def test_nobody_waits_for_a_caller_who_stopped_reading(bench):
    bench.emulator.faults.add(Fault("list", ACTIONS["a gzip bomb"]), Fault("list", ACTIONS["100 MB"], nth=2))
    for _ in range(2):
        response = await bench.session.get("/api/v1/ie/requestqueue/apikey/requests")
        await response.content.readany()
        response.close()

    async with asyncio.timeout(5):
        assert (await bench.get("/requests"))[0] == 200
