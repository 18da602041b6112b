"""The simulation finds planted bugs, and every world is the same each time."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import loop
from .__main__ import main
from .bugs import BUGS
from .scenario import CALL_FAULTS, JOB_FAULTS, POINTS, POST_FAULTS, STATUS_FAULTS, make_scenario
from .world import simulate

pytestmark = pytest.mark.unmeasured

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_within_a_hundred_seeds_and_its_world_holds_without_it(
    bug, monkeypatch, silent_logs
):
    with monkeypatch.context() as patch:
        BUGS[bug](patch)
        found = next(seed for seed in range(100) if simulate(seed).violations)

    assert simulate(found).violations == []


def test_a_world_is_the_same_each_time_and_in_every_process(silent_logs):
    here = [simulate(seed).lines() for seed in range(8)]
    code = "from simulation.world import simulate\nfor seed in reversed(range(8)): print(simulate(seed).digest())"
    path = os.pathsep.join([str(TESTS), *sys.path])
    output = [
        subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        for hash_seed in ("1", "2")
    ]

    assert [simulate(seed).lines() for seed in range(8)] == here
    assert output[0] == output[1] == [simulate(seed).digest() for seed in reversed(range(8))]


def test_a_thousand_scenarios_have_every_fault_and_every_end():
    scenarios = [make_scenario(seed) for seed in range(1000)]
    rates = {rate for scenario in scenarios for rate in scenario.conditions.rates}
    kinds = {"post": POST_FAULTS, "status": STATUS_FAULTS, "list": CALL_FAULTS, "job": JOB_FAULTS}
    runs = [run for scenario in scenarios for line in scenario.lines for run in line.runs]

    assert rates == {f"{kind} {fault}" for kind, faults in kinds.items() for fault in faults}
    assert {run.ending.how for run in runs} == {"finish", "leave", "timeout", "cancel", "kill"}
    assert {run.ending.point for run in runs} == {"", *POINTS}
    assert {len(scenario.lines) for scenario in scenarios} == {1, 2}


def test_kills_come_at_every_kind_of_step(silent_logs):
    missing = set(POINTS)
    for seed in range(500):
        missing -= {what[0] for _, _, *what in simulate(seed).trace if what[1:] and isinstance(what[1], int)}
        if not missing:
            break

    assert not missing


def test_a_killed_process_takes_no_further_step(silent_logs):
    for seed in range(40):
        dead = set()
        for _, who, *what in simulate(seed).trace:
            assert who not in dead
            dead |= {who} if what == ["is killed"] else set()


def test_the_command_says_how_to_run_a_broken_world_again(monkeypatch, capsys, silent_logs):
    BUGS["resubmit_after_a_crash"](monkeypatch)
    status = main(["--seeds", "30", "--workers", "1"])
    output = capsys.readouterr().out
    seed = re.search(r"^seed (\d+): .*; again: nox -s simulation -- --from \1 --trace$", output, re.MULTILINE)

    assert status == 1
    assert seed is not None

    assert main(["--from", seed[1], "--trace"]) == 1
    assert "begins" in capsys.readouterr().out


def test_the_command_shares_many_worlds_among_processes(monkeypatch, capsys, silent_logs):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *sys.path]))

    assert main(["--seeds", "60"]) == 0
    assert re.search(r"^60 worlds in \d+ s, 0 of them broken: .* jobs", capsys.readouterr().out)


async def spin():
    while True:  # noqa: ASYNC110 - that is the point
        await asyncio.sleep(0)


async def wait_endlessly():
    await asyncio.Event().wait()


@pytest.mark.parametrize("hangs", [spin, wait_endlessly])
def test_a_world_that_hangs_is_an_error(hangs, monkeypatch):
    monkeypatch.setattr(loop, "_MAX_TURNS", 1000)
    world = loop.WorldLoop()
    task = hangs()
    with pytest.raises(RuntimeError, match=r"still runs|no event can happen"):
        world.run_until_complete(task)
    task.close()
    world.close()
