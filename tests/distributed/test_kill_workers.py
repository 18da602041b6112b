from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from postgres_server import find_programs

PROGRAM = Path(__file__).with_name("kill_workers.py")
MAY_CUT = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") is not None


def run_program(*options):
    """The exit status and the report of a run."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, PROGRAM, "--seed", "5", *options],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.stdout.count("\n") > 1, done.stderr
    report = json.loads(done.stdout.partition("\n")[2])
    assert [report[name] for name in ("lost", "bought_twice", "not_bought", "broken")] == [[], [], [], []]
    return done.returncode, report


@pytest.mark.slow
@pytest.mark.skipif(find_programs() is None, reason="PostgreSQL is not installed")
def test_workers_that_are_killed_and_stopped_many_times_lose_no_job_and_buy_no_job_twice():
    hits = ("--kills", "6", "--stops", "6", "--restarts", "1", "--caller-kills", "1", "--pause", "0.3", "1.5")
    size = ("--prompts", "120", "--run-time", "2", "--shard-size", "12", "--max-concurrency", "6")

    status, report = run_program(*hits, *size)

    assert (status, report["accepted"]) == (0, 120)
    assert report["kills"] + report["stops"] >= 10
    assert (report["restarts"], report["caller_kills"]) == (1, 1)


@pytest.mark.slow
@pytest.mark.skipif(find_programs() is None, reason="PostgreSQL is not installed")
@pytest.mark.skipif(not MAY_CUT, reason="only root can cut a network, and on Linux")
def test_the_shards_of_a_worker_whose_network_is_cut_for_good_are_run_by_the_other_one():
    hits = ("--kills", "0", "--stops", "0", "--cuts", "1", "--cut-for-good", "--workers", "2")
    size = ("--prompts", "60", "--run-time", "2", "--shard-size", "10", "--max-concurrency", "5")

    status, report = run_program(*hits, *size)

    assert (status, report["accepted"], report["cuts"]) == (0, 60, 1)
    assert report["cut_shards"] >= 1
