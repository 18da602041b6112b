"""What must hold in every world, checked at each step that can break it."""

from __future__ import annotations

import asyncio
from collections import Counter

import attrs

from kling_async import JournalError, Result, ResultState
from kling_async._journal.journal import WriteAheadJournal
from kling_async.events import Event, Finished, Resumed, SubmitAmbiguous, SubmitReconciled, Submitted

from .ledger import UNRECONCILED, Ledger, Thing
from .plan import Run
from .service import Job, Post, kind_of

_ENDS = {"success": ResultState.SUCCEEDED, "failed": ResultState.FAILED, "cancelled": ResultState.CANCELLED}
_GRACE = 10.0
"""Seconds beyond one call's timeout that leaving a batch may take, for the journal's last words."""


@attrs.define(eq=False)
class Inspector:
    """Watches one process: what it sends, what it is told, and what it tells."""

    run: Run
    ledger: Ledger
    journal: WriteAheadJournal | None = None
    results: dict[int, Result] = attrs.field(factory=dict)
    posts: list[Post] = attrs.field(factory=list)
    _began: float = attrs.field(factory=lambda: asyncio.get_running_loop().time())
    _things: list[Thing] = attrs.field(init=False)
    _owners: dict[str, int] = attrs.field(factory=dict)
    """Whose result each job was."""
    _in_flight: dict[str, Job] = attrs.field(factory=dict)
    """The jobs that hold a slot of the concurrency limit, by what the process was told."""
    _events: Counter[tuple[type[Event], int | None]] = attrs.field(factory=Counter)
    _named: set[str] = attrs.field(factory=set)
    """The jobs whose ids the process has told."""
    _reconciled: dict[str, str] = attrs.field(factory=dict)
    """The request for which each job was taken."""
    _shown: set[str] = attrs.field(factory=set)
    _polls: float = 0.0
    _polled: float = 0.0

    def __attrs_post_init__(self) -> None:
        self._things = self.ledger.begins(self.run)

    @property
    def now(self) -> float:
        """Seconds on the world's clock."""
        return asyncio.get_running_loop().time()

    def fail(self, text: str) -> None:
        """A rule is broken."""
        self.ledger.fail(text)

    # What it sends

    def sends(self, post: Post) -> None:
        """A POST leaves."""
        ledger, run, what = self.ledger, self.run, post.what
        self.posts.append(post)
        ledger.posts.append(post)
        if (paid := len(ledger.paid(what))) > (asked := ledger.asked_for(what, run)):
            self.fail(f"bought twice: POST {paid} of {what}, of which {asked} were asked for")
        flying = [one for one in self.posts if one.fate == "in flight"]
        if len(flying) > run.max_concurrent_submits:
            self.fail(f"too fast: {len(flying)} POSTs in flight, {run.max_concurrent_submits} allowed")
        in_flight = len(flying) + sum(1 for job in self._in_flight.values() if job.ends > self.now)
        if in_flight > run.max_concurrency:
            self.fail(f"too many: {in_flight} jobs in flight, {run.max_concurrency} allowed")
        if run.cap is not None and len(ledger.paid()) > run.cap:
            self.fail(f"too dear: POST {len(ledger.paid())} with money for {run.cap}")
        if self.now > self._began + run.ending.at:
            self.fail(f"too late: a POST of {what} after the batch was left")
        ledger.check_written_ahead(post, in_flight=sum(1 for one in flying if one.what == what))

    def polls(self) -> None:
        """A status or list call leaves."""
        rate = self.run.max_polls_per_second
        self._polls = max(0.0, self._polls - (self.now - self._polled) * rate) + 1
        self._polled = self.now
        if self._polls > max(1.0, rate) + 1.001:
            self.fail(f"too curious: {self._polls:.1f} calls at once, {rate} a second allowed")

    # What it is told

    def see_row(self, job: Job) -> None:
        """A list shows a job to the process."""
        self._shown.add(job.id)

    def hears(self, event: Event) -> None:
        """The process tells its caller of something."""
        self._events[type(event), event.index] += 1
        if isinstance(event, SubmitReconciled):
            assert event.index is not None
            self._take(self.ledger.all_jobs[event.job.request_id], self._things[event.index][1])
        if isinstance(event, Submitted | SubmitReconciled | Resumed) and event.request_id is not None:
            self._named.add(event.request_id)
            self._in_flight[event.request_id] = self.ledger.all_jobs[event.request_id]
        if isinstance(event, Finished):
            self._in_flight.pop(event.request_id or "", None)

    def _take(self, job: Job, what: str) -> None:
        """The client takes only its own job, or one that cannot be told from it."""
        if job.id in self._named:
            self.fail(f"two owners: {job.id} is taken though it has an owner")
        if job.post is None:
            self.fail(f"stolen: the old job {job.id} is taken")
        elif job.post.line != self.ledger.number:
            self._check_stranger(job, what)
        elif job.post.what != what and not self.ledger.passes_on(job, what):
            self.fail(f"mistaken: {job.id} of {job.post.what} is taken for {what}")
        self._reconciled[job.id] = what
        if self.ledger.disk is None:
            self.ledger.reconciled[job.id] = what

    def _check_stranger(self, job: Job, what: str) -> None:
        """A stranger's job is taken only in the place of one that is not there to be seen."""
        ledger, kept = self.ledger, self.ledger.kept_ids()
        replaced = ledger.strangers[what]  # as many of our own may show now, and have no place any more
        ledger.strangers[what] += 1
        if ledger.disk is None:
            lost = self._count_told(SubmitAmbiguous)[what] - self._count_told(SubmitReconciled)[what] + 1
        else:
            fresh = [id_ for id_, whose in self._reconciled.items() if whose == what and id_ not in kept]
            lost = ledger.open_intents(what) - len(fresh)
        own = [
            one.id
            for one in ledger.find_unowned(what)
            if one.id in self._shown and one.id not in self._named and one.vanishes > self.now
        ]
        if lost < 1 + len(own) - replaced:
            self.fail(f"stolen: {job.id} is taken, {lost} replies of {what} are lost, and {own} were shown")

    def _count_told(self, kind: type[Event]) -> Counter[str]:
        """How many events of a kind there were, by what was asked for."""
        told: Counter[str] = Counter()
        for (event, index), number in self._events.items():
            if event is kind and index is not None:
                told[self._things[index][1]] += number
        return told

    # What it gives

    def takes(self, result: Result) -> None:
        """The caller gets a result."""
        if result.index in self.results or not 0 <= result.index < len(self._things):
            self.fail(f"result {result.index} comes twice, or out of nowhere")
            return
        self.results[result.index] = result
        if (times := self._events[Finished, result.index]) != 1:
            self.fail(f"result {result.index} was told {times} times")
        if result.state is ResultState.NOT_SUBMITTED:
            self._check_not_submitted(result)
        elif result.state is ResultState.AMBIGUOUS:
            self._check_ambiguous(self._things[result.index][1])
        elif result.job is not None:
            self._check_job(result, result.job.request_id)

    def _check_not_submitted(self, result: Result) -> None:
        """What was never submitted has neither a job nor a POST of unknown fate."""
        if self.journal is None:
            return
        for entry in self.journal.entries():
            thing = (entry.identity.key, kind_of(entry.model, entry.payload), entry.identity.occurrence)
            may_have_job = entry.request_id is not None or entry.state in UNRECONCILED
            if thing == self._things[result.index] and may_have_job:
                self.fail(f"denied: {thing} is told to be not submitted, and the journal says {entry.state}")

    def _check_ambiguous(self, what: str) -> None:
        """Only an item with a lost submit is ambiguous."""
        states = (result.state for i, result in self.results.items() if self._things[i][1] == what)
        ambiguous = sum(1 for state in states if state is ResultState.AMBIGUOUS)
        if self.ledger.disk is not None and ambiguous > self.ledger.open_intents(what):
            self.fail(f"ambiguous: {ambiguous} items of {what} are ambiguous, more than the journal has")

    def _check_job(self, result: Result, id_: str) -> None:
        """A result is about its own job, and true."""
        what = self._things[result.index][1]
        if (owner := self._owners.setdefault(id_, result.index)) != result.index:
            self.fail(f"two owners: {id_} is the job of results {owner} and {result.index}")
        job = self.ledger.all_jobs[id_]
        is_own = job.post is not None and job.post.line == self.ledger.number
        if is_own and job.post.what != what and id_ not in self.ledger.passed_on:
            self.fail(f"mistaken: {id_} of {job.post.what} is the result of {what}")
        is_final = result.job is not None and result.job.is_final
        if is_final and (job.ends > self.now or _ENDS[job.final] is not result.state):
            self.fail(f"untrue: result {result.index} is {result.state}, and {id_} {job.status(self.now)}")

    # Its end

    def ends(self, error: BaseException | None) -> None:
        """The process is over, and was not killed."""
        ending = self.run.ending
        if error is not None and not self._is_expected(error):
            self.fail(f"raised: {error!r}")
        if ending.how == "finish" and error is None and len(self.results) != len(self._things):
            self.fail(f"only {len(self.results)} of {len(self._things)} results came")
        if (late := self.now - self._began - ending.at) > self.run.timeout + _GRACE:
            self.fail(f"leaving took {late:.0f} s")
        for fate, kind in (("in flight", None), ("answered", Submitted), ("unknown", SubmitAmbiguous)):
            sent = Counter(post.what for post in self.posts if post.fate == fate)
            if sent != (told := self._count_told(kind) if kind else Counter()):
                self.fail(f"untold: of POSTs {fate} there were {dict(sent)}, and told of {dict(told)}")

    def _is_expected(self, error: BaseException) -> bool:
        if isinstance(error, asyncio.CancelledError):
            return self.run.ending.how == "cancel"
        return isinstance(error, JournalError) and self.run.full_disk[1] > 0
