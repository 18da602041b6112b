from __future__ import annotations

import asyncio
import logging
import re
import ssl
from unittest.mock import MagicMock

import aiohttp
import pytest
import trustme
from loopback_proxy import http_proxy, http_server

from kling_async import KlingClient, RetryPolicy
from kling_async._policy.retry import is_transient
from kling_async._policy.submission import SubmitFailure, classify, stops_the_batch
from kling_async._transport.base import Request
from kling_async._transport.network import Network, parse_proxy
from kling_async._transport.over_aiohttp import AiohttpTransport
from kling_async._transport.translate_errors import translate_errors
from kling_async.errors import APIConnectionError, APITimeoutError, CertificateError, ProxyError

LOGIN = "user:p%40ss"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
def tls(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("service.test", "127.0.0.1").configure_cert(context)
    return context


def network_over(proxy, *, login="", **options):
    address = parse_proxy(f"http://{f'{login}@' if login else ''}127.0.0.1:{proxy.port}")
    return Network({"http": address, "https": address}, **options)


async def ask(network, url, *, method="POST", within=2.0, is_streamed=False):
    transport = AiohttpTransport(network)
    headers = {"Authorization": "Bearer key"}
    body = b"{}" if method != "GET" else None
    request = Request(method, url, headers, body, within)
    try:
        if not is_streamed:
            return (await transport.send(request)).body
        pieces = []
        async with transport.stream(request) as reply:
            assert await reply.pipe_to(lambda piece: pieces.append(bytes(piece)) or True)
        return b"".join(pieces)
    finally:
        await transport.aclose()


@pytest.mark.parametrize("is_streamed", [False, True], ids=["send", "stream"])
@pytest.mark.parametrize("login", ["", LOGIN], ids=["open", "with a login"])
async def test_a_request_over_tls_goes_through_a_tunnel_of_the_proxy(tls, ca_file, login, is_streamed):
    async with http_server(tls=tls) as server, http_proxy(login=login.replace("%40", "@") or None) as proxy:
        network = network_over(proxy, login=login, ca_file=ca_file)
        url = f"https://service.test:{server.port}/a"
        method = "GET" if is_streamed else "POST"
        assert await ask(network, url, method=method, is_streamed=is_streamed) == b"{}"
    assert proxy.requests == [f"CONNECT service.test:{server.port} HTTP/1.1"]
    assert "Bearer" not in proxy.heads[0]
    assert server.requests == [f"{method} /a HTTP/1.1"]
    assert "Proxy-Authorization" not in server.heads[0]


@pytest.mark.parametrize("login", ["", LOGIN], ids=["open", "with a login"])
async def test_a_plain_request_is_sent_to_the_proxy_with_its_whole_url(login):
    async with http_server() as server, http_proxy(login=login.replace("%40", "@") or None) as proxy:
        url = f"http://service.test:{server.port}/a?b=c"
        assert await ask(network_over(proxy, login=login), url) == b"{}"
    assert proxy.requests == [f"POST {url} HTTP/1.1"]
    assert len(server.requests) == 1


async def test_a_kept_connection_to_a_proxy_sends_the_login_again():
    async with http_server() as server, http_proxy(login="user:p@ss") as proxy:
        transport = AiohttpTransport(network_over(proxy, login=LOGIN))
        url = f"http://service.test:{server.port}/"
        for _ in range(2):
            assert (await transport.send(Request("GET", url, {}))).status == 200
        await transport.aclose()
    assert proxy.connections == 1
    assert ["Proxy-Authorization" in head for head in proxy.heads] == [True, True]


async def test_hosts_in_no_proxy_are_reached_directly():
    async with http_server() as server, http_proxy() as proxy:
        network = network_over(proxy, no_proxy="other.test, 127.0.0.1")
        assert await ask(network, f"http://127.0.0.1:{server.port}/") == b"{}"
    assert proxy.requests == []


def refuse(status):
    return f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    "refusal, said",
    [
        (refuse(502), r"the proxy http://127.0.0.1:\d+ answered 502"),
        (refuse(429), r"the proxy http://127.0.0.1:\d+ answered 429"),
        (b"", r"the proxy http://127.0.0.1:\d+ closed it"),
        (b"SSH-2.0\r\n", "no connection"),
    ],
)
async def test_what_a_proxy_refuses_to_connect_was_not_sent(refusal, said):
    async with http_proxy(refusal=refusal) as proxy:
        network = network_over(proxy, login=LOGIN)
        with pytest.raises(APIConnectionError, match=said) as caught:
            await ask(network, "https://service.test/")
    assert caught.value.was_sent is False
    assert is_transient(caught.value)
    assert "p@ss" not in f"{caught.value!r}{caught.value.__cause__!r}"


