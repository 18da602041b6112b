"""One simulated world in which several processes share one journal at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs

from .line_state import LineState
from .process import Process
from .scenario import Line
from .shared_database import SharedDatabase
from .shared_process import SharedProcess
from .shared_scenario import Member, SharedScenario, make_shared_scenario
from .world import Verdict, World, run_world


def simulate_shared(seed: int) -> Verdict:
    """Run the world of a seed with a shared journal."""
    return attrs.evolve(run_world(SharedWorld(scenario=make_shared_scenario(seed))), option="--shared ")


@attrs.define(eq=False, kw_only=True)
class SharedWorld(World):
    """A world whose processes run at the same time over one journal."""

    scenario: SharedScenario
    _database: SharedDatabase = attrs.field(init=False)

    def _make_disk(self, line: Line) -> SharedDatabase:
        self._database = SharedDatabase(asyncio.get_running_loop().time)
        return self._database

    def _make_process(self, **fields: Any) -> Process:
        return SharedProcess(database=self._database, **fields)

    async def _run_with_faults(self, line_state: LineState, line: Line) -> None:
        """Run the processes of all members while there are faults."""
        await asyncio.gather(*(self._run_member(line_state, member) for member in self.scenario.members))

    async def _run_member(self, line_state: LineState, member: Member) -> None:
        await asyncio.sleep(member.begins)
        for run in member.runs:
            if self.violations:
                return
            await self._run_process(line_state, run)
            await asyncio.sleep(run.rest)
