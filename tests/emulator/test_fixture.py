from __future__ import annotations

import subprocess
import sys
from urllib.request import Request, urlopen

import aiohttp
import pytest

from kling_async.emulator import EmulatorSettings
from tests.emulator.conftest import PREFIX

MODELS = f"{PREFIX}/models"
KEY = {"Authorization": "Bearer any-key"}


def test_the_fixture_serves_a_test_that_blocks(kling_emulator):
    with urlopen(Request(kling_emulator.url + MODELS, headers=KEY), timeout=5) as response:  # noqa: S310
        assert response.status == 200


async def test_the_fixture_serves_an_async_test(kling_emulator):
    async with (
        aiohttp.ClientSession(headers=KEY) as session,
        session.get(kling_emulator.url + MODELS) as response,
    ):
        assert response.status == 200
    assert kling_emulator.stats.requests == {"models": 1}


class TestOwnSettings:
    @pytest.fixture
    def kling_emulator_settings(self):
        return EmulatorSettings(seed=7)

    def test_settings_can_be_overridden(self, kling_emulator):
        assert kling_emulator.settings.seed == 7


@pytest.mark.parametrize("module", ["kling_async.emulator.fixture", "kling_async.emulator"])
def test_the_plugin_imports_no_heavy_package(module):
    check = f"import sys, {module}; assert not {{'aiohttp', 'av', 'PIL'}} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True)  # noqa: S603

    assert result.returncode == 0, result.stderr
