from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from postgres_server import find_programs

PROGRAM = Path(__file__).with_name("kill_workers.py")


@pytest.mark.slow
@pytest.mark.skipif(find_programs() is None, reason="PostgreSQL is not installed")
def test_workers_that_are_killed_and_stopped_many_times_lose_no_job_and_buy_no_job_twice():
    hits = ("--kills", "10", "--stops", "10", "--restarts", "1", "--caller-kills", "1")
    size = ("--prompts", "200", "--run-time", "2", "--shard-size", "20", "--max-concurrency", "10")

    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, PROGRAM, "--seed", "5", *hits, *size],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )

    assert done.stdout.count("\n") > 1, done.stderr
    report = json.loads(done.stdout.partition("\n")[2])
    assert [report[name] for name in ("lost", "bought_twice", "not_bought", "broken")] == [[], [], [], []]
    assert (done.returncode, report["accepted"]) == (0, 200)
    assert report["kills"] + report["stops"] >= 15
    assert (report["restarts"], report["caller_kills"]) == (1, 1)
