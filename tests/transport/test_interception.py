"""A mock, a recorder or a hand-made patch sees the paid POST, or no POST leaves."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from unittest.mock import AsyncMock, MagicMock, patch

import aiohttp
import pytest
import vcr
from aioresponses import aioresponses
from loopback_proxy import http_server

from kling_async import APIConnectionError, ConfigurationError, KlingClient, PollingPolicy, RetryPolicy
from kling_async._policy.submission import SubmitFailure, classify, stops_the_batch
from kling_async._transport.base import Request
from kling_async._transport.interception import find_interceptor
from kling_async._transport.over_aiohttp import AiohttpTransport
from kling_async.emulator import Emulator, EmulatorSettings

QUEUE = "/api/v1/ie/requestqueue/apikey/requests"
FAST = PollingPolicy(poll_interval=0.01, wait_timeout=20)
BOTH_PATHS = pytest.mark.parametrize("chosen", ["public", "fast"])


class MockedResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 gives no `stream_writer`, which aiohttp 3.14 wants; with this class it works there too."""

    def __init__(self, *args, **options):
        if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
            options["stream_writer"] = SimpleNamespace(output_size=0)
        super().__init__(*args, **options)


@pytest.fixture(params=["opened before the mock", "opened within the mock"])
def is_open_before(request):
    return request.param == "opened before the mock"


@pytest.fixture
def chosen_path(chosen, monkeypatch):
    monkeypatch.setenv("KLING_ASYNC_TRANSPORT", chosen)


def client_of(emulator):
    return KlingClient(
        "any-key", base_url=emulator.url, proxy="", polling=FAST, retry=RetryPolicy(max_retries=0)
    )


def mock_all(mocked, url):
    job = {"request_id": "mocked-id", "model": "kling-v2-6", "payload": {"prompt": "A comet"}}
    done = {**job, "status": "success", "outcome": {"video_url": f"{url}/mocked.mp4"}}
    film = b"\x00\x00\x00\x18ftypmp42" + bytes(20_000)
    mocked.post(url + QUEUE, payload={**job, "status": "queued"}, response_class=MockedResponse)
    mocked.get(f"{url}{QUEUE}/mocked-id", payload=done, response_class=MockedResponse)
    headers = {"Content-Length": str(len(film))}
    mocked.get(
        f"{url}/mocked.mp4",
        body=film,
        content_type="video/mp4",
        headers=headers,
        response_class=MockedResponse,
    )


@BOTH_PATHS
@pytest.mark.usefixtures("chosen_path")
async def test_aioresponses_answers_each_call_and_nothing_reaches_the_service(is_open_before, tmp_path):
    async with Emulator(EmulatorSettings()) as emulator, client_of(emulator) as client:
        if is_open_before:
            await client.list_models()  # leaves a connection to the service
        with aioresponses() as mocked:
            mock_all(mocked, emulator.url)
            job = await client.generate("A comet")
            path = await client.download(job, tmp_path / "a.mp4")
    assert job.request_id == "mocked-id"
    assert path.stat().st_size == 20_012
    assert set(emulator.stats.requests) <= {"models"}
    assert find_interceptor() is None


@BOTH_PATHS
@pytest.mark.usefixtures("chosen_path", "tiny_films")
async def test_vcrpy_records_each_call_and_plays_it_back_without_the_service(is_open_before, tmp_path):
    recorder = vcr.VCR(filter_headers=["authorization"])
    cassette, clip = str(tmp_path / "run.yaml"), tmp_path / "a.mp4"
    async with Emulator(EmulatorSettings(instant_rate=1.0)) as emulator:
        async with client_of(emulator) as client:
            if is_open_before:
                await client.list_models()
            with recorder.use_cassette(cassette):
                recorded = await client.generate("A comet")
                saved = (await client.download(recorded, clip)).read_bytes()
        assert emulator.stats.requests["submit"] == emulator.stats.requests["media"] == 1
    clip.unlink()
    async with client_of(emulator) as client:  # which does not run any more
        with recorder.use_cassette(cassette, record_mode="none"):
            replayed = await client.generate("A comet")
            assert (await client.download(replayed, clip)).read_bytes() == saved
    assert replayed.request_id == recorded.request_id
    assert emulator.stats.requests["submit"] == 1


SEEN = {
    "request": "aiohttp.ClientSession.request",
    "_request": "aiohttp.ClientSession._request",
}
UNSEEN = (
    "aiohttp.ClientSession.post",
    "aiohttp.ClientSession.get",
    "aiohttp.ClientSession",
    "aiohttp.client.ClientSession",
)


async def post_with(path, make_patch, *, is_open_before):
    """A POST under a patch: the error or the reply, and what the server was sent."""
    async with http_server() as server:
        transport = path() if is_open_before else None
        with make_patch():
            transport = transport or path()
            request = Request("POST", f"http://127.0.0.1:{server.port}/", {}, b"{}")
            try:
                told = await transport.send(request)
            except Exception as error:  # noqa: BLE001 - it is what the test looks at
                told = error
        if isinstance(transport._session, aiohttp.ClientSession):
            await transport.aclose()
    return told, server.requests


