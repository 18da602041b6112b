from __future__ import annotations

import ssl
import sys
from urllib.parse import urlsplit

import aiohttp
import pytest

from kling_async import KlingClient, PollingPolicy
from kling_async.emulator import Drop, Emulator, EmulatorSettings, Fault, TruncatedReply
from tests.emulator.conftest import PREFIX


@pytest.fixture
def kling_emulator_settings():
    return EmulatorSettings(tls=True, instant_rate=1.0)


def trust(emulator):
    return ssl.create_default_context(cadata=emulator.certificate)


async def get(emulator, path, *, url=None, **options):
    async with (
        aiohttp.ClientSession(url or emulator.url, headers={"Authorization": "Bearer any-key"}) as session,
        session.get(path, ssl=trust(emulator), **options) as response,
    ):
        return response.status, await response.read()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_a_client_that_trusts_the_certificate_reaches_the_emulator_by_any_of_its_names(host):
    async with Emulator(EmulatorSettings(tls=True, host=host.strip("[]"))) as emulator:
        assert emulator.url.startswith(f"https://{host}:")
        assert (await get(emulator, f"{PREFIX}/models"))[0] == 200


async def test_the_certificate_has_the_allowed_hosts():
    settings = EmulatorSettings(tls=True, allowed_hosts=["emulator.test"])
    async with Emulator(settings) as emulator:
        named = {"headers": {"Host": "emulator.test"}, "server_hostname": "emulator.test"}
        assert (await get(emulator, f"{PREFIX}/models", **named))[0] == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await get(emulator, f"{PREFIX}/models", server_hostname="other.test")


async def test_a_client_that_does_not_trust_the_certificate_is_not_served():
    async with Emulator(EmulatorSettings(tls=True)) as emulator, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{emulator.url}{PREFIX}/models")
        assert not emulator.stats.requests


async def test_every_emulator_has_a_certificate_of_its_own_and_keeps_it_over_an_outage():
    async with Emulator(EmulatorSettings(tls=True)) as first, Emulator(EmulatorSettings(tls=True)) as second:
        before = first.certificate
        async with first.outage():
            pass

        assert (await get(first, f"{PREFIX}/models"))[0] == 200
        assert before == first.certificate != second.certificate


async def test_there_is_no_certificate_without_tls(bench):
    with pytest.raises(RuntimeError, match=r"start it with `EmulatorSettings\(tls=True\)`"):
        _ = bench.emulator.certificate


async def test_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "trustme", None)

    with pytest.raises(ModuleNotFoundError, match=r"needs trustme: .*\.\[emulator\]"):
        await Emulator(EmulatorSettings(tls=True)).start()


@pytest.mark.parametrize(
    "action", [Drop(), Drop(reset=False), TruncatedReply(), TruncatedReply(within="head")]
)
async def test_faults_hit_calls_over_tls_too(action):
    async with Emulator(EmulatorSettings(tls=True, faults=[Fault("models", action, times=2)])) as emulator:
        with pytest.raises(aiohttp.ClientError):
            await get(emulator, f"{PREFIX}/models")
        emulator.faults.clear()
        assert (await get(emulator, f"{PREFIX}/models"))[0] == 200


def test_our_client_trusts_the_certificate_from_the_environment(
    kling_emulator, tmp_path, monkeypatch, tiny_films
):
    import anyio

    (tmp_path / "ca.pem").write_text(kling_emulator.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    async def save():
        polling = PollingPolicy(poll_interval=0.01)
        async with KlingClient("any-key", base_url=kling_emulator.url, polling=polling) as client:
            job = await client.generate("rain")
            await client.download(job, tmp_path / "rain.mp4")
            return job

    job = anyio.run(save)

    assert urlsplit(job.video_url).scheme == "https"
    assert (tmp_path / "rain.mp4").read_bytes()[4:8] == b"ftyp"
