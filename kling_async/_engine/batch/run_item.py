"""One item's way: recalled from the journal, submitted, settled, watched, saved. It ends with exactly one result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
from anyio import CancelScope
from anyio.abc import TaskGroup

from kling_async._engine.batch.batch_input import InputItem
from kling_async._engine.batch.ledger import Item, Ledger
from kling_async._engine.batch.resume import NextStep, next_step, saved_file
from kling_async._engine.poll.poller import JobPoller
from kling_async._engine.poll.tracked_job import TrackedJob
from kling_async._engine.session import LoopSession, job_kind
from kling_async._engine.submit.reconciler import Case
from kling_async._engine.submit.uploader import Uploader
from kling_async._journal.entry import Entry
from kling_async._policy.circuit_breaker import CircuitBreaker
from kling_async._policy.concurrency_limit import ConcurrencyLimit
from kling_async._policy.file_names import file_name
from kling_async._policy.matching import CLOCK_SKEW, LostSubmit
from kling_async._policy.outcome import error_of, state_of
from kling_async._policy.submission import is_throttled
from kling_async.errors import AmbiguousSubmitError, DownloadError, InvalidRequestError, KlingError
from kling_async.events import Downloaded, Finished, Notifier, NotSubmitted, Resumed, SubmitReconciled
from kling_async.jobs import Job
from kling_async.requests import VideoRequest, model_of
from kling_async.results import Result, ResultState
from kling_async.types import OnAmbiguous

_MOST_TRIES = 5
"""How often an item is submitted again because its job failed for a rate limit."""
_GRAVITY = 2
"""A job that was taken and then failed is a graver sign than a 429: the pause begins four times as long."""


@attrs.define(eq=False, kw_only=True)
class Course:
    """Takes each item of a batch from its place in the window to its result."""

    engine: LoopSession
    books: Ledger
    window: ConcurrencyLimit
    notify: Notifier
    folder: Path | None
    """Where each finished video is saved; None saves nothing."""
    on_ambiguous: OnAmbiguous = "report"
    retry_failed: bool = False
    on_free: Callable[[], None] = attrs.field(init=False)
    """Told when an item gives its place in the window back, which it does once."""
    on_result: Callable[[Result], None] = attrs.field(init=False)
    """Told of each result."""
    alive: Callable[[], int] = attrs.field(init=False)
    """How many places of the window are taken."""
    tasks: TaskGroup = attrs.field(init=False)
    watcher: JobPoller = attrs.field(init=False)
    _uploads: Uploader = attrs.field(init=False)
    _stop: CircuitBreaker = attrs.field(init=False, factory=CircuitBreaker)
    _sought: set[int | None] = attrs.field(init=False, factory=set)
    """The entries of the journal whose job is looked for."""

    def __attrs_post_init__(self) -> None:
        self._uploads = Uploader(self.engine.caller)
        self.watcher = self.engine.watcher(self.notify)

    async def begin(self, taken: InputItem, scope: CancelScope) -> None:
        """Go on with an item from where it stands; returns once it needs no more of its taker, whose scope is given."""
        index, request = taken.index, taken.request
        if taken.error is not None:
            self.not_submitted(index, request, taken.error)
            return
        item = Item(index=index, request=request, books=self.books, way=self)
        try:
            item.price = self.books.budget.price(request) if request is not None else None
            entry = await self.books.recall(item, taken.entry)
        except KlingError as error:
            self.not_submitted(index, request, error)
            return
        if entry is None or not self._goes_on(item, entry):
            await self._submit(item, scope)

    def not_submitted(self, index: int, request: VideoRequest | None, error: KlingError) -> None:
        """An item has no job: it was refused or never sent."""
        if self.notify:
            self.notify(NotSubmitted(at=self.engine.caller.clock.wall(), index=index, error=error))
        self.on_free()
        self._close(None, Result(index=index, request=request, state=ResultState.NOT_SUBMITTED, error=error))

    def _goes_on(self, item: Item, entry: Entry) -> bool:
        """Take up an item where an earlier run left it; False for one that is to be submitted."""
        item.kind = job_kind(entry.model, entry.payload)
        step = next_step(entry, retry_failed=self.retry_failed)
        if step is NextStep.SUBMIT:
            item.otherwise = entry.job
            return False
        job, path = entry.job, saved_file(entry, self.folder)
        if self.notify:
            at = self.engine.caller.clock.wall()
            event = Resumed(at=at, index=item.index, request_id=entry.request_id, job=job, path=path)
            self.notify(event)
        if job is None:
            self._inquire(item, self._case(entry))
            return True
        self.engine.reconciler.claim(job.request_id)
        if step is NextStep.REPORT:
            self.on_free()
            self._recalled(item, job, path)
        else:
            self._watch(item, job, age=self._age(entry))
        return True

    def _recalled(self, item: Item, job: Job, path: Path | None) -> None:
        """An earlier run saw the end of the job; what is missing is its file at most."""
        result = self._result(item, job)
        if path is not None and result.ok:
            self._tell_end(result)
            self.on_result(attrs.evolve(result, path=path))
        else:
            self._close(item, result)

    def _age(self, entry: Entry) -> float:
        """Seconds since the POST of an entry."""
        wall = self.engine.caller.clock.wall()
        return max(0.0, wall - entry.sent_at) if entry.sent_at is not None else 0.0

    def _case(self, entry: Entry) -> Case:
        """The inquiry after a POST whose reply an earlier run did not live to see."""
        sent_at = entry.sent_at if entry.sent_at is not None else self.engine.caller.clock.wall()
        error = KlingError(entry.error or "the process ended before the answer came")
        case = Case(model=entry.model, lost=self._lost(entry), sent_at=sent_at, error=error)
        self.engine.reconciler.open(case)
        return case

    def _lost(self, entry: Entry) -> LostSubmit:
        """The reply that an entry waits for."""
        caller = self.engine.caller
        sent_at = entry.sent_at if entry.sent_at is not None else caller.clock.wall()
        return LostSubmit(
            payload=entry.payload, since=sent_at - CLOCK_SKEW, until=sent_at + caller.timeout + CLOCK_SKEW
        )

    def _unsought(self, model: str) -> list[LostSubmit]:
        """The lost replies of the journal for which nobody looks now."""
        entries = self.books.unresolved(model)
        # One that was sent again comes twice, first as it was before.
        last = {entry.number: entry for entry in entries}
        return [
            self._lost(entry)
            for entry in entries
            if entry.number not in self._sought or entry is not last[entry.number]
        ]

    async def _resubmit(self, item: Item) -> None:
        """Submit an item once more that still holds its place of the window."""
        with CancelScope() as scope:
            await self._submit(item, scope)

    async def _submit(self, item: Item, scope: CancelScope) -> None:
        """Submit an item that holds a place of the window."""
        request = item.request
        if request is None or self._stop.reason is not None:
            self._unsent(item, self._stop.reason or _not_made_again(item))
            return
        try:
            payload = await self._uploads.payload(request)
        except KlingError as error:
            self._unsent(item, error)
            return
        item.kind = job_kind(model_of(request), payload)
        try:
            outcome = await self.engine.submitter.submit(
                model_of(request),
                payload,
                item,
                scope=scope,
                notify=self.notify,
                max_throttles=None,
                on_throttle=self._throttled,
            )
        except KlingError as error:
            self._stop.refused(error)
            self._unsent(item, error)
            return
        if isinstance(outcome, Case):
            self._inquire(item, outcome)

    def _unsent(self, item: Item, error: KlingError) -> None:
        """An item cannot be sent: it has no job, unless one was, or may have been, made for it before."""
        outcome = item.otherwise
        if outcome is None:
            self.not_submitted(item.index, item.request, error)
            return
        self.on_free()
        # A failed job stays open in the journal: a later run tries again what could not be sent now.
        self._close(None if isinstance(outcome, Job) else item, self._result(item, outcome))

    def _inquire(self, item: Item, case: Case) -> None:
        """Have the job of a lost reply looked for, beside everything else; the item keeps its place."""
        if item.number is not None:
            case.has_job, case.unsought = self.books.has_job, self._unsought
            self._sought.add(item.number)
        self.tasks.start_soon(self._settle, item, case)

    async def _settle(self, item: Item, case: Case) -> None:
        try:
            job = await self.engine.reconciler.settle(case)
        except AmbiguousSubmitError as error:
            self._sought.discard(item.number)
            self._stop.refused(error)
            if self.on_ambiguous == "resend" and not item.is_resent:
                item.is_resent, item.otherwise = True, error
                await self._resubmit(item)
            else:
                self.on_free()
                self._close(item, self._result(item, error))
            return
        self._sought.discard(item.number)
        self._stop.accepted()
        self.books.adopt(item, job)
        if self.notify:
            at = self.engine.caller.clock.wall()
            self.notify(SubmitReconciled(at=at, index=item.index, request_id=job.request_id, job=job))
        self._watch(item, job, age=max(0.0, self.engine.caller.clock.wall() - case.sent_at))

    def accepted(self, item: Item, job: Job) -> None:
        """The service took its job; see `Way`."""
        self._stop.accepted()
        self.window.accepted()
        self._watch(item, job)

    def _watch(self, item: Item, job: Job, *, age: float = 0.0) -> None:
        assert item.kind is not None, "it was submitted"
        # The record itself is let go: of a hundred thousand jobs in flight it would be most of the memory.
        self.watcher.add(job, item.ended, kind=item.kind, index=item.index, age=age)

    def ended(self, item: Item, watched: TrackedJob, outcome: Job | KlingError) -> None:
        """The wait for its job is over; see `Way`."""
        if (
            isinstance(outcome, Job)
            and is_throttled(outcome)
            and item.throttled_jobs < _MOST_TRIES
            and self._stop.reason is None
        ):
            self._submit_again(item, outcome)
            return
        self.on_free()
        self._close(item, self._result(item, outcome, watched))

    def _submit_again(self, item: Item, job: Job) -> None:
        """A job that failed for a rate limit made no video: pause as for any such sign, and keep its place."""
        error = error_of(job)
        assert error is not None
        item.throttled_jobs, item.otherwise = item.throttled_jobs + 1, job
        tries = item.throttled_jobs + _GRAVITY
        self._throttled(self.engine.submitter.pause(error, self.notify, tries=tries))
        self.tasks.start_soon(self._resubmit, item)

    def _throttled(self, pause: float) -> None:
        now = self.engine.caller.clock.now()
        self.window.throttled(now=now, pause=pause, alive=self.alive())

    def _result(self, item: Item, outcome: Job | KlingError, watched: TrackedJob | None = None) -> Result:
        """The result that an item ends with, before its video is saved."""
        job: Job | None
        error: KlingError | None
        if isinstance(outcome, Job):
            job, error = outcome, error_of(outcome)
        else:
            job, error = outcome.job or (watched.job if watched is not None else None), outcome
        return Result(
            index=item.index,
            request=item.request,
            state=state_of(outcome),
            job=job,
            error=error,
            cost_usd=item.cost,
        )

    def _close(self, item: Item | None, result: Result) -> None:
        """The item has its final state; a success may still have to be saved."""
        if item is not None:
            self.books.end(item, result)
        self._tell_end(result)
        if item is not None and self.folder is not None and result.ok:
            self.tasks.start_soon(self._save, item, result, self.folder)
        else:
            self.on_result(result)

    def _tell_end(self, result: Result) -> None:
        if self.notify:
            self.notify(
                Finished(
                    at=self.engine.caller.clock.wall(),
                    index=result.index,
                    request_id=result.job.request_id if result.job else None,
                    state=result.state,
                    job=result.job,
                    error=result.error,
                )
            )

    async def _save(self, item: Item, result: Result, folder: Path) -> None:
        assert result.job is not None
        prompt = item.request.prompt if item.request is not None else ""
        path = folder / file_name(result.job.request_id, prompt=prompt, index=item.index)
        try:
            saved = await self.engine.downloader.download(
                result.job, path, notify=self.notify, index=item.index, digest=self.books.journal is not None
            )
        except DownloadError as error:
            self.on_result(attrs.evolve(result, error=error))
            return
        self.books.save(item, path, saved)
        if self.notify:
            self.notify(
                Downloaded(
                    at=self.engine.caller.clock.wall(),
                    index=item.index,
                    request_id=result.job.request_id,
                    path=path,
                    size_bytes=saved.size_bytes,
                )
            )
        self.on_result(attrs.evolve(result, path=path))


def _not_made_again(item: Item) -> InvalidRequestError:
    return InvalidRequestError(
        f"Entry {item.number} of the journal holds a payload that no valid request makes, so it cannot be submitted: "
        "give its request anew."
    )
