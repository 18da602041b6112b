"""What `durable()` has promised is there after `kill -9`, whenever that comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 40
WRITER = Path(__file__).with_name("killed_writer.py")


@pytest.mark.unmeasured
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_nothing_durable_is_lost_by_a_kill(tmp_path):
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, WRITER, tmp_path / "run.db", str(KILLS)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.stderr == ""
    kills, promised, missing = map(int, done.stdout.split())
    assert kills == KILLS
    assert promised > KILLS
    assert missing == 0
