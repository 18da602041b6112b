from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# `pytest --hypothesis-profile=long` looks much longer for what these rules do not hold for, and `nox -s fuzz` longest.
for profile, examples in (("short", 200), ("long", 5_000), ("fuzz", 25_000)):
    settings.register_profile(
        profile, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("short")


@pytest.fixture
def anyio_backend():
    return "asyncio"
