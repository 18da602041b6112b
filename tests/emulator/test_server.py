from __future__ import annotations

import sys

import aiohttp
import anyio
import pytest

from kling_async.emulator import Drop, Emulator, EmulatorSettings, Fault, serve
from tests.emulator.conftest import PREFIX


async def test_an_emulator_listens_only_while_it_is_open():
    async with Emulator() as emulator:
        assert await status(emulator.url) == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await status(emulator.url)


async def status(url):
    async with (
        aiohttp.ClientSession(headers={"Authorization": "Bearer any-key"}) as session,
        session.get(f"{url}{PREFIX}/requests") as response,
    ):
        return response.status


async def test_an_emulator_has_no_url_before_it_starts():
    emulator = Emulator()

    assert "not running" in repr(emulator)
    with pytest.raises(RuntimeError, match="before it starts"):
        _ = emulator.url


@pytest.mark.parametrize(
    "host, url",
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),  # noqa: S104
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
        ("emulator.test", "http://emulator.test:8000"),
    ],
)
def test_the_url_is_a_host_that_clients_can_call(host, url):
    assert Emulator(EmulatorSettings(host=host, port=8000)).url == url


async def test_two_emulators_have_their_own_ports_and_jobs(bench, open_bench):
    other = await open_bench()
    await bench.submit()

    assert bench.emulator.url != other.emulator.url
    assert (len(bench.emulator.stats.accepted), len(other.emulator.stats.accepted)) == (1, 0)


async def test_starting_twice_is_an_error(bench):
    with pytest.raises(RuntimeError, match="already running"):
        await bench.emulator.start()


async def test_closing_twice_does_nothing():
    emulator = Emulator()
    await emulator.start()
    await emulator.aclose()

    await emulator.aclose()


async def test_a_port_in_use_is_an_error_and_leaves_nothing_running(bench):
    second = Emulator(EmulatorSettings(port=int(bench.emulator.url.rpartition(":")[2])))
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    assert "not running" in repr(second)


async def test_an_outage_refuses_connections_and_keeps_jobs_and_port(bench):
    reply, url = await bench.submit(), bench.emulator.url

    async with bench.emulator.outage():
        with pytest.raises(aiohttp.ClientConnectorError):
            await status(url)

    assert bench.emulator.url == url
    assert (await bench.get(f"/requests/{reply['request_id']}"))[0] == 200


async def test_an_outage_ends_if_its_block_raises(bench):
    with pytest.raises(ZeroDivisionError):
        async with bench.emulator.outage():
            raise ZeroDivisionError

    assert await status(bench.emulator.url) == 200


async def test_stats_count_calls_and_jobs(bench):
    await bench.submit()
    await bench.submit()
    before = bench.emulator.stats
    bench.clock.now += 1e6
    await bench.get("/requests")
    after = bench.emulator.stats

    assert [job.payload["prompt"] for job in after.accepted] == ["rain", "rain"]
    assert (before.jobs_in_flight, after.jobs_in_flight, after.max_jobs_in_flight) == (2, 0, 2)
    assert dict(before.requests) == {"submit": 2}
    assert dict(after.requests) == {"submit": 2, "list": 1}
    assert "2 jobs, 0 in flight" in repr(bench.emulator)


async def test_stats_count_concurrent_calls(bench):
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(bench.submit)

    assert 1 <= bench.emulator.stats.max_concurrent_calls["submit"] <= 5
    assert bench.emulator.stats.requests["submit"] == 5


async def test_settings_can_have_faults(open_bench):
    bench = await open_bench(faults=[Fault("list", Drop(), times=None)])

    with pytest.raises(aiohttp.ClientConnectionError):
        await bench.get("/requests")


async def test_serve_runs_until_cancelled():
    statuses = []
    async with anyio.create_task_group() as group:

        async def check(emulator):
            statuses.append((emulator, await status(emulator.url)))
            group.cancel_scope.cancel()

        group.start_soon(lambda: serve(on_start=lambda emulator: group.start_soon(check, emulator)))

    ((emulator, code),) = statuses
    assert code == 200
    assert "not running" in repr(emulator)


async def test_serve_runs_without_a_callback():
    with anyio.move_on_after(0.02) as scope:
        await serve(EmulatorSettings())

    assert scope.cancelled_caught


async def test_the_error_names_the_missing_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "kling_async.emulator.app", raising=False)
    monkeypatch.delitem(sys.modules, "kling_async.emulator.media", raising=False)
    monkeypatch.delitem(sys.modules, "kling_async.emulator.media_cache", raising=False)
    monkeypatch.setitem(sys.modules, "av", None)

    with pytest.raises(ModuleNotFoundError, match=r"\.\[emulator\]"):
        await Emulator().start()


async def test_jobs_finish_on_the_clock_of_the_machine():
    async with Emulator(EmulatorSettings(time_scale=1e6)) as emulator:
        async with (
            aiohttp.ClientSession(emulator.url, headers={"Authorization": "Bearer any-key"}) as session,
            session.post(
                f"{PREFIX}/requests", json={"model": "kling-v2-6", "payload": {"prompt": "rain"}}
            ) as response,
        ):
            assert response.status == 200
        with anyio.fail_after(5):
            while emulator.stats.jobs_in_flight:  # noqa: ASYNC110 - the emulator runs on the clock and has no event for it
                await anyio.sleep(0.001)
        assert emulator.stats.max_jobs_in_flight == 1
