"""What a line of processes has bought, and what its journal has of it on the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import attrs
from virtual_store import MemoryStore

from kling_async import VideoRequest
from kling_async._journal.entry import Entry, EntryState
from kling_async._wire.codec import payload_of
from kling_async.requests import model_of

from .plan import Run
from .service import RATE_LIMIT, Job, Post, kind_of

PRICE = Decimal("0.35")
UNRECONCILED = frozenset({EntryState.INTENDED, EntryState.AMBIGUOUS})

Thing = tuple[str | None, str, int]
"""What stays the same from run to run: the key, what is sent, and which of those alike it is."""


def things_of(requests: Sequence[VideoRequest]) -> list[Thing]:
    """What each request is, from the first to the last."""
    seen: Counter[tuple[str | None, str]] = Counter()
    things = []
    for request in requests:
        what = kind_of(model_of(request), payload_of(request))
        things.append((request.key, what, seen[request.key, what]))
        seen[request.key, what] += 1
    return things


@attrs.define(eq=False, kw_only=True)
class Ledger:
    """The sum of all processes of a line."""

    number: int
    disk: MemoryStore | None
    """What its journal has written down for good; None without a journal."""
    has_price: bool
    fail: Callable[[str], None]
    all_jobs: Mapping[str, Job]
    """Those of others too."""
    posts: list[Post] = attrs.field(factory=list)
    jobs: list[Job] = attrs.field(factory=list)
    things: dict[Thing, VideoRequest] = attrs.field(factory=dict)
    strangers: Counter[str] = attrs.field(factory=Counter)
    """Jobs of the other line that were taken for our own, by what was asked for."""
    reconciled: dict[str, str] = attrs.field(factory=dict)
    """The request for which each job was taken, where no journal says so."""
    passed_on: set[str] = attrs.field(factory=set)
    """Our own jobs that had lost their place to a stranger's, and were taken for something that asks for less."""
    resends: Counter[str] = attrs.field(factory=Counter)
    """How many POSTs of unknown fate the caller said to send again, by what they ask for."""
    retries: Counter[str] = attrs.field(factory=Counter)
    """The same of jobs that failed."""

    def begins(self, run: Run) -> list[Thing]:
        """Another run of the line begins."""
        things = things_of(run.requests)
        self.things.update(zip(things, run.requests, strict=True))
        for what in {thing[1] for thing in things}:
            self._heed(run, what)
        return things

    def paid(self, what: str | None = None) -> list[Post]:
        """The POSTs that were, or may have been, accepted."""
        return [post for post in self.posts if post.fate != "refused" and what in {None, post.what}]

    def asked_for(self, what: str, run: Run) -> int:
        """How many POSTs of a kind the caller has asked for by now, in so many words or not."""
        self._heed(run, what)
        things = sum(1 for thing in self.things if thing[1] == what)
        throttled = sum(1 for job in self.jobs_of(what) if job.error == RATE_LIMIT)
        return things + throttled + self.resends[what] + self.retries[what]

    def _heed(self, run: Run, what: str) -> None:
        """Take the caller at his word."""
        if run.on_ambiguous == "resend":
            kept = self.kept_ids()
            reconciled = (
                post.fate == "in flight" or (post.job and post.job.id in kept) for post in self.paid(what)
            )
            self.resends[what] = max(
                self.resends[what], sum(1 for is_reconciled in reconciled if not is_reconciled)
            )
        if run.retry_failed:
            failures = (job.final != "success" and job.error is None for job in self.jobs_of(what))
            self.retries[what] = max(self.retries[what], sum(failures))

    def jobs_of(self, what: str) -> list[Job]:
        """The jobs of one kind, those included that were taken for our own."""
        taken = {entry.request_id for entry in self.read_entries() if _kind(entry) == what}
        taken |= {id_ for id_, whose in self.reconciled.items() if whose == what}
        return [
            job
            for job in self.all_jobs.values()
            if job.id in taken or (job.post and job.post.line == self.number and job.post.what == what)
        ]

    def record_job(self, job: Job) -> None:
        """The service took a job of this line."""
        self.jobs.append(job)
        self.check_kept()

    def passes_on(self, job: Job, what: str) -> bool:
        """Whether a job is taken for something else only because a stranger's was taken in its own place."""
        assert job.post is not None
        if not self.strangers[job.post.what]:
            return False
        self.strangers[what] += 1
        self.passed_on.add(job.id)
        return True

    # The disk

    def read_entries(self) -> list[Entry]:
        """What the disk knows: each entry, and what it was before it was sent again."""
        return [*self.disk.kept.values(), *self.disk.earlier.values()] if self.disk else []

    def kept_ids(self) -> set[str]:
        """The jobs that the disk knows by their ids."""
        return {entry.request_id for entry in self.read_entries() if entry.request_id is not None}

    def open_intents(self, what: str) -> int:
        """How many POSTs of one kind have an unknown fate, by the disk."""
        return sum(
            1
            for entry in self.read_entries()
            if entry.request_id is None and entry.state in UNRECONCILED and _kind(entry) == what
        )

    def find_unowned(self, what: str) -> list[Job]:
        """The jobs of one kind without an owner, which a scan can find now."""
        kept = self.kept_ids()
        return [
            job
            for job in self.jobs
            if job.post and job.post.what == what and job.id not in kept and job.has_echo and not job.is_late
        ]

    def count_missing(self) -> Counter[str]:
        """How many jobs of each kind are on the disk neither by their id nor as an intent that is not reconciled."""
        kept = self.kept_ids()
        untold = Counter(job.post.what for job in self.jobs if job.post and job.id not in kept)
        return Counter({what: max(0, number - self.open_intents(what)) for what, number in untold.items()})

    def check_kept(self) -> None:
        """Each accepted job is on the disk, but for those in whose place a stranger's was taken."""
        if self.disk is None:
            return
        owners = {
            (entry.request_id, entry.number) for entry in self.read_entries() if entry.request_id is not None
        }
        kept = Counter(id_ for id_, _ in owners)
        if twice := [id_ for id_, number in kept.items() if number > 1]:
            self.fail(f"two owners: the journal has {twice} as the jobs of two items each")
        for what, number in self.count_missing().items():
            if number > self.strangers[what]:
                self.fail(f"lost: {number} jobs of {what} are nowhere in the journal")

    def check_written_ahead(self, post: Post, *, in_flight: int) -> None:
        """The disk knows of a POST before it leaves."""
        if self.disk is None:
            return
        alike = [entry for entry in self.disk.kept.values() if _kind(entry) == post.what]
        if sum(1 for entry in alike if entry.state is EntryState.INTENDED) < in_flight:
            self.fail(f"not written ahead: a POST of {post.what} leaves without an intent on the disk")
        if sum(entry.attempts for entry in alike) < len(self.paid(post.what)):
            self.fail(f"not written ahead: the disk knows of fewer POSTs of {post.what} than were sent")

    def check_spent(self) -> None:
        """The journal counts what was bought, and never too little."""
        if self.disk is None or not self.has_price:
            return
        counted = sum(entry.attempts for entry in self.disk.kept.values())
        if self.disk.spent_usd() != PRICE * counted:
            self.fail(f"miscounted: {counted} POSTs are down for ${self.disk.spent_usd()}")
        if counted < len(self.jobs):
            self.fail(f"miscounted: the journal counts {counted} POSTs, and {len(self.jobs)} were accepted")


def _kind(entry: Entry) -> str:
    return kind_of(entry.model, entry.payload)
