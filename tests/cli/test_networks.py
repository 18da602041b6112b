from __future__ import annotations

import pytest
from anyio.from_thread import start_blocking_portal
from loopback_proxy import http_proxy


@pytest.fixture
def run_proxy():
    """Starts a proxy in a thread of its own: a command line has its own event loop."""
    with start_blocking_portal("asyncio") as portal:
        opened = []

        def run_proxy(**settings):
            opened.append(portal.wrap_async_context_manager(http_proxy(**settings)))
            return opened[-1].__enter__()

        yield run_proxy
        for proxy in opened:
            proxy.__exit__(None, None, None)


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def emulator(request, serve, home, monkeypatch):
    """An emulator, whose certificate a command trusts."""
    emulator = serve(tls=request.param)
    if request.param:
        (home / "ca.pem").write_text(emulator.certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(home / "ca.pem"))
    return emulator


def test_every_call_of_a_command_goes_through_the_proxy_of_the_environment(
    cli, emulator, run_proxy, home, monkeypatch
):
    (home / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    proxy = run_proxy(login="user:p@ss")
    monkeypatch.setenv("ALL_PROXY", f"http://user:p%40ss@127.0.0.1:{proxy.port}")

    done = cli("generate", "a cat", "--image", "a.png", "--out", "videos", "--quiet")
    assert (done.status, done.err) == (0, "")
    assert len(list((home / "videos").glob("*.mp4"))) == 1
    assert proxy.requests
    answered = sum(emulator.stats.requests.values())

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    seen = len(proxy.heads)
    done = cli("status", emulator.stats.accepted[0].request_id)
    assert done.status == 0
    assert len(proxy.heads) == seen
    assert sum(emulator.stats.requests.values()) > answered


def test_a_proxy_that_wants_another_login_is_one_line_without_a_password(cli, serve, run_proxy, monkeypatch):
    emulator = serve()
    proxy = run_proxy(login="user:right")
    monkeypatch.setenv("HTTP_PROXY", f"http://user:wrong@127.0.0.1:{proxy.port}")

    done = cli("status", "r1")
    assert done.status == 1
    assert f"the proxy http://127.0.0.1:{proxy.port} answered 407" in done.error_line
    assert "wrong" not in done.err
    assert len(proxy.heads) == 1
    assert not emulator.stats.requests


def test_a_certificate_that_is_not_trusted_is_one_line_that_says_what_to_set(cli, serve):
    emulator = serve(tls=True)
    done = cli("generate", "a cat", "--quiet")
    assert done.status == 1
    assert "SSL_CERT_FILE" in done.err
    assert not emulator.stats.requests
