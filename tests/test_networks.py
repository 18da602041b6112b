"""A client on a network that is not the open internet: every kind of call, through a real proxy."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from loopback_proxy import http_proxy

from kling_async import (
    CertificateError,
    DownloadError,
    Job,
    JobStatus,
    KlingClient,
    Media,
    Outcome,
    PollingPolicy,
    ProxyError,
    RetryPolicy,
)
from kling_async.emulator import Emulator, EmulatorSettings
from kling_async.events import Retrying

FAST = PollingPolicy(poll_interval=0.01)
HASTE = RetryPolicy(initial_delay=0.001)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE")


@pytest.fixture(autouse=True)
def _open_internet(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2_000_000))
    return path


@asynccontextmanager
async def run_emulator(monkeypatch, tmp_path, *, is_encrypted, is_trusted=True):
    """An emulator, whose certificate the client trusts."""
    settings = EmulatorSettings(time_scale=10_000, instant_rate=1.0, tls=is_encrypted)
    async with Emulator(settings) as emulator:
        if is_encrypted and is_trusted:
            (tmp_path / "ca.pem").write_text(emulator.certificate)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        yield emulator


def client_of(emulator, events=None, **options):
    hear = None if events is None else events.append
    return KlingClient("any-key", base_url=emulator.url, polling=FAST, retry=HASTE, on_event=hear, **options)


@pytest.mark.usefixtures("tiny_films")
@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("login", ["", "user:p%40ss"], ids=["open", "with a login"])
async def test_submit_wait_upload_and_download_go_through_the_proxy(
    monkeypatch, tmp_path, picture, login, is_encrypted
):
    async with (
        run_emulator(monkeypatch, tmp_path, is_encrypted=is_encrypted) as emulator,
        http_proxy(login=login.replace("%40", "@") or None) as proxy,
    ):
        address = f"http://{f'{login}@' if login else ''}127.0.0.1:{proxy.port}"
        monkeypatch.setenv("HTTPS_PROXY" if is_encrypted else "HTTP_PROXY", address)
        async with client_of(emulator) as client:
            job = await client.generate("A comet", image=picture)
            path = await client.download(job, tmp_path / "comet.mp4")
    assert path.read_bytes()[4:8] == b"ftyp"
    host = emulator.url.partition("//")[2]
    if is_encrypted:
        assert set(proxy.requests) == {f"CONNECT {host} HTTP/1.1"}
        assert not any("key" in head for head in proxy.heads)
    else:
        assert all(f" {emulator.url}/" in line for line in proxy.requests)
    assert emulator.stats.requests["submit"] == emulator.stats.requests["media"] == 1
    assert emulator.stats.credentials_at_storage == 0


async def test_a_host_in_no_proxy_is_reached_directly_by_every_call(monkeypatch, tmp_path, picture):
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.com,127.0.0.1")
    async with (
        run_emulator(monkeypatch, tmp_path, is_encrypted=False) as emulator,
        client_of(emulator) as client,
    ):
        job = await client.generate("A comet", image=picture)
        await client.download(job, tmp_path / "comet.mp4")
    assert emulator.stats.requests["media"] == 1


def job_at(emulator):
    """A finished job, as an earlier run got it from the emulator."""
    media = (Media(f"{emulator.url}/media/a.mp4"),)
    return Job(request_id="r1", status=JobStatus.SUCCESS, outcome=Outcome(media=media))


async def call_each(client, tmp_path, picture, job):
    """The errors of a submit, an upload, a status call and a download."""
    errors = []
    for call in (
        client.submit("A comet"),
        client.upload(picture),
        client.get_job(job.request_id),
        client.download(job, tmp_path / "comet.mp4"),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller asks for the kind
            await call
        errors.append(caught.value)
    return errors


async def test_a_certificate_that_is_not_trusted_ends_each_call_at_once(monkeypatch, tmp_path, picture):
    events = []
    async with (
        run_emulator(monkeypatch, tmp_path, is_encrypted=True, is_trusted=False) as emulator,
        client_of(emulator, events) as client,
    ):
        *calls, download = await call_each(client, tmp_path, picture, job_at(emulator))
    assert [type(error) for error in calls] == [CertificateError] * 3
    assert isinstance(download, DownloadError)
    assert isinstance(download.__cause__, CertificateError)
    assert all("SSL_CERT_FILE" in str(error) for error in (*calls, download))
    assert not [event for event in events if isinstance(event, Retrying)]
    assert not emulator.stats.requests


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "tls"])
async def test_a_proxy_that_wants_a_login_ends_each_call_at_once(
    monkeypatch, tmp_path, picture, is_encrypted
):
    events = []
    async with (
        run_emulator(monkeypatch, tmp_path, is_encrypted=is_encrypted) as emulator,
        http_proxy(login="user:right") as proxy,
    ):
        address = f"http://user:wrong@127.0.0.1:{proxy.port}"
        async with client_of(emulator, events, proxy=address) as client:
            *calls, download = await call_each(client, tmp_path, picture, job_at(emulator))
    assert [type(error) for error in calls] == [ProxyError] * 3
    assert isinstance(download.__cause__, ProxyError)
    for error in (*calls, download):
        assert f"the proxy http://127.0.0.1:{proxy.port} answered 407" in str(error)
        assert "wrong" not in f"{error!r}{error.__cause__!r}"
    assert len(proxy.heads) == 4
    assert not [event for event in events if isinstance(event, Retrying)]
    assert not emulator.stats.requests


async def test_a_batch_stops_at_the_first_submit_that_the_proxy_refuses(monkeypatch, tmp_path):
    async with (
        run_emulator(monkeypatch, tmp_path, is_encrypted=False) as emulator,
        http_proxy(login="user:right") as proxy,
        client_of(emulator, proxy=f"http://127.0.0.1:{proxy.port}") as client,
    ):
        batch = await client.generate_many([f"Comet {n}" for n in range(40)], max_concurrency=2)
    assert {result.state for result in batch} == {"not_submitted"}
    assert len(proxy.heads) <= 2
    assert isinstance(batch[0].error, ProxyError)
