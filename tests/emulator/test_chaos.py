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
from tests.emulator.conftest import PREFIX

OPERATIONS = get_args(Operation)
BRIEF, PATIENT = aiohttp.ClientTimeout(total=0.08), aiohttp.ClientTimeout(total=10)
INVALID_REPLY = (aiohttp.ClientError, TimeoutError)
"""Errors of an HTTP client for a reply that is not valid HTTP."""


async def call(bench, operation, record, *, timeout=PATIENT):  # noqa: ASYNC109 - aiohttp's own
    """The status code of one call of this kind, about the job of the record."""
    media = record["outcome"]["thumbnail_image_url"]
    method, path, body = {
        "submit": ("POST", f"{PREFIX}/requests", {"model": "kling-v2-6", "payload": {"prompt": "rain"}}),
        "status": ("GET", f"{PREFIX}/requests/{record['request_id']}", None),
        "list": ("GET", f"{PREFIX}/requests", None),
        "models": ("GET", f"{PREFIX}/models", None),
        "upload": ("POST", f"{PREFIX}/upload-url", {"file_type": "png"}),
        "store": ("PUT", "/gmi-video-assests-prod/uploads/x.png", None),
        "media": ("GET", media.removeprefix(bench.emulator.url), None),
    }[operation]
    # Each call has its own connection, because an earlier reply may have left bytes on a shared one.
    url, headers = bench.emulator.url + path, {"Authorization": "Bearer any-key", "Connection": "close"}
    options = {"json": body, "headers": headers, "timeout": timeout, "allow_redirects": False}
    async with bench.session.request(method, url, **options) as response:
        await response.read()
        return response.status


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", ACTIONS)
async def test_after_any_action_on_any_call_the_next_call_gets_the_real_reply(bench, name):
    record = await bench.run_job()
    expected = [await call(bench, operation, record) for operation in OPERATIONS]
    bench.emulator.faults.add(*(Fault(operation, ACTIONS[name]) for operation in OPERATIONS))

    before = dict(bench.emulator.stats.requests)
    for operation in OPERATIONS:
        # On a busy machine the timeout may come before the client sends anything.
        while bench.emulator.stats.requests[operation] == before[operation]:
            with contextlib.suppress(*INVALID_REPLY):
                status = await call(bench, operation, record, timeout=BRIEF)
                assert status != 500 or name.startswith("500")

    assert [await call(bench, operation, record) for operation in OPERATIONS] == expected


async def test_every_wrong_type_is_in_the_reply(bench):
    record = await bench.run_job()
    for name, action in WRONG_TYPES.items():
        (key, text), kind = *action.raw_json.items(), name.partition(" is ")[2]
        bench.emulator.faults.add(Fault("status", action))
        async with bench.session.get(f"{PREFIX}/requests/{record['request_id']}") as response:
            assert f'"{key}": {text}' in await response.text(), kind


@pytest.mark.parametrize("name", JOB_SCRIPTS)
async def test_every_job_script_runs_to_its_ending(open_bench, name):
    bench = await open_bench(script=lambda _number, _payload: JOB_SCRIPTS[name])
    reply = await bench.submit()
    bench.clock.now += 1e6
    record = next(iter((await bench.get("/requests"))[1]["requests"]))

    assert record["request_id"] == reply["request_id"]
    assert (record["status"] in {"success", "failed", "cancelled"}) == ("stuck" not in name)


@pytest.mark.parametrize("name", RESPONSE_FORMATS)
async def test_every_response_format_has_a_list(open_bench, name):
    bench = await open_bench(response_format=RESPONSE_FORMATS[name])
    await bench.submit()

    assert (await bench.get("/requests"))[0] == 200


def test_random_faults_are_the_same_for_the_same_seed():
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


def test_random_faults_hit_every_kind_of_call_and_some_jobs():
    chosen = random_faults(3, probability=0.3)
    scripts = [chosen.script(number, {}) for number in range(1000)]

    assert {fault.on for fault in chosen.faults} == set(OPERATIONS)
    assert sum(script is not None for script in scripts) == pytest.approx(300, abs=60)


def test_random_faults_keep_the_given_settings():
    script, fault = JobScript(ending="cancelled"), Fault("media", ACTIONS["no reply"])
    settings = EmulatorSettings(
        workers=3, faults=[fault], script=lambda number, _: script if number == 1 else None
    )
    chosen = random_faults(4, probability=1.0, settings=settings)

    assert (chosen.workers, chosen.faults[0]) == (3, fault)
    assert chosen.script(1, {}) is script
    assert chosen.script(2, {}) in JOB_SCRIPTS.values()


def test_random_faults_use_both_tables():
    actions = [fault.do for seed in range(20) for fault in random_faults(seed).faults]

    assert any(action in ACTIONS.values() for action in actions)
    assert any(action in WRONG_TYPES.values() for action in actions)


async def test_the_emulator_does_not_wait_for_a_client_that_stops_reading(bench):
    bench.emulator.faults.add(Fault("list", ACTIONS["gzip bomb"]), Fault("list", ACTIONS["100 MB"], nth=2))
    for _ in range(2):
        response = await bench.session.get(f"{PREFIX}/requests")
        await response.content.readany()
        response.close()

    async with asyncio.timeout(5):
        assert (await bench.get("/requests"))[0] == 200
