from __future__ import annotations

import pytest

from kling_async._transport.fast_path import FastTransport
from kling_async._transport.over_aiohttp import AiohttpTransport


@pytest.fixture(params=[AiohttpTransport, FastTransport], ids=["public", "fast"])
def path(request):
    """Both ways to send a request over aiohttp: what is promised holds for both."""
    return request.param


@pytest.fixture
async def transport(path):
    transport = path()
    yield transport
    await transport.aclose()
