"""Planted bugs: each makes the engine break a rule, and the rules must find it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import attrs
import pytest

from kling_async import InternalServerError
from kling_async._engine.batch import resume
from kling_async._engine.batch.resume import NextStep
from kling_async._engine.submit import (
    item_identifier,
    list_search,
    open_reconciliation,
    reconciler,
    submitter,
)
from kling_async._engine.submit.ledger import Ledger
from kling_async._journal.entry import former_fingerprint
from kling_async._journal.sole_process import SoleProcess
from kling_async._policy import list_evidence
from kling_async._policy.list_evidence import ROW_DELAY, ListReading
from kling_async._policy.lost_submit import LostSubmit
from kling_async._policy.own_user import OwnUser
from kling_async._policy.rate_limit import TokenBucket
from kling_async._policy.service_clock import ServiceClock
from kling_async._policy.submission import SubmitFailure

from .shared_database import LOST_AFTER, SharedDatabase

Bug = Callable[[pytest.MonkeyPatch], None]


def write_after_the_post(patch: pytest.MonkeyPatch) -> None:
    """The POST does not wait until its intent is on the disk."""

    async def at_once(self: SoleProcess, number: int) -> None:
        pass

    patch.setattr(SoleProcess, "confirm_intent", at_once)


def send_again_after_500(patch: pytest.MonkeyPatch) -> None:
    """A 500 counts as proof that the POST was not accepted."""
    classify = submitter.classify

    def hopeful(error: Any) -> SubmitFailure:
        return SubmitFailure.NOT_SENT if isinstance(error, InternalServerError) else classify(error)

    patch.setattr(submitter, "classify", hopeful)


def match_owned_job(patch: pytest.MonkeyPatch) -> None:
    """The reconciler does not check whether a job has an owner."""
    _change_match_jobs(patch, owned=frozenset())


def ignore_the_organization(patch: pytest.MonkeyPatch) -> None:
    """The reconciler does not look at whose job a row says it is."""
    patch.setattr(OwnUser, "is_other", lambda self, job: False)


def match_one_of_too_many(patch: pytest.MonkeyPatch) -> None:
    """The reconciler matches a row even if there are more rows than lost submits."""
    match_jobs = list_search.match_jobs

    @wraps(match_jobs)
    def greedy(lost: Any, rows: Any, **settings: Any) -> Any:
        found: dict[int, Any] = {}
        for index in range(len(lost)):
            matched = [job.request_id for job in found.values()]
            left = [row for row in rows if row.request_id not in matched]
            for row in left:
                one = match_jobs([lost[index]], [row], **settings)
                if one:
                    found[index] = one[0]
                    break
        return found

    patch.setattr(list_search, "match_jobs", greedy)


def keep_no_id(patch: pytest.MonkeyPatch) -> None:
    """The ledger does not record the id of an accepted job."""
    patch.setattr(Ledger, "record_job", lambda self, item, job: None)


def resubmit_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    """The next run sends an intent without an answer again, instead of reconciling it."""
    next_step = resume.next_step

    def careless(entry: Any, **settings: Any) -> NextStep:
        step = next_step(entry, **settings)
        return NextStep.SUBMIT if step is NextStep.RECONCILE else step

    patch.setattr(resume, "next_step", careless)


def identify_by_each_character(patch: pytest.MonkeyPatch) -> None:
    """An item in another spelling is another item."""
    patch.setattr(item_identifier, "fingerprint", former_fingerprint)


def ignore_the_service_clock(patch: pytest.MonkeyPatch) -> None:
    """Times of the service are compared with those of this machine."""
    patch.setattr(ServiceClock, "learn", lambda self, date, **times: None)


def trust_a_clock_that_was_set(patch: pytest.MonkeyPatch) -> None:
    """The offset of the service's clock is kept though the clock of the machine was set."""
    patch.setattr(ServiceClock, "compare", lambda self, **times: None)


