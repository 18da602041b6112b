"""The state of a line of processes: its POSTs, its jobs, and the entries of its journal on the disk."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import attrs
from virtual_store import MemoryStore

from kling_async import VideoRequest
from kling_async._journal.entry import Entry, EntryState
from kling_async._wire.payloads import payload_of
from kling_async.requests import model_of

from .jobs import Job, Post, request_text
from .scenario import Run
from .shared_database import SharedDatabase

PRICE = Decimal("0.35")
_LONGEST_WAY = 60.0
"""Seconds after which a POST that is not accepted yet was lost, unless the job is late."""
UNRESOLVED = frozenset({EntryState.INTENDED, EntryState.AMBIGUOUS})

Item = tuple[str | None, str, int]
"""The identity of an item across runs: its key, its request as text, and its number among equal ones."""


def items_of(requests: Sequence[VideoRequest]) -> list[Item]:
    """The identity of each request, in their order."""
    seen: Counter[tuple[str | None, str]] = Counter()
    items = []
    for request in requests:
        text = request_text(model_of(request), payload_of(request))
        items.append((request.key, text, seen[request.key, text]))
        seen[request.key, text] += 1
    return items


@attrs.define(eq=False, kw_only=True)
class LineState:
    """The POSTs and jobs of all processes of a line."""

    number: int
    disk: MemoryStore | SharedDatabase | None
    """The journal's disk; None without a journal."""
    has_price: bool
    organization: str
    """The organization of its key."""
    fail: Callable[[str], None]
    all_jobs: Mapping[str, Job]
    """The jobs of all lines, by id."""
    posts: list[Post] = attrs.field(factory=list)
    jobs: list[Job] = attrs.field(factory=list)
    items: dict[Item, VideoRequest] = attrs.field(factory=dict)
    strangers: Counter[str] = attrs.field(factory=Counter)
    """By request, how many jobs of other lines were matched to submits of this line."""
    matched: dict[str, str] = attrs.field(factory=dict)
    """By job, the request that it was matched to; only without a journal."""
    replaced: set[str] = attrs.field(factory=set)
    """Jobs of this line that were matched to another request, because a stranger's job was matched to their own."""
    resends: Counter[str] = attrs.field(factory=Counter)
    """By request, how many ambiguous POSTs the caller allowed to send again."""
    stops: int = 0
    """How often a process of it stood still."""
    cuts: int = 0
    """How often a process of it was cut off from its journal."""
    retries: Counter[str] = attrs.field(factory=Counter)
    """By request, how many failed jobs the caller allowed to submit again."""

    @property
    def is_shared(self) -> bool:
        """Whether several processes write the journal at the same time."""
        return isinstance(self.disk, SharedDatabase)

    def start_run(self, run: Run) -> list[Item]:
        """Note that the next run begins; returns the identities of its items."""
        items = items_of(run.requests)
        self.items.update(zip(items, run.requests, strict=True))
        for request in {item[1] for item in items}:
            self._apply_settings(run, request)
        return items

    def paid_posts(self, request: str | None = None) -> list[Post]:
        """The POSTs that were, or may have been, accepted."""
        return [post for post in self.posts if post.fate != "refused" and request in {None, post.request}]

    def count_requested(self, request: str, run: Run) -> int:
        """How many POSTs of a request the caller has allowed until now."""
        self._apply_settings(run, request)
        items = sum(1 for item in self.items if item[1] == request)
        throttled = sum(1 for job in self.jobs_of(request) if job.is_throttled)
        return items + throttled + self.resends[request] + self.retries[request]

    def _apply_settings(self, run: Run, request: str) -> None:
        """Count the POSTs that `on_ambiguous` and `retry_failed` of a run allow."""
        if run.on_ambiguous == "resend_absent":
            self.resends[request] = max(self.resends[request], self._count_absent(request))
        if run.on_ambiguous == "resend":
            kept = self.recorded_ids()
            has_fate = (
                post.fate == "in flight" or (post.job and post.job.id in kept)
                for post in self.paid_posts(request)
            )
            self.resends[request] = max(
                self.resends[request], sum(1 for is_known in has_fate if not is_known)
            )
        if run.retry_failed:
            failures = (job.has_failed for job in self.jobs_of(request))
            self.retries[request] = max(self.retries[request], sum(failures))

    def _count_absent(self, request: str) -> int:
        """How many POSTs of a request left no job that the list would show by now."""
        now = asyncio.get_running_loop().time()
        return sum(
            1
            for post in self.paid_posts(request)
            if (post.job is None and now > post.sent + _LONGEST_WAY)
            or (post.job is not None and (post.job.is_late or post.job.is_hidden))
        )

    def jobs_of(self, request: str) -> list[Job]:
        """The jobs of a request, including jobs of others that were matched to it."""
        owned = {entry.request_id for entry in self.read_entries() if _entry_text(entry) == request}
        owned |= {id_ for id_, whose in self.matched.items() if whose == request}
        return [
            job
            for job in self.all_jobs.values()
            if job.id in owned or (job.post and job.post.line == self.number and job.post.request == request)
        ]

    def add_job(self, job: Job) -> None:
        """Note that the service accepted a POST of this line."""
        self.jobs.append(job)
        self.check_recorded()

    def accept_replacement(self, job: Job, request: str) -> bool:
        """Whether a job can be matched to another request because a stranger's job was matched to its own; notes it."""
        assert job.post is not None
        if not self.strangers[job.post.request]:
            return False
        self.strangers[request] += 1
        self.replaced.add(job.id)
        return True

    # The disk

    def read_entries(self) -> list[Entry]:
        """All entries on the disk, and the earlier attempts of entries that were sent again."""
        return [*self.disk.kept.values(), *self.disk.earlier.values()] if self.disk else []

    def recorded_ids(self) -> set[str]:
        """The ids of all jobs on the disk."""
        return {entry.request_id for entry in self.read_entries() if entry.request_id is not None}

    def count_open_intents(self, request: str) -> int:
        """How many POSTs of a request are without an answer on the disk."""
        return sum(
            1
            for entry in self.read_entries()
            if entry.request_id is None and entry.state in UNRESOLVED and _entry_text(entry) == request
        )

    def has_open_intent_by_machine_time(self, request: str) -> bool:
        """Whether a POST without an answer was recorded by the clock of a machine: the service did not tell its time before."""
        return any(
            not entry.has_service_time
            for entry in self.read_entries()
            if entry.request_id is None and entry.state in UNRESOLVED and _entry_text(entry) == request
        )

    def find_unowned(self, request: str) -> list[Job]:
        """The jobs of a request without an owner that a list scan can find now."""
        kept = self.recorded_ids()
        return [
            job
            for job in self.jobs
            if job.post
            and job.post.request == request
            and job.id not in kept
            and job.emulated.payload_echo
            and not job.is_late
        ]

    def count_missing(self) -> Counter[str]:
        """By request, how many jobs are on the disk neither by id nor as an unresolved intent."""
        kept = self.recorded_ids()
        unrecorded = Counter(job.post.request for job in self.jobs if job.post and job.id not in kept)
        return Counter(
            {
                request: max(0, number - self.count_open_intents(request))
                for request, number in unrecorded.items()
            }
        )

    def check_recorded(self) -> None:
        """Each accepted job is on the disk, unless a stranger's job was matched instead of it."""
        if self.disk is None:
            return
        owners = {
            (entry.request_id, entry.number) for entry in self.read_entries() if entry.request_id is not None
        }
        kept = Counter(id_ for id_, _ in owners)
        if twice := [id_ for id_, number in kept.items() if number > 1]:
            self.fail(f"two owners: the journal has {twice} as the jobs of two items each")
        for request, number in self.count_missing().items():
            if number > self.strangers[request]:
                self.fail(f"lost: {number} jobs of {request} are not in the journal")

    def check_written_ahead(self, post: Post, *, in_flight: int) -> None:
        """The intent of a POST is on the disk before it leaves."""
        if self.disk is None:
            return
        entries = [entry for entry in self.disk.kept.values() if _entry_text(entry) == post.request]
        if sum(1 for entry in entries if entry.state is EntryState.INTENDED) < in_flight:
            self.fail(f"not written ahead: a POST of {post.request} leaves without an intent on the disk")
        if sum(entry.attempts for entry in entries) < len(self.paid_posts(post.request)):
            self.fail(f"not written ahead: the disk has fewer POSTs of {post.request} than were sent")

    def check_spent(self) -> None:
        """The journal counts the money of every accepted POST."""
        if self.disk is None or not self.has_price:
            return
        counted = sum(entry.attempts for entry in self.disk.kept.values())
        if self.disk.spent_usd() != PRICE * counted:
            self.fail(f"miscounted: {counted} POSTs count as ${self.disk.spent_usd()}")
        if counted < len(self.jobs):
            self.fail(f"miscounted: the journal counts {counted} POSTs, and {len(self.jobs)} were accepted")


def _entry_text(entry: Entry) -> str:
    return request_text(entry.model, entry.payload)
