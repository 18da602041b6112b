"""One list call for many status calls: a model's list, gone through as far and as often as it pays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs
from anyio.abc import TaskGroup

from kling_async._engine.api import ApiCaller
from kling_async._engine.poll.tracked_job import TrackedJob, Watch
from kling_async._policy.polling import UseLists
from kling_async._policy.schedule import PollSchedule
from kling_async._policy.sweeping import ListScanState, page_cost
from kling_async._wire.codec import RowPage, ShapeError, structure_job, structure_rows
from kling_async._wire.endpoints import LIST
from kling_async.errors import APIStatusError, KlingError, RateLimitError
from kling_async.jobs import JobStatus

_BETWEEN_LOOKS = 0.2
"""Seconds before it is considered anew whether a list would pay."""
_LONGEST_SLEEP = 0.5
"""Seconds after which it is considered anew when the next sweep is due."""
_PATIENCE = 1.0
"""Seconds after the next sweep until which a job waits to be shown by it."""
_PROGRESS = {JobStatus.PROCESSING: 1}


@attrs.define(eq=False)
class _Model:
    """One model's list, and when it is gone through next."""

    name: str | None
    listing: ListScanState
    next_at: float = -math.inf
    looked_at: float = -math.inf


@attrs.define(eq=False)
class _Sweep:
    """How far one way through a list has come."""

    offset: int
    alive: int
    found: int = 0
    unfinished: int = 0
    """How many of those found go on."""
    calls: int = 0
    cost: float = 0.0
    first: int | None = None
    """The offset of the first page with a job of ours."""
    last: int = 0
    """The offset behind the last one."""
    last_row: int = 0
    """The offset behind the last row that is a job of ours."""
    has_jumped: bool = False
    total: int | None = None
    """How many rows the list had at the last page."""
    is_stuck: bool = False
    """Whether the last page showed nothing new."""
    seen: set[str] = attrs.field(factory=set)

    def growth(self, page: RowPage) -> int:
        """How many rows the list has gained since the last page, as far as it tells."""
        before, self.total = self.total, page.total
        return max(0, page.total - before) if page.total is not None and before is not None else 0


