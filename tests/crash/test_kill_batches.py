from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LATE_KILLS = 516
"""A seed whose first three kills come after two seconds."""
PROGRAM = Path(__file__).with_name("kill_batches.py")


def killed(*arguments):
    """The exit status of the program, and what it counted."""
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603 - our own
    assert done.stdout.count("\n") > 1, done.stderr
    return done.returncode, json.loads(done.stdout.partition("\n")[2])


@pytest.mark.slow
def test_a_batch_that_is_killed_again_and_again_loses_nothing_and_buys_nothing_twice():
    status, tally = killed("--kills", 30, "--seed", 1)

    assert (tally["lost"], tally["twice"], tally["never"], tally["broken"]) == ([], [], [], [])
    assert (status, tally["kills"]) == (0, 30)
    assert tally["accepted"] == 150 * tally["batches"]
    assert tally["interrupted"].keys() >= {"submit", "media"}


@pytest.mark.slow
def test_without_a_journal_the_same_kills_lose_jobs_and_buy_twice():
    status, tally = killed("--kills", 3, "--seed", LATE_KILLS, "--items", 20, "--calm", "--without-journal")

    assert status == 1
    assert tally["lost"]
    assert tally["twice"]
