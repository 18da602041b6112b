"""One simulated world: the service, one or two lines of processes, and a verdict."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import attrs
from virtual_store import MemoryStore

from kling_async import Result, ResultState

from .line_state import Item, LineState
from .loop import WorldLoop
from .process import Killed, Process
from .rules import Inspector
from .scenario import Line, Run, Scenario, make_scenario
from .service import FaultyService
from .shared_database import SharedDatabase

_MAX_RERUNS = 3
_UNCERTAIN = {ResultState.TIMED_OUT, ResultState.AMBIGUOUS}
"""States that the next run can change."""
_ENDS = {ResultState.SUCCEEDED, ResultState.FAILED, ResultState.CANCELLED, ResultState.AMBIGUOUS}
_AROUND_THE_DEAD = {"is connected again"}
"""What may happen around a process that is dead: its network comes back without it."""
_AROUND_THE_STILL = {"goes on", "is killed", "commits", "committed", "is cut off", "is connected again"}
"""What may happen around a process that stands still: what it had sent to its journal still arrives there."""


@attrs.frozen
class Verdict:
    """The result of a world."""

    seed: int
    violations: list[str]
    counts: Counter[str]
    trace: list[tuple[Any, ...]] = attrs.field(repr=False)
    """Each step: the time, the process, and what happened."""
    option: str = ""
    """The option of the command that runs worlds of this kind."""

    def summary(self) -> str:
        """The first broken rule, and the command that shows it."""
        return f"seed {self.seed}: {self.violations[0]}; again: nox -s simulation -- {self.option}--from {self.seed} --trace"

    def lines(self) -> list[str]:
        """The trace as text."""
        return [f"{at:10.3f}  {who:4} {' '.join(map(str, what))}" for at, who, *what in self.trace]

    def digest(self) -> str:
        """A digest of the trace: equal for two runs with the same steps."""
        return blake2b("\n".join(self.lines()).encode(), digest_size=8).hexdigest()


def simulate(seed: int) -> Verdict:
    """Run the world of a seed."""
    return run_world(World(make_scenario(seed)))


def run_world(world: World) -> Verdict:
    """Run a world to its end."""
    loop = WorldLoop()
    try:
        loop.run_until_complete(world.run())
    except RuntimeError as error:  # as for a loop without an end
        world.violations.append(f"broken: {error}")
    finally:
        loop.close()
    if not world.violations:
        world.violations += find_impossible_steps(world.trace)
    return Verdict(world.scenario.seed, world.violations, world.counts, world.trace)


def find_impossible_steps(trace: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    """Each step of a process that is dead or stands still: the world would prove nothing."""
    dead: set[str] = set()
    still: set[str] = set()
    for at, who, *what in trace:
        is_dead_step = who in dead and what[0] not in _AROUND_THE_DEAD
        if is_dead_step or (who in still and what[0] not in _AROUND_THE_STILL):
            yield f"broken: {who} takes a step at {at:.3f}: {what}"
        match what[0]:
            case "is killed":
                dead.add(who)
            case "stands still":
                still.add(who)
            case "goes on":
                still.discard(who)


@attrs.define(eq=False)
class World:
    """A world that runs once."""

    scenario: Scenario
    violations: list[str] = attrs.field(factory=list)
    counts: Counter[str] = attrs.field(factory=Counter)
    trace: list[tuple[Any, ...]] = attrs.field(factory=list)
    _service: FaultyService = attrs.field(init=False)
    _line_states: list[LineState] = attrs.field(factory=list)
    _running: list[Process] = attrs.field(factory=list)

    async def run(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._handle)
        self._service = FaultyService(self.scenario.conditions, self._rng("service"), self._note_accepted)
        for number, line in enumerate(self.scenario.lines):
            self._line_states.append(
                LineState(
                    number=number,
                    disk=self._make_disk(line),
                    has_price=line.has_price,
                    organization=line.organization,
                    fail=self._fail,
                    all_jobs=self._service.jobs,
                )
            )
        runs = [
            self._run_with_faults(line_state, line)
            for line_state, line in zip(self._line_states, self.scenario.lines, strict=True)
        ]
        await asyncio.gather(*runs)
        self._service.end_faults()
        while (rest := self._service.quiet_after - self._service.now) > 0:  # noqa: ASYNC110 - it may grow
            await asyncio.sleep(rest + 1)
        for line_state, line in zip(self._line_states, self.scenario.lines, strict=True):
            if line.has_journal and not self.violations:
                await self._run_without_faults(line_state, line)
            self._count(line_state)

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Fail for an error that no task handles, unless only the kill of a process raised it."""
        error = context.get("exception")
        if isinstance(error, Killed):
            return
        if isinstance(error, BaseExceptionGroup):
            _, error = error.split(Killed)
        if error is not None or "exception" not in context:
            self._fail(f"broken: {context}")

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{name} {self.scenario.seed}")  # noqa: S311

    def _note(self, who: str) -> Callable[..., None]:
        loop = asyncio.get_running_loop()

        def note(*what: Any) -> None:
            self.trace.append((loop.time(), who, *what))

        return note

    def _fail(self, text: str) -> None:
        self.violations.append(text)
        self._note("!")(text)
        for process in self._running:
            process.kill()

    def _note_accepted(self, job: Any) -> None:
        self._note("S")("accepts", job.id, job.emulated.payload, job.final)
        self._line_states[job.post.line].add_job(job)

    def _make_process(self, **fields: Any) -> Process:
        return Process(**fields)

    def _make_disk(self, line: Line) -> MemoryStore | SharedDatabase | None:
        return MemoryStore() if line.has_journal else None

    async def _run_process(self, line_state: LineState, run: Run) -> dict[int, Result]:
        """Run one process to its end; returns its results."""
        self.counts["runs"] += 1
        who = f"{line_state.number}.{self.counts['runs']}"
        process = self._make_process(
            name=who,
            run=run,
            service=self._service,
            inspector=Inspector(run, line_state),
            rng=self._rng(who),
            note=self._note(who),
        )
        process.note("begins", len(run.requests), run.ending)
        self._running.append(process)
        await process.execute()
        self._running.remove(process)
        self.counts["kills"] += process.is_dead
        return process.inspector.results

    async def _run_with_faults(self, line_state: LineState, line: Line) -> None:
        """Run the processes of a line while there are faults."""
        await asyncio.sleep(line.begins)
        for run in line.runs:
            if self.violations:
                return
            await self._run_process(line_state, run)
            await asyncio.sleep(run.rest)

    async def _run_without_faults(self, line_state: LineState, line: Line) -> None:
        """Repeat the call without faults until each item has its final state."""
        requests = list(line_state.items.values())
        faultless = Run(requests=requests, wait_timeout=900.0)
        for _ in range(_MAX_RERUNS):
            results = await self._run_process(line_state, faultless)
            if self.violations or not self._find_unfinished(line_state, results):
                break
        if self.violations:
            return
        for item in self._find_unfinished(line_state, results):
            self._fail(f"unfinished: {item} has no end after {_MAX_RERUNS} runs without faults")
        self.counts["ambiguous"] += sum(1 for one in results.values() if one.state is ResultState.AMBIGUOUS)
        if len(self.scenario.lines) == 1 and all(run.on_ambiguous != "resend" for run in line.runs):
            has_wrong_clocks = any(run.clock_ahead or run.clock_steps for run in line.runs)
            self._check_found(line_state, results, has_wrong_clocks=has_wrong_clocks)
        if line.on_ambiguous != "report":
            last = attrs.evolve(faultless, on_ambiguous=line.on_ambiguous)
            results = await self._run_process(line_state, last)
            is_left = any(result.state is ResultState.AMBIGUOUS for result in results.values())
            if is_left and line.on_ambiguous == "resend":
                self._fail("unfinished: an item is ambiguous though it was sent again")
        if not self.violations:
            await self._check_same(line_state, faultless, results)
            line_state.check_spent()

    def _check_found(
        self, line_state: LineState, results: dict[int, Result], *, has_wrong_clocks: bool
    ) -> None:
        """A job of a lost submit that the list shows clearly is found, at the latest without faults.

        A wrong clock hides it where the service did not tell its time before the POST: the item is ambiguous then.
        """
        if self._service.conditions.order == "mixed":
            return  # pages can then repeat rows, and some rows never appear
        items = list(line_state.items)
        ambiguous_items = Counter(
            items[i][1] for i, one in results.items() if one.state is ResultState.AMBIGUOUS
        )
        now, kept = self._service.now, line_state.recorded_ids()
        for what, number in ambiguous_items.items():
            if has_wrong_clocks and line_state.has_open_intent_by_machine_time(what):
                continue
            alike = [job for job in line_state.jobs if job.could_match(what)]
            find_unowned = [job for job in alike if job.id not in kept]
            listed = [job for job in line_state.find_unowned(what) if job.is_listed(now)]
            is_sure = len(listed) == len(find_unowned) and not any(job.is_late for job in alike)
            if is_sure and 0 < len(listed) <= number:
                self._fail(f"overlooked: {listed[0].id} of a lost submit is listed, and was not found")

    def _find_unfinished(self, line_state: LineState, results: dict[int, Result]) -> list[Item]:
        """The items without a final state, except those whose job has vanished."""
        vanished = {
            id_ for id_, job in self._service.jobs.items() if job.emulated.vanishes_at <= self._service.now
        }
        return [
            item
            for index, item in enumerate(line_state.items)
            if index not in results
            or not (
                results[index].state in _ENDS
                or (results[index].job is not None and results[index].job.request_id in vanished)
            )
        ]

    async def _check_same(self, line_state: LineState, faultless: Run, before: dict[int, Result]) -> None:
        """One more run submits nothing, and gives the same results."""
        # A job that is found only now may have failed for a rate limit; its item is then submitted again.
        ambiguous_items = sum(1 for result in before.values() if result.state is ResultState.AMBIGUOUS)
        posts = len(line_state.posts) + ambiguous_items
        again = await self._run_process(line_state, faultless)
        if len(line_state.posts) > posts:
            self._fail("bought twice: the same call again has submitted something")
        for index, result in before.items():
            outcomes = [
                one and (one.state, one.job and one.job.request_id) for one in (result, again.get(index))
            ]
            if outcomes[0] != outcomes[1] and result.state not in _UNCERTAIN:
                self._fail(f"untrue: result {index} was {outcomes[0]}, and is {outcomes[1]} the next time")

    def _count(self, line_state: LineState) -> None:
        if line_state.is_shared:
            self.counts["stops"] += line_state.stops
            self.counts["cuts"] += line_state.cuts
        self.counts["posts"] += len(line_state.posts)
        self.counts["jobs"] += len(line_state.jobs)
        self.counts["lost answers"] += sum(1 for post in line_state.posts if post.fate == "unknown")
        self.counts["jobs of others matched"] += line_state.strangers.total()
        self.counts["jobs without an owner"] += (
            sum(line_state.count_missing().values()) if line_state.disk else 0
        )
