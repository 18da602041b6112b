"""The rules of every world, checked at each step that can break one."""

from __future__ import annotations

import asyncio
from collections import Counter

import attrs

from kling_async import JournalError, Result, ResultState
from kling_async._journal.journal import WriteAheadJournal
from kling_async.events import Event, Finished, Resumed, SubmitLost, SubmitReconciled, Submitted

from .jobs import Job, Post, request_text
from .line_state import UNRESOLVED, Item, LineState
from .scenario import Run
from .shared_database import SharedDatabase

_ENDS = {"success": ResultState.SUCCEEDED, "failed": ResultState.FAILED, "cancelled": ResultState.CANCELLED}
_GRACE = 10.0
"""Seconds beyond one call's timeout in which a batch must end after it was left: it writes its journal."""


@attrs.define(eq=False)
class Inspector:
    """Checks one process: its calls, its events and its results."""

    run: Run
    line_state: LineState
    journal: WriteAheadJournal | None = None
    results: dict[int, Result] = attrs.field(factory=dict)
    posts: list[Post] = attrs.field(factory=list)
    _began: float = attrs.field(factory=lambda: asyncio.get_running_loop().time())
    _items: list[Item] = attrs.field(init=False)
    _owners: dict[str, int] = attrs.field(factory=dict)
    """By job, the index of its result."""
    _in_flight: dict[str, Job] = attrs.field(factory=dict)
    """The jobs in flight, as far as the process knows."""
    _events: Counter[tuple[type[Event], int | None]] = attrs.field(factory=Counter)
    _named: set[str] = attrs.field(factory=set)
    """The jobs whose ids the process has emitted."""
    _matched: dict[str, str] = attrs.field(factory=dict)
    """By job, the request that it was matched to."""
    _shown: set[str] = attrs.field(factory=set)
    _polls: float = 0.0
    _polled: float = 0.0

    def __attrs_post_init__(self) -> None:
        self._items = self.line_state.start_run(self.run)

    @property
    def now(self) -> float:
        """Seconds on the world's clock."""
        return asyncio.get_running_loop().time()

    def fail(self, text: str) -> None:
        """Report a broken rule."""
        self.line_state.fail(text)

    # What it sends

    def check_post(self, post: Post) -> None:
        """Check a POST that leaves."""
        line_state, run, request = self.line_state, self.run, post.request
        self.posts.append(post)
        line_state.posts.append(post)
        if (paid_posts := len(line_state.paid_posts(request))) > (
            asked := line_state.count_requested(request, run)
        ):
            self.fail(f"bought twice: POST {paid_posts} of {request}, and {asked} are allowed")
        posts_in_flight = [one for one in self.posts if one.fate == "in flight"]
        if len(posts_in_flight) > run.max_concurrent_submits:
            self.fail(
                f"too fast: {len(posts_in_flight)} POSTs in flight, {run.max_concurrent_submits} allowed"
            )
        in_flight = len(posts_in_flight) + sum(1 for job in self._in_flight.values() if job.ends > self.now)
        if in_flight > run.max_concurrency:
            self.fail(f"too many: {in_flight} jobs in flight, {run.max_concurrency} allowed")
        if run.cap is not None and len(line_state.paid_posts()) > run.cap:
            self.fail(f"above the cap: POST {len(line_state.paid_posts())} of at most {run.cap}")
        if self.now > self._began + run.ending.at:
            self.fail(f"too late: a POST of {request} after the batch was left")
        self._check_quota()
        in_flight = sum(1 for one in posts_in_flight if one.request == request)
        # What this process holds no longer, another one may have reconciled meanwhile.
        line_state.check_written_ahead(post, in_flight=1 if line_state.is_shared else in_flight)

    def _check_quota(self) -> None:
        """All processes together send no more POSTs than the hourly limit has allowed since the first turn."""
        hourly, disk = self.run.max_submits_per_hour, self.line_state.disk
        posts = sum(1 for post in self.line_state.posts if post.has_connection)
        if hourly is None or not isinstance(disk, SharedDatabase):
            return
        burst = max(1.0, min(self.run.max_concurrent_submits, hourly))
        allowed = burst + (self.now - disk.first_turn_at) * hourly / 3600
        if posts > allowed + 0.001:
            self.fail(f"too fast: {posts} POSTs of all processes, {allowed:.1f} allowed by now")

    def check_poll(self) -> None:
        """Check the rate of status and list calls."""
        rate = self.run.max_polls_per_second
        self._polls = max(0.0, self._polls - (self.now - self._polled) * rate) + 1
        self._polled = self.now
        if self._polls > max(1.0, rate) + 1.001:
            self.fail(f"too fast: {self._polls:.1f} calls at once, {rate} a second allowed")

    # What it is told

    def note_shown(self, job: Job) -> None:
        """Note that a list showed a job to the process."""
        self._shown.add(job.id)

    def check_event(self, event: Event) -> None:
        """Check an event of the process."""
        self._events[type(event), event.index] += 1
        if isinstance(event, SubmitReconciled):
            assert event.index is not None
            self._check_match(self.line_state.all_jobs[event.job.request_id], self._items[event.index][1])
        if isinstance(event, Submitted | SubmitReconciled | Resumed) and event.request_id is not None:
            self._named.add(event.request_id)
            self._in_flight[event.request_id] = self.line_state.all_jobs[event.request_id]
        if isinstance(event, Finished):
            self._in_flight.pop(event.request_id or "", None)

    def _check_match(self, job: Job, request: str) -> None:
        """A submit is matched to its own job, or to a job that cannot be distinguished from it."""
        if job.id in self._named:
            self.fail(f"two owners: {job.id} is matched though it has an owner")
        if job.post is None:
            self.fail(f"stolen: the old job {job.id} is matched")
        elif job.post.line != self.line_state.number:
            self._check_stranger(job, request)
        elif job.post.request != request and not self.line_state.accept_replacement(job, request):
            self.fail(f"mistaken: {job.id} of {job.post.request} is matched to {request}")
        self._matched[job.id] = request
        if self.line_state.disk is None:
            self.line_state.matched[job.id] = request

    def _check_stranger(self, job: Job, request: str) -> None:
        """A stranger's job is matched only in place of a job that the list does not show."""
        line_state, kept = self.line_state, self.line_state.recorded_ids()
        knows_organization = any(post.told_organization_at < self.now for post in self.posts)
        if knows_organization and job.emulated.organization_id != line_state.organization:
            self.fail(f"stolen: {job.id} of another organization is matched")
        replaced = line_state.strangers[
            request
        ]  # as many of our own jobs can be listed now without a submit to match
        line_state.strangers[request] += 1
        if line_state.disk is None:
            lost = self._count_events(SubmitLost)[request] - self._count_events(SubmitReconciled)[request] + 1
        else:
            fresh = [id_ for id_, whose in self._matched.items() if whose == request and id_ not in kept]
            lost = line_state.count_open_intents(request) - len(fresh)
        own = [
            one.id
            for one in line_state.find_unowned(request)
            if one.id in self._shown and one.id not in self._named and one.emulated.vanishes_at > self.now
        ]
        if lost < 1 + len(own) - replaced:
            self.fail(
                f"stolen: {job.id} is matched, {lost} submits of {request} are lost, and {own} were shown"
            )

    def _count_events(self, kind: type[Event]) -> Counter[str]:
        """By request, the number of events of one type."""
        output: Counter[str] = Counter()
        for (event, index), number in self._events.items():
            if event is kind and index is not None:
                output[self._items[index][1]] += number
        return output

    # What it gives

    def check_result(self, result: Result) -> None:
        """Check a result that the caller gets."""
        if result.index in self.results or not 0 <= result.index < len(self._items):
            self.fail(f"result {result.index} comes twice, or has a wrong index")
            return
        self.results[result.index] = result
        if (times := self._events[Finished, result.index]) != 1:
            self.fail(f"result {result.index} has {times} Finished events")
        if result.state is ResultState.NOT_SUBMITTED:
            self._check_not_submitted(result)
        elif result.state is ResultState.AMBIGUOUS:
            self._check_ambiguous(self._items[result.index][1])
        elif result.job is not None:
            self._check_job(result, result.job.request_id)

    def _check_not_submitted(self, result: Result) -> None:
        """An item that is not submitted has neither a job nor an unresolved POST."""
        if self.journal is None or self.line_state.is_shared:
            return  # another process may have submitted it since
        for entry in self.journal.entries():
            item = (entry.identity.key, request_text(entry.model, entry.payload), entry.identity.occurrence)
            may_have_job = entry.request_id is not None or entry.state in UNRESOLVED
            if item == self._items[result.index] and may_have_job:
                self.fail(f"denied: {item} is reported as not submitted, and the journal says {entry.state}")

    def _check_ambiguous(self, request: str) -> None:
        """No more items are ambiguous than submits were lost."""
        states = (result.state for i, result in self.results.items() if self._items[i][1] == request)
        ambiguous = sum(1 for state in states if state is ResultState.AMBIGUOUS)
        if self.line_state.disk is None or self.line_state.is_shared:
            return  # another process may have found the job since
        if ambiguous > self.line_state.count_open_intents(request):
            self.fail(
                f"too many ambiguous: {ambiguous} items of {request} are ambiguous, more than the journal has"
            )

    def _check_job(self, result: Result, id_: str) -> None:
        """A result is about its own job, and agrees with the service."""
        request = self._items[result.index][1]
        if (owner := self._owners.setdefault(id_, result.index)) != result.index:
            self.fail(f"two owners: {id_} is the job of results {owner} and {result.index}")
        job = self.line_state.all_jobs[id_]
        is_own = job.post is not None and job.post.line == self.line_state.number
        if is_own and job.post.request != request and id_ not in self.line_state.replaced:
            self.fail(f"mistaken: {id_} of {job.post.request} is the result of {request}")
        is_final = result.job is not None and result.job.is_final
        if is_final and (job.ends > self.now or _ENDS[job.final] is not result.state):
            self.fail(
                f"untrue: result {result.index} is {result.state}, and {id_} {job.emulated.status_at(now=self.now)[0]}"
            )

    # Its end

    def check_end(self, error: BaseException | None) -> None:
        """Check the end of a process that was not killed."""
        ending = self.run.ending
        if error is not None and not self._is_expected(error):
            self.fail(f"raised: {error!r}")
        if ending.how == "finish" and error is None and len(self.results) != len(self._items):
            self.fail(f"only {len(self.results)} of {len(self._items)} results came")
        if (late := self.now - self._began - ending.at) > self.run.timeout + _GRACE:
            self.fail(f"leaving took {late:.0f} s")
        for fate, kind in (("in flight", None), ("answered", Submitted), ("unknown", SubmitLost)):
            sent = Counter(post.request for post in self.posts if post.fate == fate)
            if sent != (output := self._count_events(kind) if kind else Counter()):
                self.fail(
                    f"missing events: of POSTs {fate} there were {dict(sent)}, and events of {dict(output)}"
                )

    def _is_expected(self, error: BaseException) -> bool:
        if isinstance(error, asyncio.CancelledError):
            return self.run.ending.how == "cancel"
        return isinstance(error, JournalError) and bool(self.run.full_disk[1] or self.run.cuts)
