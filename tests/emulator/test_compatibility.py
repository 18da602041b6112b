"""Another client of the same service, unchanged, against the emulator."""

from __future__ import annotations

import time
from contextlib import closing
from urllib.request import urlopen

import pytest

from kling_async.emulator import EmulatorSettings, LogNormal
from tests.emulator.conftest import PREFIX

genblaze = pytest.importorskip("genblaze_gmicloud")
core = pytest.importorskip("genblaze_core")


@pytest.fixture
def kling_emulator_settings():
    # The other client accepts only https media URLs.
    return EmulatorSettings(
        tls=True,
        time_scale=100.0,
        queue_time=LogNormal(0.5),
        dispatch_time=0.5,
        run_time=LogNormal(1.0),
    )


@pytest.mark.parametrize("model", ["kling-v2-6", "kling-text2video-v2.1-master"])
def test_genblaze_submits_polls_and_downloads(kling_emulator, model, tmp_path, monkeypatch, tiny_films):
    (tmp_path / "ca.pem").write_text(kling_emulator.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    provider = genblaze.GMICloudVideoProvider("any-key", base_url=kling_emulator.url + PREFIX)
    step = core.Step(provider="gmicloud", model=model, prompt="rain on a tin roof")
    with closing(provider):
        provider.preflight_auth()
        # Its `invoke` makes these three calls too, but waits 24 s first.
        request_id = provider.submit(step).prediction_id
        while not provider.poll(request_id):
            time.sleep(0.005)
        step = provider.fetch_output(request_id, step)

    (asset,) = step.assets
    with urlopen(asset.url, timeout=10) as response:  # noqa: S310
        video = response.read()
    (job,) = kling_emulator.stats.accepted
    assert (
        asset.url == f"{kling_emulator.url}/gmi-video-assests-prod/user-assests/org-emulator/{request_id}.mp4"
    )
    assert video[4:8] == b"ftyp"
    assert (job.request_id, job.payload["prompt"]) == (request_id, "rain on a tin roof")
