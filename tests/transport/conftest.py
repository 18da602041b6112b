from __future__ import annotations

import aiohttp
import pytest

from kling_async._transport.fast_path import FastTransport
from kling_async._transport.over_aiohttp import AiohttpTransport

AIOHTTP_3 = pytest.mark.skipif(
    not aiohttp.__version__.startswith("3."), reason="the fast path is for aiohttp 3"
)


@pytest.fixture(
    params=[AiohttpTransport, pytest.param(FastTransport, marks=AIOHTTP_3)], ids=["public", "fast"]
)
def path(request):
    """Both ways to send a request over aiohttp: what is promised holds for both."""
    return request.param


@pytest.fixture
async def transport(path):
    transport = path()
    yield transport
    await transport.aclose()
