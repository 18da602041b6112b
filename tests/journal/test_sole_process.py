"""A journal of one process: nothing waits for others, and only the intent waits for the disk."""

from __future__ import annotations

import inspect

from kling_async._journal.shared_store import PostDecision
from kling_async._journal.sharing import Sharing
from kling_async._journal.sole_process import SoleProcess
from kling_async._journal.store import Activity


def run_without_waiting(coroutine):
    """What a coroutine returns that never gives the event loop a turn."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def methods_of(kind):
    return {
        name: [(one.name, one.kind) for one in inspect.signature(method).parameters.values()]
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_it_has_the_methods_of_a_journal_that_processes_share():
    shared = methods_of(Sharing)
    del shared["register"]  # a journal of one process also drops the entries of earlier batches
    assert methods_of(SoleProcess) == shared
    assert (SoleProcess.is_shared, Sharing.is_shared) == (False, True)


def test_no_other_process_holds_back_an_item_or_a_post(journal, pen):
    number, sharing = pen.record_intent("rain"), journal.sharing
    permit = sharing.reserve_post(number, model="m", payload={}, price_usd=None, cap_usd=None)

    assert run_without_waiting(permit).decision is PostDecision.ALLOWED
    assert run_without_waiting(sharing.take_turn(rate=0.001, burst=1.0)) == 0
    run_without_waiting(sharing.wait_claimable(pen.identity("rain")))
    run_without_waiting(sharing.wait_changed())
    assert not run_without_waiting(sharing.is_job_taken(number))
    sharing.raise_if_taken_over(number)


def test_a_claim_finds_an_entry_and_makes_none(journal, pen):
    number = pen.record_intent("rain")
    describe = None  # never called

    assert run_without_waiting(journal.sharing.claim(pen.identity("rain"), describe)).entry.number == number
    assert run_without_waiting(journal.sharing.claim(pen.identity("snow"), describe)).entry is None


def test_a_release_and_an_end_forget_nothing(journal, pen):
    number = pen.record_intent("rain")
    journal.sharing.end(number, Activity.POST)
    journal.sharing.release(number)

    [attempt] = run_without_waiting(journal.sharing.find_unknown("kling-v2-6"))
    assert attempt.number == number
    assert run_without_waiting(journal.sharing.find_unknown("other")) == []


def test_no_other_process_has_a_job_of_a_lost_submit(journal, pen):
    number, sharing = pen.record_intent("rain"), journal.sharing
    run_without_waiting(sharing.begin_reconciliation(number, model="m", payload={}))

    assert run_without_waiting(sharing.find_searchable([number])) == {number}
    assert run_without_waiting(sharing.match_job(number, "r-1"))
    pen.record_job(number, "r-1")
    assert run_without_waiting(sharing.find_jobs(["r-1", "r-2"])) == {"r-1"}


async def test_a_post_leaves_once_its_intent_is_on_the_disk(journal, pen, store):
    number = pen.record_intent("rain")
    await journal.sharing.confirm_intent(number)
    assert list(store.kept) == [number]
