from __future__ import annotations

import pytest

from kling_async.emulator import EmulatorSettings


@pytest.fixture
def kling_emulator_settings():
    return EmulatorSettings(instant_rate=1.0)


@pytest.fixture
def reader(kling_emulator, store, tiny_films, monkeypatch, tmp_path):
    """The folder of someone who follows the documentation: their environment leads to an emulator and a store."""
    monkeypatch.setenv("GMI_API_KEY", "any-key")
    monkeypatch.setenv("GMI_BASE_URL", kling_emulator.url)
    monkeypatch.chdir(tmp_path)
    return tmp_path
