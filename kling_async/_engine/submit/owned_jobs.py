"""Whose jobs are whose: the jobs of a client and of its journals, which no lost submit of another item takes."""

from __future__ import annotations

from collections.abc import Iterable

from kling_async._engine.clock import Clock
from kling_async._engine.shared_state import SharedState
from kling_async._engine.submit.look_alikes import LookAlikes
from kling_async._journal.journal import WriteAheadJournal
from kling_async._policy.job_owners import JournalRun
from kling_async.jobs import Job, canonical_id, spellings


class OwnedJobs:
    """The jobs that have an owner, and the user whose jobs they are.

    Args:
        clock: For the age of what is remembered.
        shared: Remembers the owners and the user in all event loops of the client.
        look_alikes: While a submit is reconciled, no owner is forgotten.
    """

    def __init__(self, clock: Clock, shared: SharedState, look_alikes: LookAlikes) -> None:
        self._clock = clock
        self._shared = shared
        self._look_alikes = look_alikes

    def assign(self, request_id: str, journal: WriteAheadJournal | None) -> bool:
        """Note that a job belongs to an item of this journal; False if it belongs to another item, also one of an earlier run."""
        owner = JournalRun() if journal is None else journal.owner
        keep = bool(self._look_alikes.reconciliations)
        return self._shared.job_owners.add(request_id, owner, now=self._clock.now(), keep=keep)

    def assign_answered(self, job: Job, journal: WriteAheadJournal | None) -> bool:
        """Note the owner of the job that the answer to a POST names, as `assign` does; its record shows this client's user."""
        is_free, shared = self.assign(job.request_id, journal), self._shared
        if is_free and not shared.own_user.is_known:
            shared.own_user.learn(job)
            keep = bool(self._look_alikes.reconciliations)
            shared.answered.add(job.request_id, now=self._clock.now(), keep=keep)
        return is_free

    def learn_user(self, rows: Iterable[Job]) -> None:
        """Learn the user of the key from the rows of jobs that are certainly this client's."""
        for row in rows:
            if row.request_id in self._shared.answered:
                self._shared.own_user.learn(row)

    async def find(self, request_ids: Iterable[str], journals: Iterable[WriteAheadJournal]) -> set[str]:
        """The canonical ids of those jobs that belong to an item of this client, or of one of the journals."""
        wanted = {canonical_id(request_id): request_id for request_id in request_ids}
        present = {journal.owner.location: journal.owner for journal in journals}
        owners = self._shared.job_owners
        owned = {request_id for request_id in wanted if owners.has_owner(request_id, present)}
        for journal in journals:
            # A journal has each id as the service wrote it.
            spelled = {one for id_ in wanted.keys() - owned for one in spellings(wanted[id_])}
            owned |= set(map(canonical_id, await journal.sharing.find_jobs(spelled)))
        return owned
