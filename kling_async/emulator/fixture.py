"""A pytest plugin: the fixture `kling_emulator` is a new running emulator for each test.

The emulator runs in its own thread. It serves synchronous tests and tests of any asyncio plugin, and a test that blocks
its event loop does not block the emulator. To change the settings, override the fixture `kling_emulator_settings`. To
use `Emulator.outage()`, open an `Emulator` in the test itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kling_async.emulator import Emulator, EmulatorSettings


@pytest.fixture
def kling_emulator_settings() -> EmulatorSettings:
    """The settings of `kling_emulator`: a job takes some hundredths of a second."""
    from kling_async.emulator import EmulatorSettings, LogNormal

    return EmulatorSettings(
        time_scale=100.0, queue_time=LogNormal(0.5, 0.4), dispatch_time=0.5, run_time=LogNormal(3.0, 0.35)
    )


@pytest.fixture
def kling_emulator(kling_emulator_settings: EmulatorSettings) -> Iterator[Emulator]:
    """An emulator that runs until the end of the test."""
    from anyio.from_thread import start_blocking_portal

    from kling_async.emulator import Emulator

    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(Emulator(kling_emulator_settings)) as emulator,
    ):
        yield emulator
