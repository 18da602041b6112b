"""One world: the service, one or two lines of processes, and what comes of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import attrs
from virtual_store import MemoryStore

from kling_async import Result, ResultState

from .ledger import Ledger, Thing
from .loop import WorldLoop
from .plan import Line, Plan, Run, draw
from .process import Process
from .rules import Inspector
from .service import Service

_MOST_RERUNS = 3
_CAN_CHANGE = {ResultState.TIMED_OUT, ResultState.AMBIGUOUS}
"""What the next run may know better."""
_ENDS = {ResultState.SUCCEEDED, ResultState.FAILED, ResultState.CANCELLED, ResultState.AMBIGUOUS}


@attrs.frozen
class Verdict:
    """What came of a world."""

    seed: int
    violations: list[str]
    counts: Counter[str]
    trace: list[tuple[Any, ...]] = attrs.field(repr=False)
    """What happened: when, who, what."""

    def summary(self) -> str:
        """What broke first, and the command that shows it."""
        return (
            f"seed {self.seed}: {self.violations[0]}; again: nox -s simulation -- --from {self.seed} --trace"
        )

    def lines(self) -> list[str]:
        """The trace as text."""
        return [f"{at:10.3f}  {who:4} {' '.join(map(str, what))}" for at, who, *what in self.trace]

    def digest(self) -> str:
        """What stands for the trace: equal for two runs in which the same happened."""
        return blake2b("\n".join(self.lines()).encode(), digest_size=8).hexdigest()


def simulate(seed: int) -> Verdict:
    """Run the world of a seed."""
    loop, world = WorldLoop(), _World(draw(seed))
    try:
        loop.run_until_complete(world.run())
    except RuntimeError as error:  # as where a task never waits
        world.violations.append(f"broken: {error}")
    finally:
        loop.close()
    return Verdict(seed, world.violations, world.counts, world.trace)


@attrs.define(eq=False)
class _World:
    plan: Plan
    violations: list[str] = attrs.field(factory=list)
    counts: Counter[str] = attrs.field(factory=Counter)
    trace: list[tuple[Any, ...]] = attrs.field(factory=list)
    _service: Service = attrs.field(init=False)
    _ledgers: list[Ledger] = attrs.field(factory=list)
    _living: list[Process] = attrs.field(factory=list)

    async def run(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: self._fail(f"broken: {what}"))
        self._service = Service(self.plan.weather, self._rng("service"), self._record_job)
        for number, line in enumerate(self.plan.lines):
            disk = MemoryStore() if line.has_journal else None
            self._ledgers.append(
                Ledger(
                    number=number,
                    disk=disk,
                    has_price=line.has_price,
                    fail=self._fail,
                    all_jobs=self._service.jobs,
                )
            )
        stormy = [
            self._storm(ledger, line) for ledger, line in zip(self._ledgers, self.plan.lines, strict=True)
        ]
        await asyncio.gather(*stormy)
        self._service.clear_up()
        while (rest := self._service.quiet_after - self._service.now) > 0:  # noqa: ASYNC110 - it may grow
            await asyncio.sleep(rest + 1)
        for ledger, line in zip(self._ledgers, self.plan.lines, strict=True):
            if line.has_journal and not self.violations:
                await self._calm(ledger, line)
            self._count(ledger)

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{name} {self.plan.seed}")  # noqa: S311

    def _note(self, who: str) -> Callable[..., None]:
        loop = asyncio.get_running_loop()

        def note(*what: Any) -> None:
            self.trace.append((loop.time(), who, *what))

        return note

    def _fail(self, text: str) -> None:
        self.violations.append(text)
        self._note("!")(text)
        for process in self._living:
            process.kill()

    def _record_job(self, job: Any) -> None:
        self._note("S")("accepts", job.id, job.payload, job.final)
        self._ledgers[job.post.line].record_job(job)

    async def _live(self, ledger: Ledger, run: Run) -> dict[int, Result]:
        """One process, from its beginning to its end; its results."""
        self.counts["runs"] += 1
        who = f"{ledger.number}.{self.counts['runs']}"
        process = Process(
            name=who,
            run=run,
            service=self._service,
            inspector=Inspector(run, ledger),
            rng=self._rng(who),
            note=self._note(who),
        )
        process.note("begins", len(run.requests), run.ending)
        self._living.append(process)
        await process.live()
        self._living.remove(process)
        self.counts["kills"] += process.is_dead
        return process.inspector.results

    async def _storm(self, ledger: Ledger, line: Line) -> None:
        """The runs of a line while anything may go wrong."""
        await asyncio.sleep(line.begins)
        for run in line.runs:
            if self.violations:
                return
            await self._live(ledger, run)
            await asyncio.sleep(run.rest)

    async def _calm(self, ledger: Ledger, line: Line) -> None:
        """The same call again without faults, until each item has its end."""
        requests = list(ledger.things.values())
        calm = Run(requests=requests, wait_timeout=900.0)
        for _ in range(_MOST_RERUNS):
            results = await self._live(ledger, calm)
            if self.violations or not self._find_unfinished(ledger, results):
                break
        if self.violations:
            return
        for thing in self._find_unfinished(ledger, results):
            self._fail(f"unreconciled: {thing} has no end after {_MOST_RERUNS} calm runs")
        self.counts["ambiguous"] += sum(1 for one in results.values() if one.state is ResultState.AMBIGUOUS)
        if line.resends:
            results = await self._live(ledger, attrs.evolve(calm, on_ambiguous="resend"))
            if any(result.state is ResultState.AMBIGUOUS for result in results.values()):
                self._fail("unreconciled: an item is ambiguous though it was sent again")
        elif len(self.plan.lines) == 1 and not any(run.on_ambiguous == "resend" for run in line.runs):
            self._check_found(ledger, results)
        if not self.violations:
            await self._check_same(ledger, calm, results)
            ledger.check_spent()

    def _check_found(self, ledger: Ledger, results: dict[int, Result]) -> None:
        """A lost job that the list shows as the only one is found, at the latest when all faults have ended."""
        if self._service.weather.order == "mixed":
            return  # a page may then show what the last one did, and something never
        things = list(ledger.things)
        ambiguous = Counter(things[i][1] for i, one in results.items() if one.state is ResultState.AMBIGUOUS)
        now, kept = self._service.now, ledger.kept_ids()
        for what, number in ambiguous.items():
            alike = [job for job in ledger.jobs if job.may_be_taken_for(what)]
            unowned = [job for job in alike if job.id not in kept]
            listed = [job for job in ledger.find_unowned(what) if job.shows <= now < job.vanishes]
            is_sure = len(listed) == len(unowned) and not any(job.is_late for job in alike)
            if is_sure and 0 < len(listed) <= number:
                self._fail(f"overlooked: {listed[0].id} was lost, is listed, and was not found")

    def _find_unfinished(self, ledger: Ledger, results: dict[int, Result]) -> list[Thing]:
        """The items that have no end, but for those whose job has vanished."""
        vanished = {id_ for id_, job in self._service.jobs.items() if job.vanishes <= self._service.now}
        return [
            thing
            for index, thing in enumerate(ledger.things)
            if index not in results
            or not (
                results[index].state in _ENDS
                or (results[index].job is not None and results[index].job.request_id in vanished)
            )
        ]

    async def _check_same(self, ledger: Ledger, calm: Run, before: dict[int, Result]) -> None:
        """Once more buys nothing, and tells the same."""
        # A job that comes to light only now may have failed for a rate limit, and is sent again then.
        ambiguous = sum(1 for result in before.values() if result.state is ResultState.AMBIGUOUS)
        posts = len(ledger.posts) + ambiguous
        again = await self._live(ledger, calm)
        if len(ledger.posts) > posts:
            self._fail("bought twice: the same call again has bought something")
        for index, result in before.items():
            told = [one and (one.state, one.job and one.job.request_id) for one in (result, again.get(index))]
            if told[0] != told[1] and result.state not in _CAN_CHANGE:
                self._fail(f"untrue: result {index} was {told[0]}, and is {told[1]} the next time")

    def _count(self, ledger: Ledger) -> None:
        self.counts["posts"] += len(ledger.posts)
        self.counts["jobs"] += len(ledger.jobs)
        self.counts["lost replies"] += sum(1 for post in ledger.posts if post.fate == "unknown")
        self.counts["strangers' jobs taken"] += ledger.strangers.total()
        self.counts["jobs without an owner"] += sum(ledger.count_missing().values()) if ledger.disk else 0
