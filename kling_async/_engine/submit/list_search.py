"""Searches a model's list for the jobs of lost submits: one scan serves all that are searched for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Sized
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.list_pages import read_since, read_whole
from kling_async._engine.shared_state import SharedState
from kling_async._engine.submit.look_alikes import LookAlikes
from kling_async._engine.submit.open_reconciliation import OpenReconciliation, lost_submit_of
from kling_async._engine.submit.owned_jobs import OwnedJobs
from kling_async._journal.journal import WriteAheadJournal
from kling_async._policy.list_evidence import ListReading, explain_unmatched, is_absent
from kling_async._policy.lost_submit import LostSubmit
from kling_async._policy.matching import earliest_creation, match_jobs, select_candidates, select_recent
from kling_async._policy.retry import is_transient
from kling_async._wire.codec import structure_job
from kling_async._wire.endpoints import STATUS
from kling_async.errors import KlingError
from kling_async.jobs import Job, canonical_id

T = TypeVar("T")

_MAX_ROWS_ON_LOOP = 1000
"""Rows on which a policy decides on the event loop, at the most; on more rows it decides in a thread."""
_MAX_ROWS = 10_000
"""Rows of a model's list that are remembered while nothing is reconciled."""


class ListSearch:
    """Finds the jobs of lost submits in the list, for all batches of the client together, so that none takes another's job.

    Args:
        api: Sends the list calls.
        shared: The rate of list calls, the user of the key, and the lost submits without a job.
        look_alikes: The open reconciliations, and those of them that can be searched for.
        owned_jobs: The jobs that have an owner.
    """

    def __init__(
        self, api: ApiCaller, shared: SharedState, look_alikes: LookAlikes, owned_jobs: OwnedJobs
    ) -> None:
        self._api = api
        self._shared = shared
        self._look_alikes = look_alikes
        self._owned_jobs = owned_jobs
        self._rows: defaultdict[str, dict[str, Job]] = defaultdict(dict)
        """By model and canonical id, the rows of all scans, broken-off ones included: a list that changes may skip a row in the next scan."""
        self._scanning = anyio.Lock()

    async def scan(self, reconciliation: OpenReconciliation, *, max_pages: int | None) -> bool:
        """Scan the model's list, for every open reconciliation of the model; one scan serves all that wait for one.

        Returns False if the list was not read, because a look-alike of another process can be in flight.

        Args:
            reconciliation: The reconciliation that wants the scan.
            max_pages: Read the whole list, if it has no more pages than these; None for the recent rows alone.
        """
        clock, model = self._api.clock, reconciliation.model
        wanted = clock.now()
        async with self._scanning:
            served_at = reconciliation.scanned_at if max_pages is None else reconciliation.read_whole_at
            if served_at >= wanted or reconciliation.job is not None:
                return True
            began = clock.now()
            unfound = [
                one for one in self._look_alikes.reconciliations if one.model == model and one.job is None
            ]
            # While they are reconciled, no look-alike of them is sent, so this holds to the end of the scan.
            searchable = await self._look_alikes.select_searchable(unfound)
            if reconciliation not in searchable:  # since `wait_searchable`, its session can have ended
                return False
            await self._scan_for(model, searchable, unfound, began=began, max_pages=max_pages)
            return True

    async def _scan_for(
        self,
        model: str,
        searchable: list[OpenReconciliation],
        unfound: list[OpenReconciliation],
        *,
        began: float,
        max_pages: int | None,
    ) -> None:
        """Scan the model's list for those that can be searched for now, among all that have no job."""
        lost, others, reading = await self._read_rows(
            model,
            [one.lost for one in searchable],
            await self._other_lost_submits(model, unfound),
            max_pages=max_pages,
        )
        rows = list(self._rows[model].values())
        candidates = await _decide_on_rows(rows, partial(select_candidates, lost, rows, others=others))
        recent = {job.request_id for job in reading.recent} if reading is not None else set()
        journals = dict.fromkeys(one.journal for one in unfound if one.journal is not None)
        owned = await self._owned_jobs.find(candidates | recent, journals)
        match = partial(match_jobs, lost, rows, others=others, owned=owned, own=self._shared.own_user)
        found = await _decide_on_rows(rows, match)
        await self._assign_found(searchable, found, owned, began=began)
        if reading is not None:
            await self._prove_absent(searchable, lost, reading, owned, began=began)

    async def explain(self, reconciliation: OpenReconciliation) -> str:
        """Why the rows that were read do not show the job, as the end of a sentence."""
        offset, journal = self._api.instant().offset, reconciliation.journal
        rows = list(self._rows[reconciliation.model].values())
        owned = await self._owned_jobs.find(
            (row.request_id for row in rows), dict.fromkeys([journal] if journal else [])
        )
        explain = partial(
            explain_unmatched,
            self._as_listed(reconciliation.lost, offset),
            rows,
            has_owner=lambda request_id: canonical_id(request_id) in owned,
            own=self._shared.own_user,
            is_clock_known=offset is not None,
        )
        return await _decide_on_rows(rows, explain)

    def forget_old_rows(self) -> None:
        """Forget all but the latest rows: nothing is reconciled now."""
        for rows in self._rows.values():
            for request_id in list(rows)[:-_MAX_ROWS]:
                del rows[request_id]

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
            if one in self._look_alikes.reconciliations and await _match_in_journal(one, job):
                one.job = job
                self._owned_jobs.assign(job.request_id, one.journal)
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
        now = self._api.instant()
        for one, submit in zip(searched, lost, strict=True):
            one.read_whole_at = began
            prove = partial(
                is_absent,
                submit,
                reading,
                now=now,
                has_owner=lambda request_id: canonical_id(request_id) in owned,
                own=self._shared.own_user,
            )
            one.is_absent = one.job is None and await _decide_on_rows(reading.recent, prove)

    async def _is_shown_to_key(self, job: Job) -> bool:
        """Whether a status call shows a row's job to this key; asked only while the user of the key is unknown.

        The list has jobs that the status call does not show, such as those of the web console. A key that is not shown
        the job has not made the job.

        Raises:
            KlingError: The status call has no answer, and the same call can succeed later.
        """
        if self._shared.own_user.is_known:
            return True
        await self._api.wait_turn(self._shared.poll_rate)
        try:
            await self._api.send(STATUS, structure_job, id=job.request_id)
        except KlingError as error:
            if is_transient(error):
                raise
            return False
        return True

    async def _read_rows(
        self, model: str, lost: list[LostSubmit], others: list[LostSubmit], *, max_pages: int | None
    ) -> tuple[list[LostSubmit], list[LostSubmit], ListReading | None]:
        """Read the recent rows of a model's list; returns the submits as `_as_listed`.

        The first answer of the service can be a page of this list. Its `Date` then changes which rows are recent, so
        they are read again.
        """
        rows, reading = self._rows[model], None
        while True:
            offset = self._api.instant().offset
            dated = [self._as_listed(one, offset) for one in lost]
            dated_others = [self._as_listed(one, offset) for one in others]
            since, rate = earliest_creation(dated, dated_others), self._shared.poll_rate
            if max_pages is not None:
                reading = await read_whole(self._api, model, since=since, polls=rate, max_pages=max_pages)
                self._keep_rows(rows, reading.recent, [*dated, *dated_others])
            else:
                async for page in read_since(self._api, model, since=since, polls=rate):
                    self._keep_rows(rows, page, [*dated, *dated_others])
            if offset is not None or self._api.instant().offset is None:
                return dated, dated_others, reading

    def _as_listed(self, lost: LostSubmit, offset: float | None) -> LostSubmit:
        """A lost submit as a row of the list shows it: with times by the service's clock, and without the key in its payload.

        A prompt can have the key in it. The rows show `***` there, and would be those of another request.
        """
        dated = lost.by_service_clock(offset)
        payload = self._api.secret.hide_in_value(lost.payload)
        return dated if payload == lost.payload else attrs.evolve(dated, payload=payload)

    def _keep_rows(self, rows: dict[str, Job], read: Sequence[Job], lost: Sequence[LostSubmit]) -> None:
        """Add those rows of a page that can be the job of a lost submit."""
        self._owned_jobs.learn_user(read)
        rows.update((canonical_id(job.request_id), job) for job in select_recent(lost, read))

    async def _other_lost_submits(self, model: str, unfound: list[OpenReconciliation]) -> list[LostSubmit]:
        """The further lost submits of a model: those that cannot be reconciled now, or are reconciled by no caller."""
        with_look_alikes = [one.lost for one in unfound if self._look_alikes.has_look_alike(one)]
        # Several batches can have opened one journal: what it holds counts once.
        journals = {one.location: one.journal for one in unfound if one.journal is not None}
        remembered = tuple(self._shared.unresolved)
        unresolved = [one.lost for one in remembered if one.model == model and one.journal not in journals]
        for journal in journals.values():
            unresolved += await self._unresolved_in_journal(journal, model)
        return [*with_look_alikes, *unresolved]

    async def _unresolved_in_journal(self, journal: WriteAheadJournal, model: str) -> list[LostSubmit]:
        """The lost submits of a journal that no open reconciliation of this client is about."""
        entries = await journal.sharing.find_unknown(model)
        open_ones = self._look_alikes.reconciliations
        searched = {one.entry_number for one in open_ones if one.location == journal.location}
        # An entry that was sent again comes twice, its earlier attempt first: only the last attempt is searched for.
        last = {entry.number: entry for entry in entries}
        now = self._api.instant()
        return [
            lost_submit_of(entry, now=now, longest_timeout=self._shared.longest_timeout)
            for entry in entries
            if entry.number not in searched or entry is not last[entry.number]
        ]


async def _decide_on_rows(rows: Sized, decide: Callable[[], T]) -> T:
    """The decision of a policy on rows of a list; on many rows it runs in a thread, so that other tasks run meanwhile."""
    return decide() if len(rows) <= _MAX_ROWS_ON_LOOP else await anyio.to_thread.run_sync(decide)


async def _match_in_journal(reconciliation: OpenReconciliation, job: Job) -> bool:
    """Give a job to a lost submit of a shared journal; False if another process has given it to another one."""
    journal, number = reconciliation.journal, reconciliation.entry_number
    if journal is None or number is None:
        return True
    return await journal.sharing.match_job(number, job.request_id)
