from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The benchmarks are not part of the wheel: they are found at the end of the path, after what is installed.
sys.path.append(str(Path(__file__).parents[1]))

# `pytest --hypothesis-profile=long` looks much longer for what these rules do not hold for, and `nox -s fuzz` longest.
# `nox -s pythons` asks only whether the rules hold at all.
for profile, examples in (("few", 20), ("short", 200), ("long", 5_000), ("fuzz", 25_000)):
    settings.register_profile(
        profile, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("short")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def interruptible():
    """Ctrl-C is heard, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def tiny_films(monkeypatch):
    """The emulator makes videos of 64 pixels, because to encode 640 is what costs most in a test that saves some."""
    sizes = {"16:9": (64, 36), "9:16": (36, 64), "1:1": (48, 48)}
    monkeypatch.setattr("kling_async.emulator.media.SIZES", sizes)