@pytest.mark.parametrize("target", SEEN.values(), ids=list(SEEN))
async def test_a_replaced_function_on_the_way_sees_the_post(path, target, is_open_before):
    fail = AsyncMock(side_effect=aiohttp.ClientConnectionError("mocked"))
    told, sent = await post_with(path, lambda: patch(target, fail), is_open_before=is_open_before)
    assert "mocked" in str(told)
    assert sent == []
    fail.assert_awaited_once()


@pytest.mark.parametrize("target", UNSEEN)
async def test_no_post_leaves_where_a_replaced_part_would_not_see_it(path, target):
    told, sent = await post_with(path, lambda: patch(target, MagicMock()), is_open_before=True)
    assert isinstance(told, ConfigurationError)
    assert f"{target} is replaced" in str(told)
    assert "KlingClient(transport=...)" in str(told)
    assert sent == []
    assert classify(told) is SubmitFailure.NOT_SENT
    assert stops_the_batch(told)


async def test_aioresponses_without_an_answer_lets_no_post_through(path, is_open_before):
    told, sent = await post_with(path, aioresponses, is_open_before=is_open_before)
    assert isinstance(told, APIConnectionError)
    assert sent == []


async def test_the_reply_is_read_though_a_recorder_has_read_it_before(path):
    request = aiohttp.ClientSession._request

    async def record(self, *args, **options):
        response = await request(self, *args, **options)
        await response.read()
        return response

    told, sent = await post_with(
        path, lambda: patch("aiohttp.ClientSession._request", record), is_open_before=True
    )
    assert told.body == b"{}"
    assert len(sent) == 1


async def test_no_post_to_a_public_address_leaves_where_a_replaced_part_would_not_see_it(path):
    transport = path()
    request = Request("POST", "http://127.0.0.1:9/", {}, b"{}", is_public_only=True)
    with (
        patch("aiohttp.ClientSession.post", MagicMock()),
        pytest.raises(ConfigurationError, match="is replaced"),
    ):
        await transport.send(request)
    await transport.aclose()


async def test_no_post_leaves_over_a_session_that_is_a_mock_itself():
    with patch("aiohttp.ClientSession", MagicMock()):
        transport = AiohttpTransport()
        with pytest.raises(ConfigurationError, match=r"aiohttp\.ClientSession is replaced"):
            await transport.send(Request("POST", "http://127.0.0.1:9/", {}, b"{}"))


async def test_no_post_leaves_where_a_class_of_the_test_takes_the_place_of_the_session(path):
    class Fake:
        async def post(self, url):
            raise NotImplementedError

    told, sent = await post_with(path, lambda: patch("aiohttp.ClientSession", Fake), is_open_before=True)
    assert isinstance(told, ConfigurationError)
    assert sent == []


def test_a_function_that_a_later_aiohttp_does_not_have_is_not_replaced(monkeypatch):
    monkeypatch.delattr("aiohttp.TCPConnector._resolve_host")
    assert find_interceptor() is None


async def test_a_get_goes_on_where_a_patch_would_not_see_it(path):
    async with http_server() as server:
        transport = path()
        with patch("aiohttp.ClientSession.post", MagicMock()):
            reply = await transport.send(Request("GET", f"http://127.0.0.1:{server.port}/", {}))
        await transport.aclose()
    assert reply.body == b"{}"


async def test_a_post_makes_a_connection_of_its_own_where_the_connector_is_replaced(path):
    """One of the pool was made before the replacement, and would lead to the real service."""
    async with http_server() as real, http_server() as mocked:
        transport = path()
        url = f"http://localhost:{real.port}/"
        await transport.send(Request("GET", url, {}))

        async def resolve(self, host, port, traces=None):
            return [
                {
                    "hostname": host,
                    "host": "127.0.0.1",
                    "port": mocked.port,
                    "family": 2,
                    "proto": 0,
                    "flags": 0,
                }
            ]

        with patch("aiohttp.TCPConnector._resolve_host", resolve):
            await transport.send(Request("POST", url, {}, b"{}"))
        await transport.aclose()
    assert [line.partition(" ")[0] for line in real.requests] == ["GET"]
    assert [line.partition(" ")[0] for line in mocked.requests] == ["POST"]


async def test_a_tracer_that_was_there_before_the_client_leaves_it_the_connections_of_its_pool(path):
    request = aiohttp.ClientSession._request

    async def trace(self, *args, **options):
        return await request(self, *args, **options)

    with patch("aiohttp.ClientSession._request", trace):
        async with http_server() as server:
            transport = path()
            for _ in range(3):
                await transport.send(Request("POST", f"http://127.0.0.1:{server.port}/", {}, b"{}"))
            await transport.aclose()
    assert (len(server.requests), server.connections) == (3, 1)


async def test_a_batch_under_a_patch_that_sees_nothing_ends_at_once_and_submits_nothing():
    async with Emulator(EmulatorSettings()) as emulator, client_of(emulator) as client:
        with patch("aiohttp.ClientSession.post", MagicMock()):
            batch = await client.generate_many([f"Comet {n}" for n in range(20)])
    assert {result.state for result in batch} == {"not_submitted"}
    assert not emulator.stats.accepted
