from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import aiohttp
import attrs
import pytest

from kling_async.emulator import Emulator, EmulatorSettings

NOON = 1_800_000_000.0
PREFIX = "/api/v1/ie/requestqueue/apikey"


@attrs.define
class Clock:
    now: float = NOON

    def __call__(self) -> float:
        return self.now


@attrs.define
class Bench:
    """A running emulator on a clock that tests move, and an HTTP session with a valid key."""

    emulator: Emulator
    clock: Clock
    session: aiohttp.ClientSession

    async def post(self, path: str, **options):
        async with self.session.post(f"{PREFIX}{path}", **options) as response:
            return response.status, await response.json()

    async def get(self, path: str, **options):
        async with self.session.get(f"{PREFIX}{path}", **options) as response:
            return response.status, await response.json()

    async def submit(self, *, model="kling-v2-6", **payload):
        """The reply to an accepted submit."""
        status, reply = await self.post(
            "/requests", json={"model": model, "payload": {"prompt": "rain", **payload}}
        )
        assert status == 200, reply
        return reply

    async def run_job(self, *, model="kling-v2-6", **payload):
        """The record of a new job after its last status."""
        reply = await self.submit(model=model, **payload)
        self.clock.now += 1e6
        return (await self.get(f"/requests/{reply['request_id']}"))[1]

    async def fetch(self, url: str, *, method: str = "GET", **options):
        """Status, headers and bytes of a media URL, called without a key."""
        options["headers"] = {"Accept-Encoding": "identity", **options.get("headers", {})}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, **options) as response,
        ):
            return response.status, response.headers, await response.read()


@pytest.fixture
async def open_bench() -> AsyncIterator[Callable[..., object]]:
    async with AsyncExitStack() as stack:

        async def open_bench(**settings) -> Bench:
            clock = Clock()
            emulator = await stack.enter_async_context(Emulator(EmulatorSettings(**settings), clock=clock))
            session = aiohttp.ClientSession(emulator.url, headers={"Authorization": "Bearer any-key"})
            return Bench(emulator, clock, await stack.enter_async_context(session))

        yield open_bench


@pytest.fixture
async def bench(open_bench):
    return await open_bench()
