from __future__ import annotations

import logging

import pytest

from kling_async.emulator import Drop, Fault, Reply
from kling_async.emulator.middleware import is_allowed_host
from tests.emulator.conftest import PREFIX

NAMES = frozenset({"emulator.test"})
OWN_HOSTS = [
    "localhost", "LOCALHOST:8000", "localhost.", "api.localhost:1", "127.0.0.1:8000", "[::1]:8000", "[::1]",
    "192.168.0.7:8000", "emulator.test", "Emulator.Test:8000", None,
]  # fmt: skip
STRANGE_HOSTS = [
    "evil.test", "evil.test:8000", "localhost.evil.test", "127.0.0.1.evil.test", "evil.emulator.test",
    "localhost@evil.test", "[::1", "", "evillocalhost", ":8000",
]  # fmt: skip


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_addresses_localhost_and_own_names_are_allowed_hosts(host):
    assert is_allowed_host(host, NAMES)


@pytest.mark.parametrize("host", STRANGE_HOSTS)
def test_a_name_that_any_web_page_can_have_is_no_allowed_host(host):
    assert not is_allowed_host(host, NAMES)


@pytest.mark.parametrize("method, path", [("POST", "/requests"), ("GET", "/models"), ("GET", "/nowhere")])
async def test_a_call_under_a_strange_name_gets_a_421_and_no_effect(bench, method, path):
    headers = {"Host": "evil.test"}
    async with bench.session.request(
        method,
        PREFIX + path,
        headers=headers,
        json={"model": "kling-v2-6", "payload": {"prompt": "rain"}},
    ) as response:
        reply = await response.json()

    assert (response.status, list(reply)) == (421, ["error"])
    assert "evil.test" in reply["error"]
    assert bench.emulator.stats.accepted == ()
    assert not bench.emulator.stats.requests


@pytest.mark.parametrize(
    "settings", [{"allowed_hosts": ["Emulator.test"]}, {"storage_url": "https://emulator.test:8443"}]
)
async def test_settings_allow_further_names(open_bench, settings):
    bench = await open_bench(**settings)

    assert (await bench.get("/models", headers={"Host": "emulator.test:8000"}))[0] == 200
    assert (await bench.get("/models", headers={"Host": "other.test"}))[0] == 421


@pytest.mark.parametrize(
    "method, path, status, allowed",
    [
        ("GET", f"{PREFIX}/nowhere", 404, None),
        ("POST", "/", 404, None),
        ("GET", "/chat/completions", 404, None),
        ("DELETE", f"{PREFIX}/requests/some-id", 405, "GET"),
        ("PUT", f"{PREFIX}/requests", 405, "GET,POST"),
        ("POST", f"{PREFIX}/models", 405, "GET"),
        ("OPTIONS", f"{PREFIX}/requests", 405, "GET,POST"),
    ],
)
async def test_unknown_paths_and_methods_get_a_json_error(bench, method, path, status, allowed):
    async with bench.session.request(method, path) as response:
        reply = await response.json()

    assert (response.status, response.content_type, list(reply)) == (status, "application/json", ["error"])
    assert reply["error"].startswith(f"{method} {path}: ")
    assert response.headers.get("Allow") == allowed


async def test_a_body_above_the_limit_gets_a_json_error(bench, monkeypatch):
    monkeypatch.setattr("kling_async.emulator.app._MAX_BODY_BYTES", 100)
    async with bench.emulator.outage():
        pass  # the next start makes a new application
    status, reply = await bench.post("/requests", data=b" " * 200)

    assert (status, list(reply)) == (413, ["error"])


async def test_the_log_has_each_call_and_the_text_of_errors(bench, caplog):
    caplog.set_level(logging.INFO, logger="kling_async.emulator")
    bench.emulator.faults.add(Fault("list", Reply(503, b"<b>\r\n\x1b[31mbusy\xff</b>")))
    await bench.get("/models")
    await bench.post("/requests", json={"model": "kling-v2-6", "payload": {}})
    await bench.session.get(f"{PREFIX}/requests?model_id=kling%0Av9&limit=5&token=word")
    await bench.session.get(f"{PREFIX}/a%0Ab\N{SNOWMAN}")
    lines = [line.split(" ms", 1) for line in caplog.messages]

    assert [head.rsplit(" ", 1)[0] for head, _ in lines] == [
        f"GET {PREFIX}/models 200",
        f"POST {PREFIX}/requests 400",
        f"GET {PREFIX}/requests?model_id=kling?v9&limit=5 503",
        f"GET {PREFIX}/a?b? 404",
    ]
    assert [rest for _, rest in lines[:3]] == [
        "",
        ': {"error": "missing required payload keys: prompt"}',
        ", fault Reply: <b>???[31mbusy?</b>",
    ]


async def test_the_log_names_a_fault_only_with_the_call_that_it_hits(bench, caplog):
    caplog.set_level(logging.INFO, logger="kling_async.emulator")
    bench.emulator.faults.add(Fault("models", Drop(), nth=2))
    await bench.get("/models")
    await bench.get("/models")  # aiohttp repeats it
    await bench.get("/nowhere")

    assert ["fault Drop" in line for line in caplog.messages] == [False, True, False, False]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "key-alone"}])
async def test_the_log_has_calls_without_a_valid_key(bench, caplog, headers):
    caplog.set_level(logging.INFO, logger="kling_async.emulator")
    await bench.fetch(f"{bench.emulator.url}{PREFIX}/models", headers=headers)

    (line,) = caplog.messages
    assert f"GET {PREFIX}/models 401 " in line
    assert line.endswith('{"error": "missing or malformed Authorization header"}')


@pytest.mark.parametrize("key", ["secret-key", "secret+key/==", 'secret"key', "s" * 600])
async def test_the_log_never_has_the_key(bench, caplog, key):
    caplog.set_level(logging.DEBUG)
    headers = {"Authorization": f"Bearer {key}"}
    await bench.get("/models", headers=headers)
    await bench.post("/requests", json={"model": key, "payload": {}}, headers=headers)
    await bench.get("/requests", params={"model_id": key, "key": key}, headers=headers)
    await bench.get(f"/models/{key}", headers=headers)
    await bench.get("/requests", params={"limit": key}, headers=headers)

    assert len([record for record in caplog.records if record.name == "kling_async.emulator"]) == 5
    assert key[:10] not in caplog.text
    assert "model *** does not exist" in caplog.text


async def test_a_short_key_is_masked_as_a_whole_word(bench, caplog):
    caplog.set_level(logging.INFO, logger="kling_async.emulator")
    await bench.get("/models/key", headers={"Authorization": "Bearer key"})

    assert caplog.messages[0].startswith(f"GET {PREFIX}/models/*** 404 ")


async def test_nothing_is_logged_unless_asked_for(bench, caplog):
    await bench.get("/models")

    assert caplog.messages == []
