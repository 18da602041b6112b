from __future__ import annotations

import logging

import pytest


@pytest.fixture
def silent_logs(caplog):
    """The client's log is off: in these worlds calls fail on purpose."""
    caplog.set_level(logging.CRITICAL + 1, logger="kling_async")
