from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import logging
import sys

import aiohttp
import pytest
from anyio.from_thread import start_blocking_portal
from loopback_proxy import http_server

from kling_async._transport import fast_path
from kling_async._transport.base import Request
from kling_async._transport.fast_path import FastTransport
from kling_async._transport.network import Network, Proxy
from kling_async._transport.open_transport import open_transport
from kling_async._transport.over_aiohttp import AiohttpTransport
from kling_async.errors import APIConnectionError


async def open_and_close(path="fast", network=None):
    transport = open_transport(network or Network(), path)
    await transport.aclose()
    return type(transport)


@pytest.mark.skipif(not aiohttp.__version__.startswith("3."), reason="the fast path is for aiohttp 3")
async def test_the_fast_path_is_taken_where_aiohttp_is_as_expected(caplog):
    caplog.set_level(logging.DEBUG, "kling_async")
    assert await open_and_close() is FastTransport
    assert caplog.text == ""


async def test_a_setting_takes_the_public_api(caplog):
    caplog.set_level(logging.DEBUG, "kling_async")
    assert await open_and_close("public") is AiohttpTransport
    assert "KLING_ASYNC_TRANSPORT" in caplog.text


def wrap(function):
    return functools.wraps(function)(lambda *args, **named: function(*args, **named))  # noqa: PLW0108 - code of its own


def other_arguments(self, *, url):
    raise NotImplementedError


CHANGES = {
    "aiohttp 4": (aiohttp, "__version__", "4.0.0a2", "is not aiohttp 3"),
    "a missing attribute": (fast_path.ResponseHandler, "should_close", None, "has no should_close"),
    "a missing attribute of Connection": (fast_path.Connection, "protocol", None, "has no protocol"),
    "a mocked request": (
        aiohttp.ClientSession,
        "_request",
        wrap(aiohttp.ClientSession._request),
        "replaced",
    ),
    "a traced session": (
        aiohttp.ClientSession,
        "__init__",
        wrap(aiohttp.ClientSession.__init__),
        "replaced",
    ),
    "a recorded connector": (aiohttp.TCPConnector, "_create_connection", object(), "replaced"),
    "a request with other arguments": (aiohttp.ClientRequest, "__init__", other_arguments, "other arguments"),
}


@pytest.mark.skipif(not aiohttp.__version__.startswith("3."), reason="the fast path is for aiohttp 3")
@pytest.mark.parametrize("owner, name, value, reason", CHANGES.values(), ids=list(CHANGES))
def test_the_fast_path_is_refused_where_something_is_not_as_expected(monkeypatch, owner, name, value, reason):
    if value is None:
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, value)
    why = fast_path.reason_against(Network())
    monkeypatch.undo()
    assert reason in why


async def test_the_public_api_is_taken_through_a_proxy_and_the_log_says_so(caplog):
    caplog.set_level(logging.DEBUG, "kling_async")
    network = Network({"https": Proxy("http://proxy.test:1", "Basic secret")})
    assert await open_and_close(network=network) is AiohttpTransport
    assert "a proxy is set" in caplog.text
    assert "secret" not in caplog.text


async def test_the_public_api_is_taken_where_a_name_cannot_be_imported(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, "kling_async")
    monkeypatch.setitem(sys.modules, "kling_async._transport.fast_path", None)
    monkeypatch.delattr(importlib.import_module("kling_async._transport"), "fast_path")
    assert await open_and_close() is AiohttpTransport
    assert "public API" in caplog.text


@pytest.mark.skipif(not aiohttp.__version__.startswith("3."), reason="the fast path is for aiohttp 3")
async def test_a_mock_that_comes_after_the_client_answers(monkeypatch):
    async def fail(self, method, url, **options):
        raise aiohttp.ClientConnectionError("mocked")

    transport = FastTransport()
    monkeypatch.setattr(aiohttp.ClientSession, "_request", fail)
    async with http_server() as server:
        with pytest.raises(Exception, match="mocked"):
            await transport.send(Request("POST", f"http://127.0.0.1:{server.port}/", {}, b"{}"))
    await transport.aclose()
    assert server.requests == []


# A loop that ends


async def test_a_transport_that_is_dropped_in_a_running_loop_is_aiohttps_to_complain_about(caplog):
    transport = AiohttpTransport()
    sessions = transport._sessions
    del transport
    gc.collect()
    assert [session.closed for session in sessions] == [False] * 3
    for session in sessions:
        await session.close()


@pytest.fixture
def stopped_loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_at_the_end_of_the_program_the_connections_of_a_stopped_loop_are_closed(path, stopped_loop):
    async def make_and_use(port):
        transport = path()
        await transport.send(Request("GET", f"http://127.0.0.1:{port}/", {}))
        return transport

    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(http_server()) as server,
    ):
        transport = stopped_loop.run_until_complete(make_and_use(server.port))
        post = Request("POST", f"http://127.0.0.1:{server.port}/", {}, b"{}")
        late = stopped_loop.create_task(transport.send(post))
        transport.close_at_exit()
        assert transport._session.closed
        with pytest.raises(APIConnectionError, match="the client is closed") as caught:
            stopped_loop.run_until_complete(late)
        assert caught.value.was_sent is False
        transport.close_at_exit()
    assert server.requests == ["GET / HTTP/1.1"]


async def test_at_the_end_of_the_program_a_running_loop_is_left_alone(transport):
    transport.close_at_exit()
    assert not transport._session.closed


def test_a_transport_that_is_dropped_after_its_loop_is_closed_in_silence():
    loop = asyncio.new_event_loop()

    async def make():
        return AiohttpTransport()

    transport = loop.run_until_complete(make())
    closed_by_itself = transport._fresh_session
    loop.run_until_complete(closed_by_itself.close())
    session = transport._session
    loop.close()
    transport.close_at_exit()
    assert not session.closed
    del transport
    gc.collect()
    assert session.closed
