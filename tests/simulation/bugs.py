"""Mistakes that the rules must find: each makes the engine do what it must not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import pytest

from kling_async import InternalServerError
from kling_async._engine.batch import run_item
from kling_async._engine.batch.resume import NextStep
from kling_async._engine.submit import reconciler, submitter
from kling_async._engine.submit.ledger import Ledger
from kling_async._journal.journal import WriteAheadJournal
from kling_async._policy.submission import SubmitFailure

Bug = Callable[[pytest.MonkeyPatch], None]


def write_after_the_post(patch: pytest.MonkeyPatch) -> None:
    """The intent is on its way to the disk while the POST leaves."""

    async def at_once(self: WriteAheadJournal) -> None:
        pass

    patch.setattr(WriteAheadJournal, "wait_durable", at_once)


def send_again_after_500(patch: pytest.MonkeyPatch) -> None:
    """A 500 is taken for a POST that was not accepted."""
    classify = submitter.classify

    def hopeful(error: Any) -> SubmitFailure:
        return SubmitFailure.NOT_SENT if isinstance(error, InternalServerError) else classify(error)

    patch.setattr(submitter, "classify", hopeful)


def take_a_job_with_an_owner(patch: pytest.MonkeyPatch) -> None:
    """A lookup does not ask whose job a row is."""
    _change_the_match(patch, owned=frozenset())


def take_one_of_too_many(patch: pytest.MonkeyPatch) -> None:
    """More rows than lost replies are no reason to hesitate."""
    match_jobs = reconciler.match_jobs

    @wraps(match_jobs)
    def greedy(lost: Any, rows: Any, **settings: Any) -> Any:
        found: dict[int, Any] = {}
        for place in range(len(lost)):
            taken = [job.request_id for job in found.values()]
            left = [row for row in rows if row.request_id not in taken]
            for row in left:
                one = match_jobs([lost[place]], [row], **settings)
                if one:
                    found[place] = one[0]
                    break
        return found

    patch.setattr(reconciler, "match_jobs", greedy)


def keep_no_id(patch: pytest.MonkeyPatch) -> None:
    """The id of an accepted job is not written down."""
    patch.setattr(Ledger, "record_job", lambda self, item, job: None)


def resubmit_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    """An intent without an answer is sent again by the next run, instead of being looked for."""
    next_step = run_item.next_step

    def careless(entry: Any, **settings: Any) -> NextStep:
        step = next_step(entry, **settings)
        return NextStep.SUBMIT if step is NextStep.RECONCILE else step

    patch.setattr(run_item, "next_step", careless)


def _change_the_match(patch: pytest.MonkeyPatch, **changed: Any) -> None:
    match_jobs = reconciler.match_jobs

    def wrong(lost: Any, rows: Any, **settings: Any) -> Any:
        return match_jobs(lost, rows, **{**settings, **changed})

    patch.setattr(reconciler, "match_jobs", wrong)


BUGS: Mapping[str, Bug] = {
    bug.__name__: bug
    for bug in (
        write_after_the_post,
        send_again_after_500,
        take_a_job_with_an_owner,
        take_one_of_too_many,
        keep_no_id,
        resubmit_after_a_crash,
    )
}
