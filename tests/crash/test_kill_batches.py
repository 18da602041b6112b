from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unmeasured

LATE_KILL = 516
"""A seed whose first kill comes after more than two seconds, when all jobs are submitted and none has ended."""
PROGRAM = Path(__file__).with_name("kill_batches.py")


def run_program(*arguments):
    """The exit status of the program, and its report."""
    command = [sys.executable, PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603 - our own
    assert done.stdout.count("\n") > 1, done.stderr
    return done.returncode, json.loads(done.stdout.partition("\n")[2])


@pytest.mark.slow
def test_a_batch_that_is_killed_many_times_loses_no_job_and_buys_no_job_twice():
    status, report = run_program("--kills", 16, "--items", 80, "--seed", 1)

    assert (report["lost"], report["bought_twice"], report["not_bought"], report["broken"]) == (
        [],
        [],
        [],
        [],
    )
    assert (status, report["kills"]) == (0, 16)
    assert report["accepted"] == 80 * report["batches"]
    assert report["interrupted"].keys() >= {"submit", "media"}


@pytest.mark.slow
def test_without_a_journal_a_kill_loses_jobs_and_buys_jobs_twice():
    size = ("--kills", 1, "--seed", LATE_KILL, "--items", 10, "--run-time", 6)

    status, report = run_program(*size, "--calm", "--without-journal")

    assert status == 1
    assert report["lost"]
    assert report["bought_twice"]
