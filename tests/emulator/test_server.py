from __future__ import annotations

import sys

import aiohttp
import anyio
import pytest

from kling_async.emulator import Drop, Emulator, EmulatorSettings, Fault, serve

LIST = "/api/v1/ie/requestqueue/apikey/requests"


async def test_it_listens_only_while_it_is_open():
    async with Emulator() as emulator:
        assert await status(emulator.url) == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await status(emulator.url)


async def status(url):
    async with (
        aiohttp.ClientSession(headers={"Authorization": "Bearer any-key"}) as session,
        session.get(url + LIST) as response,
    ):
        return response.status


async def test_it_has_no_address_before_it_starts():
    emulator = Emulator()

    assert "not running" in repr(emulator)
    with pytest.raises(RuntimeError, match="before it is started"):
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
def test_its_address_is_one_that_can_be_called(host, url):
    assert Emulator(EmulatorSettings(host=host, port=8000)).url == url


async def test_two_at_once_have_their_own_ports_and_jobs(bench, open_bench):
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


async def test_a_taken_port_is_told_and_nothing_is_left_running(bench):
    second = Emulator(EmulatorSettings(port=int(bench.emulator.url.rpartition(":")[2])))
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    assert "not running" in repr(second)


async def test_an_outage_refuses_connections_and_forgets_nothing(bench):
    told, url = await bench.submit(), bench.emulator.url

    async with bench.emulator.outage():
        with pytest.raises(aiohttp.ClientConnectorError):
            await status(url)

    assert bench.emulator.url == url
    assert (await bench.get(f"/requests/{told['request_id']}"))[0] == 200


async def test_an_outage_ends_also_when_its_block_fails(bench):
    with pytest.raises(ZeroDivisionError):
        async with bench.emulator.outage():
            raise ZeroDivisionError

    assert await status(bench.emulator.url) == 200


async def test_stats_tell_what_was_seen(bench):
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


async def test_stats_tell_how_many_calls_came_at_once(bench):
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(bench.submit)

    assert bench.emulator.stats.max_concurrent_calls["submit"] <= 5
    assert bench.emulator.stats.requests["submit"] == 5


async def test_faults_may_be_set_from_the_start(open_bench):
    bench = await open_bench(faults=[Fault("list", Drop(), times=None)])

    with pytest.raises(aiohttp.ClientConnectionError):
        await bench.get("/requests")


async def test_serve_runs_until_cancelled():
    seen = []
    async with anyio.create_task_group() as group:

        async def check(emulator):
            seen.append((emulator, await status(emulator.url)))
            group.cancel_scope.cancel()

        group.start_soon(lambda: serve(on_start=lambda emulator: group.start_soon(check, emulator)))

    ((emulator, code),) = seen
    assert code == 200
    assert "not running" in repr(emulator)


async def test_serve_needs_nobody_to_tell():
    with anyio.move_on_after(0.02) as scope:
        await serve(EmulatorSettings())

    assert scope.cancelled_caught


async def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "kling_async.emulator.app", raising=False)
    monkeypatch.delitem(sys.modules, "kling_async.emulator.media", raising=False)
    monkeypatch.delitem(sys.modules, "kling_async.emulator.media_cache", raising=False)
    monkeypatch.setitem(sys.modules, "av", None)

    with pytest.raises(ModuleNotFoundError, match=r"kling_async\[emulator\]"):
        await Emulator().start()


async def test_time_passes_by_itself():
    async with Emulator(EmulatorSettings(time_scale=1e6)) as emulator:
        async with (
            aiohttp.ClientSession(emulator.url, headers={"Authorization": "Bearer any-key"}) as session,
            session.post(LIST, json={"model": "kling-v2-6", "payload": {"prompt": "rain"}}) as response,
        ):
            assert response.status == 200
        with anyio.fail_after(5):
            while emulator.stats.jobs_in_flight:  # noqa: ASYNC110 - the emulator runs on the clock, there is no event
                await anyio.sleep(0.001)
        assert emulator.stats.max_jobs_in_flight == 1
