from __future__ import annotations

import logging

import pytest


@pytest.fixture
def quiet(caplog):
    """What the client logs while everything goes wrong on purpose is not kept."""
    caplog.set_level(logging.CRITICAL + 1, logger="kling_async")
