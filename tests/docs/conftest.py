from __future__ import annotations

import pytest

from kling_async.emulator import EmulatorSettings, LogNormal


@pytest.fixture
def kling_emulator_settings():
    return EmulatorSettings(
        time_scale=1000.0,
        queue_time=LogNormal(1.0),
        run_time=LogNormal(20.0, 0.35),
        image_run_time=LogNormal(20.0, 0.35),
    )


@pytest.fixture
def reader(kling_emulator, monkeypatch, tmp_path):
    """The folder of someone who follows the documentation: their environment leads to an emulator."""
    monkeypatch.setenv("GMI_API_KEY", "any-key")
    monkeypatch.setenv("GMI_BASE_URL", kling_emulator.url)
    monkeypatch.chdir(tmp_path)
    return tmp_path