@attrs.define(eq=False)
class ListScanner:
    """The lists of all models that one watcher has jobs of."""

    caller: ApiCaller
    schedule: PollSchedule
    watch: Watch
    use_lists: UseLists = "auto"
    tasks: TaskGroup | None = None
    status_seconds: float = 1.0
    """How long a status call takes, by the last of them."""
    _models: dict[str | None, _Model] = attrs.field(init=False, factory=dict)

    def number(self, model: str | None) -> int:
        """The number of the last sweep of a model's list."""
        return self._model(model).listing.number

    def stand_for(self, watched: TrackedJob, *, now: float) -> float | None:
        """Until when a job that is due may wait, because a sweep will show it; None if it is to be asked about."""
        if self.use_lists == "never":
            return None
        model = self._model(watched.model)
        listing = model.listing
        if not listing.is_on and not self._begins(model, now=now, always=self.use_lists == "always"):
            return None
        if not listing.covers(watched.shown_in):
            return None
        return max(model.next_at, now) + _PATIENCE

    def told(self, watched: TrackedJob, status: JobStatus) -> None:
        """A status call showed a job; if it is final and the last sweep showed it alive, the list is put to the test."""
        if watched.shown_in and status.is_final:
            listing = self._model(watched.model).listing
            if listing.is_on and watched.shown_in == listing.number:
                listing.suspect = watched.request_id

    def _model(self, name: str | None) -> _Model:
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = _Model(name, ListScanState())
        return model

    def _begins(self, model: _Model, *, now: float, always: bool) -> bool:
        """Consider anew whether the list pays, and begin to go through it if so."""
        if self.tasks is None or now < model.looked_at + _BETWEEN_LOOKS or not model.listing.may_begin(now):
            return False
        model.looked_at = now
        model.listing.expect(self.watch.alive[model.name])
        if not always and not self._pays(model, now):
            return False
        model.listing.is_on = True
        self.tasks.start_soon(self._keep_sweeping, model)
        return True

    def _pays(self, model: _Model, now: float) -> bool:
        jobs = self.watch.alive[model.name]
        calls, rows = model.listing.expected(jobs)
        return self.schedule.list_pays(model.name, now=now, calls=calls, rows=rows, jobs=jobs)

    async def _keep_sweeping(self, model: _Model) -> None:
        """Go through the list again and again, while there are jobs and it pays."""
        listing = model.listing
        always = self.use_lists == "always"
        try:
            while listing.is_on and self.watch.alive[model.name]:
                await self._sweep(model)
                now = self.caller.clock.now()
                if not listing.is_on or not (always or self._pays(model, now)):
                    break
                if listing.wants_audit(now):
                    self._audit(model)
                await self._rest(model, swept_at=now)
        finally:
            listing.is_on = False

    async def _rest(self, model: _Model, *, swept_at: float) -> None:
        """Wait until the next sweep is worth its cost, which may come sooner as more is learned."""
        clock = self.caller.clock
        while True:
            now = clock.now()
            jobs = self.watch.alive[model.name]
            calls, rows = model.listing.expected(jobs)
            delay = self.schedule.list_delay(model.name, now=now, calls=calls, rows=rows, jobs=jobs)
            model.next_at = swept_at + delay
            if model.next_at <= now:
                return
            await clock.sleep(min(model.next_at - now, _LONGEST_SLEEP))

    def _audit(self, model: _Model) -> None:
        """Have one of the jobs that the list shows alive asked about on its own."""
        shown = [
            watched
            for watched in self.watch.watching.values()
            if watched.model == model.name and watched.shown_in == model.listing.number
        ]
        if shown:
            self.watch.ask_now(self.caller.rng.choice(shown))

    async def _sweep(self, model: _Model) -> None:
        listing = model.listing
        alive = self.watch.alive[model.name]
        listing.expect(alive)
        sweep = _Sweep(offset=listing.start, alive=alive)
        try:
            while await self._page(model, sweep):
                pass
        except KlingError as error:
            self._failed(listing, error)
            return
        listing.start = sweep.first or 0
        listing.reach = sweep.last
        listing.span = max(0, sweep.last_row - listing.start)
        listing.swept(
            found=sweep.found, alive=alive, calls=sweep.calls, cost=sweep.cost, now=self.caller.clock.now()
        )

    async def _page(self, model: _Model, sweep: _Sweep) -> bool:
        """Read one page; whether to read another, at the sweep's new offset."""
        listing = model.listing
        await self.watch.turn()
        began = self.caller.clock.now()
        query = {"model_id": model.name, "limit": listing.limit, "offset": sweep.offset}
        reply = await self.caller.fetch(LIST, query=query)
        page = self.caller.read(reply, LIST, structure_rows)
        cost = page_cost(
            rows=len(page.rows),
            size_bytes=len(reply.body),
            seconds=self.caller.clock.now() - began,
            status_seconds=self.status_seconds,
        )
        sweep.calls += 1
        sweep.cost += cost
        known = len(sweep.seen)
        again, hits = self._read(listing, page, sweep)
        end, growth = sweep.offset + len(page.rows), sweep.growth(page)
        if hits:
            sweep.first = sweep.offset if sweep.first is None else sweep.first
            sweep.last = end
            sweep.found += hits
        left = self.watch.alive[model.name] - sweep.unfinished
        if left <= 0 or page.has_more is False:
            return False
        if (jump := self._jump(listing, page, sweep)) is not None:
            sweep.offset, sweep.has_jumped = jump, True
            return True
        # A list that grows in front has moved on, and moves on until the next page is here: by as much at most, and a
        # row too many costs less than a status call for each that is jumped over.
        sweep.offset = end + (growth // 2 if again else 0)
        was_stuck, sweep.is_stuck = sweep.is_stuck, len(sweep.seen) == known
        if sweep.is_stuck:
            return bool(again and growth) and not was_stuck
        return listing.goes_on(hits=hits, left=left, cost=cost, end=end)

    def _jump(self, listing: ListScanState, page: RowPage, sweep: _Sweep) -> int | None:
        """Where the newest rows may stand in a list whose first page shows nothing of ours; None for nowhere else."""
        if sweep.found or sweep.has_jumped or page.total is None:
            return None
        pages = math.ceil(sweep.alive / listing.limit)
        newest = page.total - pages * listing.limit
        return newest if newest > sweep.offset else None

    def _read(self, listing: ListScanState, page: RowPage, sweep: _Sweep) -> tuple[int, int]:
        """Take in what the rows say; how many were shown before by this sweep, and how many are news of our jobs."""
        now, again, hits = self.caller.clock.now(), 0, 0
        for place, row in enumerate(page.rows, start=1):
            request_id = row.get("request_id") if isinstance(row, dict) else None
            if not isinstance(request_id, str):
                continue
            if request_id in sweep.seen:
                again += 1
                continue
            sweep.seen.add(request_id)
            watched = self.watch.watching.get(request_id)
            if watched is not None and self._learn(listing, watched, row, now):
                hits += 1
                sweep.last_row = max(sweep.last_row, sweep.offset + place)
                sweep.unfinished += not watched.is_over
                watched.shown_in = listing.number + 1
            elif request_id == listing.suspect and not _is_final(row):
                listing.strike(now, proof=True)
        return again, hits

    def _learn(self, listing: ListScanState, watched: TrackedJob, row: Mapping[str, Any], now: float) -> bool:
        """Take in one row; False for one that tells nothing, or something that was true once."""
        if watched.asked_for_media:
            return True
        if row.get("status") == watched.status.value:
            self.watch.seen(watched, now)
            return True
        try:
            job = structure_job(row)
        except ShapeError:
            return False
        if not job.is_final and _PROGRESS.get(job.status, 0) < _PROGRESS.get(watched.status, 0):
            listing.strike(now)
            return False
        self.watch.learn(watched, job)
        return True

    def _failed(self, listing: ListScanState, error: KlingError) -> None:
        """A list that cannot be had is left alone; the jobs are asked about one by one meanwhile."""
        now = self.caller.clock.now()
        is_refusal = isinstance(error, APIStatusError) and (error.status_code or 0) < 500  # noqa: PLR2004 - the HTTP class
        if is_refusal and not isinstance(error, RateLimitError):
            listing.refused(now)
        else:
            listing.rest(now)


def _is_final(row: Mapping[str, Any]) -> bool:
    word = row.get("status")
    return isinstance(word, str) and word.strip().lower() in {"success", "failed", "cancelled", "canceled"}
