"""Lost submits: the service's own list shows their jobs, or they stay ambiguous; no job is guessed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.shared_state import SharedState, UnresolvedSubmit
from kling_async._engine.submit.list_jobs import MAX_PAGES, read_since, read_whole
from kling_async._journal.entry import Entry
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.store import Activity
from kling_async._policy.job_owners import JournalRun
from kling_async._policy.list_evidence import ListReading, explain_unmatched, is_absent
from kling_async._policy.lost_submit import LostSubmit, last_answer_age, lost_submit, recorded_submit
from kling_async._policy.matching import (
    could_match,
    earliest_creation,
    look_alike_group,
    match_jobs,
    select_candidates,
    select_recent,
)
from kling_async._policy.retry import backoff, is_transient
from kling_async._policy.scan_delays import proof_delays, scan_delays
from kling_async._policy.service_clock import Instant
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import STATUS
from kling_async.errors import AmbiguousSubmitError, JournalError, KlingError
from kling_async.jobs import Job, canonical_id, spellings
from kling_async.types import OnAmbiguous

T = TypeVar("T")

_ROWS_AT_ONCE = 1000
"""Rows on which a policy decides on the event loop; on more rows it decides in a thread."""
_FEW_PAGES = 20
"""Pages of a list that are read for a proof which no caller has asked for."""
_MAX_ROWS = 10_000
"""Rows of a model's list that are remembered while nothing is reconciled."""


@attrs.define(eq=False, kw_only=True)
class OpenReconciliation:
    """The search for the job of one lost submit; open from the loss until `Reconciler.reconcile` returns."""

    model: str
    lost: LostSubmit
    error: KlingError
    """The error that the POST ended with."""
    journal: WriteAheadJournal | None
    """The journal that knows the submit."""
    entry_number: int | None
    """The number of its journal entry."""
    job: Job | None = None
    """The job, once it is found."""
    scanned_at: float = float("-inf")
    """When the last scan that served it began, by the engine's clock."""
    read_whole_at: float = float("-inf")
    """The same, of the scans that read the whole list."""
    last_age: float = 0.0
    """The search goes on until the POST is so many seconds old."""
    is_absent: bool = False
    """Whether the list proves that the service has no job of the submit."""
    list_error: KlingError | None = None
    """Why the list cannot be read, if that ended the search."""
    is_found: anyio.Event = attrs.field(factory=anyio.Event)


@attrs.define(eq=False)
class PostInFlight:
    """A POST from just before it leaves until `Reconciler.end_post`."""

    reconciler: Reconciler
    model: str
    payload: Mapping[str, Any]

    def open_reconciliation(
        self,
        error: KlingError,
        *,
        sent: Instant,
        journal: WriteAheadJournal | None,
        entry_number: int | None,
    ) -> OpenReconciliation:
        """Open the reconciliation of this POST, sent at this instant: from now on no look-alike leaves."""
        given_up = self.reconciler.api.instant()
        reconciliation = OpenReconciliation(
            model=self.model,
            lost=lost_submit(self.payload, sent=sent, given_up=given_up),
            error=error,
            journal=journal,
            entry_number=entry_number,
        )
        self.reconciler.begin(reconciliation)
        return reconciliation