@pytest.mark.parametrize("is_streamed", [False, True], ids=["send", "stream"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "login, said",
    [
        ("", r"it wants a user and a password\). .* http://user:password@127.0.0.1:\d+\.$"),
        (LOGIN, "it does not accept this user and password"),
    ],
    ids=["without a login", "with a wrong login"],
)
async def test_a_proxy_that_wants_another_login_is_one_error_that_is_not_repeated(
    login, said, scheme, is_streamed
):
    async with http_proxy(login="user:other") as proxy:
        network = network_over(proxy, login=login)
        with pytest.raises(ProxyError, match=said) as caught:
            await ask(network, f"{scheme}://service.test/a?signature=b", is_streamed=is_streamed)
    error = caught.value
    assert (
        f"{scheme}://service.test/a: no connection (the proxy http://127.0.0.1:{proxy.port} answered 407"
        in str(error)
    )
    assert error.was_sent is False
    assert not is_transient(error)
    assert not re.search("p@ss|p%40ss|signature", f"{error!r}")
    assert len(proxy.heads) == 1


async def test_a_proxy_that_does_not_allow_the_host_is_an_error_that_is_not_repeated():
    async with http_proxy(refusal=refuse(403)) as proxy:
        with pytest.raises(ProxyError, match=r"does not allow this host.* NO_PROXY") as caught:
            await ask(network_over(proxy), "https://service.test/")
    assert caught.value.was_sent is False
    assert not is_transient(caught.value)


async def test_a_407_that_the_service_sends_through_a_tunnel_is_its_answer(tls, ca_file):
    async with http_server(refuse(407), tls=tls) as server, http_proxy() as proxy:
        transport = AiohttpTransport(network_over(proxy, ca_file=ca_file))
        reply = await transport.send(Request("POST", f"https://service.test:{server.port}/", {}, b"{}"))
        await transport.aclose()
    assert reply.status == 407


async def test_a_proxy_that_is_silent_is_a_timeout_and_nothing_was_sent():
    async with http_server(b"") as silent:
        with pytest.raises(APITimeoutError, match="no connection within") as caught:
            await ask(network_over(silent), "https://service.test/", within=0.2)
    assert caught.value.was_sent is False


async def test_a_proxy_that_is_not_there_was_not_sent():
    async with http_proxy() as proxy:
        pass
    with pytest.raises(APIConnectionError, match="no connection") as caught:
        await ask(network_over(proxy), "https://service.test/")
    assert caught.value.was_sent is False


async def test_a_reply_that_is_lost_behind_a_proxy_was_sent(tls, ca_file):
    async with http_server(b"HTTP/1.1 abc\r\n\r\n", tls=tls) as server, http_proxy() as proxy:
        with pytest.raises(APIConnectionError) as caught:
            await ask(network_over(proxy, ca_file=ca_file), f"https://service.test:{server.port}/")
    assert caught.value.was_sent is True


async def test_a_certificate_that_is_not_trusted_is_an_error_that_is_not_repeated(path, tls):
    async with http_server(tls=tls) as server:
        transport = path()
        with pytest.raises(CertificateError, match="SSL_CERT_FILE") as caught:
            await transport.send(Request("POST", f"https://127.0.0.1:{server.port}/", {}, b"{}"))
        await transport.aclose()
    error = caught.value
    assert error.was_sent is False
    assert classify(error) is SubmitFailure.NOT_SENT
    assert not is_transient(error)
    assert stops_the_batch(error)


class CertificateErrorOfAiohttp312(aiohttp.ClientConnectorCertificateError):
    """Has no `os_error`, although its base class promises one."""

    @property
    def os_error(self):
        raise AttributeError("_os_error")


def test_a_certificate_error_of_an_older_aiohttp_is_translated_too():
    reason = ssl.SSLCertVerificationError(1, "certificate verify failed")
    reason.verify_message = "self-signed certificate"
    error = CertificateErrorOfAiohttp312(MagicMock(), reason)
    request = Request("POST", "https://service.test/", {}, b"{}")
    with (
        pytest.raises(CertificateError, match="self-signed certificate") as caught,
        translate_errors(request),
    ):
        raise error
    assert caught.value.was_sent is False
    assert caught.value.__cause__ is error


async def test_certificates_of_the_file_are_trusted(path, tls, ca_file):
    async with http_server(tls=tls) as server:
        transport = path(Network(ca_file=ca_file))
        reply = await transport.send(Request("POST", f"https://127.0.0.1:{server.port}/", {}, b"{}"))
        await transport.aclose()
    assert reply.body == b"{}"


# A client


async def test_a_client_submits_nothing_twice_where_the_certificate_is_not_trusted(tls):
    async with http_server(tls=tls) as server:
        url = f"https://127.0.0.1:{server.port}"
        async with KlingClient("key", base_url=url, proxy="", retry=RetryPolicy(initial_delay=0)) as client:
            with pytest.raises(CertificateError):
                await client.submit("A comet")
    assert server.requests == []


async def test_a_client_takes_its_proxy_from_the_environment_and_says_no_password(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    async with http_proxy(refusal=b"") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{proxy.port}")
        retry = RetryPolicy(max_retries=0)
        async with KlingClient("key", base_url="https://gmi.invalid", retry=retry) as client:
            with pytest.raises(APIConnectionError) as caught:
                await client.submit("A comet")
    assert proxy.requests == ["CONNECT gmi.invalid:443 HTTP/1.1"]
    assert "secret" not in f"{caught.value!r}{client!r}{client._settings!r}{caplog.text}"


async def test_an_empty_proxy_beats_the_environment(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    reply = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"model_ids": []}'
    async with (
        http_server(reply) as server,
        KlingClient("key", base_url=f"http://127.0.0.1:{server.port}", proxy="") as client,
    ):
        assert await client.list_models() == []
    assert len(server.requests) == 1


async def test_no_login_is_read_from_netrc(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    await asyncio.to_thread(netrc.write_text, "machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with http_server() as server:
        transport = AiohttpTransport()
        await transport.send(Request("GET", f"http://127.0.0.1:{server.port}/", {}))
        await transport.aclose()
    assert "Authorization" not in server.heads[0]
