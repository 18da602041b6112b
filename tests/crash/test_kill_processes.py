from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.unmeasured, pytest.mark.slow]

PROGRAM = Path(__file__).with_name("kill_processes.py")


def run_program(*arguments):
    """The exit status of the program, and its report."""
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603 - our own
    assert done.stdout.count("\n") > 1, done.stderr
    return done.returncode, json.loads(done.stdout.partition("\n")[2])


def test_processes_that_are_killed_and_stopped_lose_no_job_and_buy_no_job_twice(postgres_server):
    status, report = run_program(
        "--kills", 6, "--stops", 6, "--restarts", 1, "--items", 80, "--seed", 3, "--calm"
    )

    wrong = [report[name] for name in ("lost", "bought_twice", "not_bought", "broken", "disagreements")]
    assert wrong == [[]] * 5
    assert (status, report["kills"], report["stops"], report["restarts"]) == (0, 6, 6, 1)
    assert report["accepted"] == 80 * report["batches"]


def test_the_program_finds_processes_that_share_nothing():
    status, report = run_program("--kills", 0, "--stops", 1, "--items", 10, "--seed", 3, "--calm", "--apart")

    assert status == 1
    assert report["bought_twice"]
    assert report["disagreements"]