class Reconciler:
    """Finds the jobs of lost submits, for all batches of the client together, so that none takes another's job.

    While a submit is reconciled, no request is sent whose job could match it: jobs in the list are then told apart
    by their number.

    Args:
        api: Sends the list calls.
        shared: The rate of list calls and the owners of jobs. An outage of the list ends a reconciliation after
            the `wait_timeout` of its `polling`.
    """

    def __init__(self, api: ApiCaller, shared: SharedState) -> None:
        self.api = api
        self._shared = shared
        shared.cover_timeout(api.timeout)
        self._open: list[OpenReconciliation] = []
        self._rows: defaultdict[str, dict[str, Job]] = defaultdict(dict)
        """By model and canonical id, the rows of all scans, broken-off ones included: a list that changes may skip a row in the next scan."""
        self._posts: set[PostInFlight] = set()
        self._scanning = anyio.Lock()
        self._changed = anyio.Event()

    def assign_job(self, request_id: str, journal: WriteAheadJournal | None) -> bool:
        """Note that a job belongs to an item of this journal; False if it belongs to another item, also one of an earlier run."""
        owner = JournalRun() if journal is None else journal.owner
        return self._shared.job_owners.add(request_id, owner, now=self.api.clock.now(), keep=bool(self._open))

    def assign_answered_job(self, job: Job, journal: WriteAheadJournal | None) -> bool:
        """The same for the job that the answer to a POST names: its record is that of a job of this client's user."""
        is_free, shared = self.assign_job(job.request_id, journal), self._shared
        if is_free and not shared.own_user.is_known:
            shared.own_user.learn(job)
            shared.answered.add(job.request_id, now=self.api.clock.now(), keep=bool(self._open))
        return is_free

    def _learn_user(self, rows: Iterable[Job]) -> None:
        """Learn the user of the key from the rows of jobs that are certainly this client's."""
        for row in rows:
            if row.request_id in self._shared.answered:
                self._shared.own_user.learn(row)

    def register_post(self, model: str, payload: Mapping[str, Any]) -> PostInFlight | None:
        """Register a POST that is about to leave; None if its job could match a submit that is reconciled now."""
        if self._is_blocked(model, payload):
            return None
        post = PostInFlight(self, model, payload)
        self._posts.add(post)
        return post

    def end_post(self, post: PostInFlight) -> None:
        """End the registration of a POST: it was answered, lost, or never sent."""
        self._posts.remove(post)
        if self._open:
            self._signal()

    def _is_blocked(self, model: str, payload: Mapping[str, Any]) -> bool:
        return bool(self._open) and any(
            one.model == model and could_match(payload, one.lost.payload) for one in self._open
        )

    async def wait_unblocked(self, model: str, payload: Mapping[str, Any]) -> None:
        """Wait while the job of such a request could match a submit that is reconciled now."""
        while self._is_blocked(model, payload):
            await self._changed.wait()

    def begin(self, reconciliation: OpenReconciliation) -> None:
        """Begin a reconciliation; `reconcile` goes through with it, or `end` ends it."""
        self._open.append(reconciliation)

    def begin_for_entry(self, entry: Entry, journal: WriteAheadJournal) -> OpenReconciliation:
        """Begin the reconciliation for a POST that an earlier process sent and never got an answer to."""
        reconciliation = OpenReconciliation(
            model=entry.model,
            lost=self._lost_submit(entry),
            error=KlingError("an earlier run got no answer"),
            journal=journal,
            entry_number=entry.number,
            # A process that was cut off from a shared journal, and not from the service, may still get the answer.
            last_age=0.0 if journal.sharing is None else last_answer_age(self._timeout_of(entry)),
        )
        self._shared.forget_unresolved(_location(journal), entry.number)
        self.begin(reconciliation)
        return reconciliation

    def _lost_submit(self, entry: Entry) -> LostSubmit:
        return recorded_submit(
            entry.payload,
            sent_at=entry.sent_at if entry.sent_at is not None else self.api.service_time(),
            timeout=self._timeout_of(entry),
            is_service_time=entry.has_service_time,
            times_set=self.api.instant().times_set,
        )

    def _timeout_of(self, entry: Entry) -> float:
        """Seconds after which the sender of an entry's last POST gave the answer up; an older journal does not say it."""
        return self._shared.longest_timeout if entry.timeout is None else entry.timeout

    async def reconcile(
        self, reconciliation: OpenReconciliation, *, on_ambiguous: OnAmbiguous | None = None
    ) -> Job:
        """The job of a lost submit.

        Cancelling it leaves the submit ambiguous, as it was.

        Args:
            reconciliation: The lost submit.
            on_ambiguous: The option of the batch: `resend_absent` waits until the list can prove that there is no job.
                None outside a batch.

        Raises:
            AmbiguousSubmitError: The list does not show the job, or shows more than one that could match.
            JournalError: The journal cannot be read or written meanwhile.
            TakenOverError: Another process of a shared journal holds the item, and reconciles it.
        """
        try:
            await _tell_other_processes(reconciliation)
            reason = await self._search(reconciliation, may_wait=on_ambiguous == "resend_absent")
        finally:
            self.end(reconciliation)
        if reconciliation.job is not None:
            return reconciliation.job
        ambiguous = _ambiguous(reconciliation, reason, in_batch=on_ambiguous is not None)
        raise ambiguous from reconciliation.list_error

    def end(self, reconciliation: OpenReconciliation) -> None:
        """End a reconciliation, whether or not it found a job: look-alikes may leave again. A second end does nothing."""
        if reconciliation not in self._open:
            return
        self._open.remove(reconciliation)
        if reconciliation.journal is not None and reconciliation.entry_number is not None:
            reconciliation.journal.end_activity(reconciliation.entry_number, Activity.RECONCILIATION)
        if reconciliation.job is None:
            self._shared.unresolved.append(
                UnresolvedSubmit(
                    model=reconciliation.model,
                    lost=reconciliation.lost,
                    journal=_location(reconciliation.journal),
                    entry_number=reconciliation.entry_number,
                )
            )
        if not self._open:
            for rows in self._rows.values():
                for request_id in list(rows)[:-_MAX_ROWS]:
                    del rows[request_id]
        self._signal()

    async def _search(self, reconciliation: OpenReconciliation, *, may_wait: bool) -> str:
        """Scan the list again and again, until the job is found, is proven absent, or no scan is left.

        Returns the reason for which the job was not found.
        """
        began = self.api.clock.now()
        max_pages = MAX_PAGES if may_wait else _FEW_PAGES
        try:
            if reconciliation.lost.age(self.api.instant()) is None:
                # Its answer can show the service's clock.
                await self._scan_after(0.0, reconciliation, began=began)
            age = reconciliation.lost.age(self.api.instant()) or 0.0
            for delay in scan_delays(age, last_age=reconciliation.last_age):
                await self._scan_after(delay, reconciliation, began=began)
            now = self.api.instant()
            if now.offset is None or now.times_set != reconciliation.lost.times_set:
                return await self._explain(reconciliation)
            lost = reconciliation.lost.by_service_clock(now.offset)
            for delay in proof_delays(lost, now=now.time, may_wait=may_wait):
                if not reconciliation.is_absent:
                    await self._scan_after(delay, reconciliation, began=began, max_pages=max_pages)
        except JournalError:
            raise  # the list may show the job, and the journal does not say whose it is
        except KlingError as error:
            reconciliation.list_error = error
            return f"the list cannot be read: {error.message.rstrip('.')}"
        return await self._explain(reconciliation)

    async def _scan_after(
        self, delay: float, reconciliation: OpenReconciliation, *, began: float, max_pages: int | None = None
    ) -> None:
        """Wait, then scan the list once, unless the job is found meanwhile; an outage or a look-alike puts the scan off.

        Raises:
            KlingError: The list cannot be read, and the error does not go away within the `wait_timeout` of the client.
        """
        clock, wait_timeout, failures = self.api.clock, self._shared.polling.wait_timeout, 0
        while reconciliation.job is None:
            with anyio.move_on_after(delay):
                await reconciliation.is_found.wait()
            await self._wait_for_look_alikes(reconciliation)
            try:
                if await self._scan(reconciliation, max_pages=max_pages):
                    return
                delay = 0.0
            except KlingError as error:
                waited = clock.now() - began
                if not is_transient(error) or (wait_timeout is not None and waited > wait_timeout):
                    raise
                delay = backoff(self.api.retry, attempt=failures, jitter=self.api.rng.random())
                failures += 1

    async def _explain(self, reconciliation: OpenReconciliation) -> str:
        offset, journal = self.api.instant().offset, reconciliation.journal
        rows = list(self._rows[reconciliation.model].values())
        owned = await self._find_owned(
            (row.request_id for row in rows), dict.fromkeys([journal] if journal else [])
        )
        explain = partial(
            explain_unmatched,
            reconciliation.lost.by_service_clock(offset),
            rows,
            has_owner=lambda request_id: canonical_id(request_id) in owned,
            own=self._shared.own_user,
            is_clock_known=offset is not None,
        )
        return await _decide_on_rows(rows, explain)

    def _has_no_look_alike(self, reconciliation: OpenReconciliation) -> bool:
        """Whether no POST of this client is in flight whose job could match the lost one."""
        return not any(
            post.model == reconciliation.model and could_match(post.payload, reconciliation.lost.payload)
            for post in self._posts
        )

    async def _select_searchable(self, open_ones: list[OpenReconciliation]) -> list[OpenReconciliation]:
        """Those for which no look-alike is in flight, in this client or in another process of a shared journal."""
        shared = [one for one in open_ones if one.journal is not None and one.journal.sharing is not None]
        unclear: set[OpenReconciliation] = set()
        for journal in dict.fromkeys(one.journal for one in shared):
            assert journal is not None
            assert journal.sharing is not None
            here = {one.entry_number: one for one in shared if one.journal is journal}
            numbers = [number for number in here if number is not None]
            searchable = await journal.sharing.find_searchable(numbers)
            unclear.update(one for number, one in here.items() if number not in searchable)
        return [one for one in open_ones if one not in unclear and self._has_no_look_alike(one)]

    async def _wait_for_look_alikes(self, reconciliation: OpenReconciliation) -> None:
        """Wait while a look-alike is in flight, so that the jobs in the list can be told apart."""
        while True:
            while not self._has_no_look_alike(reconciliation):
                await self._changed.wait()
            journal = reconciliation.journal
            if journal is None or journal.sharing is None or await self._select_searchable([reconciliation]):
                return
            assert reconciliation.entry_number is not None
            journal.sharing.check_held(reconciliation.entry_number)
            await journal.sharing.wait_changed()

    async def _scan(self, reconciliation: OpenReconciliation, *, max_pages: int | None) -> bool:
        """Scan the model's list, for every open reconciliation of the model; one scan serves all that wait for one.

        Returns False if the list was not read, because a look-alike of another process can be in flight.

        Args:
            reconciliation: The reconciliation that wants the scan.
            max_pages: Read the whole list, if it has no more pages than these; None for the recent rows alone.
        """
        clock, model = self.api.clock, reconciliation.model
        wanted = clock.now()
        async with self._scanning:
            served_at = reconciliation.scanned_at if max_pages is None else reconciliation.read_whole_at
            if served_at >= wanted or reconciliation.job is not None:
                return True
            began = clock.now()
            unfound = [one for one in self._open if one.model == model and one.job is None]
            # While they are reconciled, no look-alike of them is sent, so this holds to the end of the scan.
            searchable = await self._select_searchable(unfound)
            if reconciliation not in searchable:  # since `_wait_for_look_alikes`, its session can have ended
                return False
            lost, others, reading = await self._read_rows(
                model,
                [one.lost for one in searchable],
                await self._other_lost_submits(unfound),
                max_pages=max_pages,
            )
            rows = list(self._rows[model].values())
            candidates = await _decide_on_rows(rows, partial(select_candidates, lost, rows, others=others))
            recent = {job.request_id for job in reading.recent} if reading is not None else set()
            journals = dict.fromkeys(one.journal for one in unfound if one.journal is not None)
            owned = await self._find_owned(candidates | recent, journals)
            match = partial(match_jobs, lost, rows, others=others, owned=owned, own=self._shared.own_user)
            found = await _decide_on_rows(rows, match)
            await self._assign_found(searchable, found, owned, began=began)
            if reading is not None:
                await self._prove_absent(searchable, lost, reading, owned, began=began)
            return True

    async def _assign_found(
        self, searched: list[OpenReconciliation], found: Mapping[int, Job], owned: set[str], *, began: float
    ) -> None:
        """Give the jobs that a scan found to their reconciliations, and add the jobs to those that have an owner.

        Args:
            searched: The reconciliations that the scan served.
            found: Their jobs, by index.
            owned: The canonical ids of the jobs that have an owner.
            began: When the scan began.
        """
        for index, one in enumerate(searched):
            one.scanned_at = began
            job = found.get(index)
            if job is None or not await self._is_shown_to_key(job):
                continue
            if self._shared.own_user.is_other(job):  # an answer has named the user of the key meanwhile
                continue
            if one in self._open and await _match_in_journal(one, job):
                one.job = job
                self.assign_job(job.request_id, one.journal)
                one.is_found.set()
                owned.add(canonical_id(job.request_id))

    async def _prove_absent(
        self,
        searched: list[OpenReconciliation],
        lost: list[LostSubmit],
        reading: ListReading,
        owned: set[str],
        *,
        began: float,
    ) -> None:
        """Say of each reconciliation without a job whether a reading of the whole list proves that there is none.

        Args:
            searched: The reconciliations that the scan served.
            lost: Their lost submits, with times by the service's clock.
            reading: What the scan read.
            owned: The canonical ids of the jobs that have an owner.
            began: When the scan began.
        """
        times_set = self.api.instant().times_set
        for one, submit in zip(searched, lost, strict=True):
            one.read_whole_at = began
            prove = partial(
                is_absent,
                submit,
                reading,
                has_owner=lambda request_id: canonical_id(request_id) in owned,
                own=self._shared.own_user,
            )
            # Times from before the clock of this machine was set cannot be compared with those from after.
            is_sure = one.job is None and one.lost.times_set == times_set
            one.is_absent = is_sure and await _decide_on_rows(reading.recent, prove)

    async def _is_shown_to_key(self, job: Job) -> bool:
        """Whether a status call shows a row's job to this key; asked only while the user of the key is unknown.

        The list has jobs that the status call does not show, such as those of the web console. A key that is not shown
        the job has not made the job.

        Raises:
            KlingError: The status call has no answer, and the same call can succeed later.
        """
        if self._shared.own_user.is_known:
            return True
        clock = self.api.clock
        await clock.sleep(self._shared.poll_rate.take(clock.now()))
        try:
            await self.api.send(STATUS, structure_job, id=job.request_id)
        except KlingError as error:
            if is_transient(error):
                raise
            return False
        return True

    async def _read_rows(
        self, model: str, lost: list[LostSubmit], others: list[LostSubmit], *, max_pages: int | None
    ) -> tuple[list[LostSubmit], list[LostSubmit], ListReading | None]:
        """Read the recent rows of a model's list; returns the submits with times by the service's clock.

        The first answer of the service can be a page of this list. Its `Date` then changes which rows are recent, so
        they are read again.
        """
        rows, reading = self._rows[model], None
        while True:
            offset = self.api.instant().offset
            dated = [one.by_service_clock(offset) for one in lost]
            dated_others = [one.by_service_clock(offset) for one in others]
            since, rate = earliest_creation(dated, dated_others), self._shared.poll_rate
            if max_pages is not None:
                reading = await read_whole(self.api, model, since=since, polls=rate, max_pages=max_pages)
                self._keep_rows(rows, reading.recent, [*dated, *dated_others])
            else:
                async for page in read_since(self.api, model, since=since, polls=rate):
                    self._keep_rows(rows, page, [*dated, *dated_others])
            if offset is not None or self.api.instant().offset is None:
                return dated, dated_others, reading

    def _keep_rows(self, rows: dict[str, Job], read: Sequence[Job], lost: Sequence[LostSubmit]) -> None:
        """Add those rows of a page that can be the job of a lost submit."""
        self._learn_user(read)
        rows.update((canonical_id(job.request_id), job) for job in select_recent(lost, read))

    async def _other_lost_submits(self, unfound: list[OpenReconciliation]) -> list[LostSubmit]:
        """The further lost submits of a model: those that cannot be reconciled now, or are reconciled by no caller."""
        model = unfound[0].model
        with_look_alikes = [one.lost for one in unfound if not self._has_no_look_alike(one)]
        # Several batches can have opened one journal: what it holds counts once.
        journals = {_location(one.journal): one.journal for one in unfound if one.journal is not None}
        remembered = tuple(self._shared.unresolved)
        unresolved = [one.lost for one in remembered if one.model == model and one.journal not in journals]
        for journal in journals.values():
            unresolved += await self._unresolved_in_journal(journal, model)
        return [*with_look_alikes, *unresolved]

    async def _unresolved_in_journal(self, journal: WriteAheadJournal, model: str) -> list[LostSubmit]:
        """The lost submits of a journal that no open reconciliation of this client is about."""
        entries = await journal.read_unresolved(model)
        searched = {one.entry_number for one in self._open if _location(one.journal) == _location(journal)}
        # An entry that was sent again comes twice, its earlier attempt first: only the last attempt is searched for.
        last = {entry.number: entry for entry in entries}
        return [
            self._lost_submit(entry)
            for entry in entries
            if entry.number not in searched or entry is not last[entry.number]
        ]

    async def _find_owned(
        self, request_ids: Iterable[str], journals: Iterable[WriteAheadJournal]
    ) -> set[str]:
        """The canonical ids of those jobs that belong to an item of this client, or of one of the journals."""
        wanted = {canonical_id(request_id): request_id for request_id in request_ids}
        present = {journal.owner.journal: journal.owner for journal in journals}
        owners = self._shared.job_owners
        owned = {request_id for request_id in wanted if owners.has_owner(request_id, present)}
        for journal in journals:
            # A journal has each id as the service wrote it.
            spelled = {one for id_ in wanted.keys() - owned for one in spellings(wanted[id_])}
            owned |= set(map(canonical_id, await journal.find_jobs(spelled)))
        return owned

    def _signal(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _location(journal: WriteAheadJournal | None) -> str | None:
    """The location of a journal, however often it is open; None without a journal."""
    return None if journal is None else journal.owner.journal


async def _decide_on_rows(rows: Sized, decide: Callable[[], T]) -> T:
    """The decision of a policy on rows of a list; on many rows it runs in a thread, so that other tasks have their turns."""
    return decide() if len(rows) <= _ROWS_AT_ONCE else await anyio.to_thread.run_sync(decide)


async def _tell_other_processes(reconciliation: OpenReconciliation) -> None:
    """Have no look-alike of another process sent while a submit of a shared journal is reconciled."""
    journal, number = reconciliation.journal, reconciliation.entry_number
    if journal is not None and journal.sharing is not None and number is not None:
        group = look_alike_group(reconciliation.lost.payload)
        await journal.sharing.begin_reconciliation(number, model=reconciliation.model, look_alikes=group)


async def _match_in_journal(reconciliation: OpenReconciliation, job: Job) -> bool:
    """Give a job to a lost submit of a shared journal; False if another process has given it to another one."""
    journal, number = reconciliation.journal, reconciliation.entry_number
    if journal is None or journal.sharing is None or number is None:
        return True
    return await journal.sharing.match_job(number, job.request_id)


def _ambiguous(reconciliation: OpenReconciliation, reason: str, *, in_batch: bool) -> AmbiguousSubmitError:
    error, model = reconciliation.error, reconciliation.model
    lost = error.message.rstrip(".")
    if reconciliation.is_absent:
        said = f"the service does not have this request ({lost}): it is absent from the whole list, which shows a later job"
        advice = (
            "Say on_ambiguous='resend_absent' to send it again." if in_batch else "You can submit it again."
        )
    else:
        said = f"the service may have taken this request ({lost}), and {reason}"
        advice = f"Look for it with `client.list_jobs({model!r})` before you submit it again."
        if in_batch:
            advice += (
                " on_ambiguous='resend_absent' sends it again once the list proves that it is absent, and 'resend' "
                "at once, at the risk of paying twice."
            )
    return AmbiguousSubmitError(
        f"submit: {said}. It was not sent again.",
        absent=reconciliation.is_absent,
        status_code=error.status_code,
        body=error.body,
        request_id=error.request_id,
        advice=advice,
    )
