from __future__ import annotations

import pytest
from virtual_service import VirtualLoop


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}