def trust_the_clock_of_an_earlier_process(patch: pytest.MonkeyPatch) -> None:
    """A time by the clock of an earlier process counts as one by the clock of this machine, and such times are frequent."""
    recorded_submit = open_reconciliation.recorded_submit

    def trust(*fields: Any, **times: Any) -> LostSubmit:
        return attrs.evolve(recorded_submit(*fields, **times), may_have_other_clock=False)

    async def ask_nothing(self: submitter.Submitter, model: str) -> None:
        pass

    patch.setattr(open_reconciliation, "recorded_submit", trust)
    patch.setattr(submitter.Submitter, "_fetch_time", ask_nothing)


def prove_by_a_part_of_the_list(patch: pytest.MonkeyPatch) -> None:
    """A job counts as absent if the first page of the list does not show it."""
    add = ListReading.add

    def add_last(self: ListReading, *page: Any, **counts: Any) -> None:
        add(self, *page, **counts)
        self.is_over = True

    patch.setattr(ListReading, "add", add_last)
    patch.setattr(ListReading, "is_whole", True)


def prove_before_the_window_closes(patch: pytest.MonkeyPatch) -> None:
    """A job counts as absent though the service can still accept it, or not list it yet."""
    proves = list_search.is_absent

    def hasty(lost: LostSubmit, reading: ListReading, **settings: Any) -> bool:
        return proves(attrs.evolve(lost, until=lost.since - ROW_DELAY), reading, **settings)

    patch.setattr(list_search, "is_absent", hasty)
    patch.setattr(reconciler, "proof_delays", lambda lost, **settings: (0.0,))


def prove_by_strangers(patch: pytest.MonkeyPatch) -> None:
    """A job counts as absent though the list shows one that could match."""
    patch.setattr(list_evidence, "_surely_differs", lambda sent, echo: True)


def own_by_clock_leases(patch: pytest.MonkeyPatch) -> None:
    """A session ends if its process was not heard for some time, also if the process only stands still."""
    is_live = SharedDatabase.is_live

    def is_renewed(self: SharedDatabase, holder: int | None) -> bool:
        if holder in self.sessions and self.clock() - self.heard_at[holder] > LOST_AFTER:
            self.end_session(holder)
        return is_live(self, holder)

    patch.setattr(SharedDatabase, "is_live", is_renewed)


def ignore_look_alikes_of_others(patch: pytest.MonkeyPatch) -> None:
    """A process waits neither for the POSTs nor for the reconciliations of others, and one job can belong to two entries.

    The journal gives a job to one entry, which alone hides the former in most worlds: the second entry is reconciled.
    """
    patch.setattr(SharedDatabase, "find_others", lambda self, kind, holder: [])
    patch.setattr(SharedDatabase, "_own", lambda self, entry: True)


def put_back_turns_of_sent_posts(patch: pytest.MonkeyPatch) -> None:
    """A turn of the rate that all processes share is put back though its POST is sent."""
    take_turn = Ledger.take_turn

    async def keep_turn(self: Ledger, bucket: TokenBucket) -> float:
        rest = await take_turn(self, bucket)
        self.put_back_turn()
        return rest

    patch.setattr(Ledger, "take_turn", keep_turn)


def _change_match_jobs(patch: pytest.MonkeyPatch, **changed: Any) -> None:
    match_jobs = list_search.match_jobs

    def wrong(lost: Any, rows: Any, **settings: Any) -> Any:
        return match_jobs(lost, rows, **{**settings, **changed})

    patch.setattr(list_search, "match_jobs", wrong)


BUGS: Mapping[str, Bug] = {
    bug.__name__: bug
    for bug in (
        write_after_the_post,
        send_again_after_500,
        match_owned_job,
        ignore_the_organization,
        match_one_of_too_many,
        keep_no_id,
        resubmit_after_a_crash,
        identify_by_each_character,
        ignore_the_service_clock,
        trust_a_clock_that_was_set,
        trust_the_clock_of_an_earlier_process,
        prove_by_a_part_of_the_list,
        prove_before_the_window_closes,
        prove_by_strangers,
    )
}
"""Those that a process alone shows."""

SHARED_BUGS: Mapping[str, Bug] = {
    bug.__name__: bug
    for bug in (own_by_clock_leases, ignore_look_alikes_of_others, put_back_turns_of_sent_posts)
}
"""Those that only processes with a shared journal show."""
