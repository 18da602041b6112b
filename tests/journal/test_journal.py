from __future__ import annotations

from decimal import Decimal

import anyio
import pytest

from kling_async import JournalError, ResultState
from kling_async._journal.entry import EntryState
from kling_async._journal.journal import WriteAheadJournal

# What is written can be read at once


async def test_an_intent_is_found_before_it_is_on_the_disk(journal, pen, store):
    assert pen.find("rain") is None

    number = pen.record_intent("rain", at=5.0)

    entry = pen.find("rain")
    assert (entry.number, entry.state, entry.sent_at) == (number, EntryState.INTENDED, 5.0)
    assert (entry.attempts, entry.cost_usd, entry.request_id) == (1, Decimal("0.35"), None)
    assert pen.find("snow") is None
    assert store.kept == {}


async def test_a_write_is_found_during_its_commit(journal, pen, store, slow_disk):
    number = pen.record_intent("rain")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.flush)
        await anyio.sleep(slow_disk / 2)
        pen.record_job(number, "r-1")

        assert store.kept == {}
        assert pen.find("rain").request_id == "r-1"
        assert journal.has_job("r-1")
        assert [entry.number for entry in journal.entries()] == [1]


async def test_one_identity_is_all_of_key_fingerprint_and_occurrence(journal, pen):
    for occurrence in range(2):
        for key in (None, "a"):
            identity = pen.identity("rain", occurrence, key)
            assert journal.find(identity) is None
            journal.record_intent(identity, model="m", payload={}, at=1.0, cost_usd=None)

    assert [entry.number for entry in journal.entries()] == [1, 2, 3, 4]


async def test_entries_come_in_the_order_of_their_first_intent(journal, pen):
    for prompt in "abcde":
        pen.record_intent(prompt)
    await journal.flush()
    pen.fail(2)
    pen.record_intent("b")
    pen.record_intent("f")

    assert [entry.payload["prompt"] for entry in journal.entries()] == list("abcdef")


async def test_an_entry_shows_the_job_its_end_and_its_file(journal, pen):
    number = pen.record_intent("rain")
    pen.record_job(number, "r-1")
    assert pen.find("rain").record == {"request_id": "r-1", "status": "queued"}

    record = {"request_id": "r-1", "status": "success", "payload": {"prompt": "rain"}}
    journal.record_end(number, state=ResultState.SUCCEEDED, record=record, error="disk full")
    journal.record_file(number, path="r-1.mp4", size_bytes=9, sha256="ab")

    entry = pen.find("rain")
    assert (entry.state, entry.record) == (EntryState.SUCCEEDED, {"request_id": "r-1", "status": "success"})
    assert (entry.path, entry.size_bytes, entry.sha256, entry.error) == ("r-1.mp4", 9, "ab", None)
    assert entry.job.is_success


async def test_an_end_without_a_record_leaves_the_one_before(journal, pen):
    number = pen.record_intent("rain")
    pen.record_job(number, "r-1")
    journal.record_end(number, state=ResultState.TIMED_OUT, record=None, error="too slow")

    entry = pen.find("rain")
    assert (entry.state, entry.error) == (EntryState.TIMED_OUT, "too slow")
    assert entry.record == {"request_id": "r-1", "status": "queued"}


# Attempts and their cost


@pytest.mark.parametrize("state", [EntryState.FAILED, EntryState.CANCELLED, EntryState.TIMED_OUT, None])
async def test_another_attempt_keeps_the_id_and_the_cost_of_the_one_before(journal, pen, store, state):
    number = pen.record_intent("rain")
    pen.record_job(number, "r-1")
    if state is not None:
        journal.record_end(number, state=state, record=None, error="no")

    assert pen.record_intent("rain", at=9.0) == number

    entry = pen.find("rain")
    assert (entry.state, entry.attempts, entry.sent_at) == (EntryState.INTENDED, 2, 9.0)
    assert (entry.request_id, entry.record, entry.error) == (None, None, None)
    assert (entry.cost_usd, entry.attempt_cost_usd) == (Decimal("0.70"), Decimal("0.35"))
    assert journal.has_job("r-1")
    assert pen.sum_costs() == Decimal("0.70")
    await journal.flush()
    assert store.earlier[number, 1].request_id == "r-1"
    assert journal.has_job("r-1")


async def test_a_post_that_is_not_accepted_costs_nothing_and_is_no_attempt(journal, pen, store):
    number = pen.record_intent("rain")
    await journal.flush()

    journal.record_not_accepted(number, error="refused")

    entry = pen.find("rain")
    assert (entry.state, entry.error) == (EntryState.NOT_SUBMITTED, "refused")
    assert (entry.attempts, entry.cost_usd, pen.sum_costs()) == (0, None, Decimal(0))
    pen.record_intent("rain")
    assert (pen.find("rain").attempts, pen.sum_costs()) == (1, Decimal("0.35"))
    await journal.flush()
    assert store.earlier == {}


async def test_rejecting_twice_takes_the_cost_back_once(journal, pen):
    number = pen.record_intent("rain")
    pen.fail(number)
    pen.record_intent("rain")
    journal.record_not_accepted(number, error="refused")
    journal.record_end(number, state=ResultState.NOT_SUBMITTED, record=None, error="batch stopped")

    entry = pen.find("rain")
    assert (entry.attempts, entry.cost_usd, entry.error) == (1, Decimal("0.35"), "batch stopped")
    assert pen.sum_costs() == Decimal("0.35")


async def test_a_job_is_restored_after_a_resend_that_is_not_accepted(journal, pen):
    number = pen.record_intent("rain")
    pen.record_job(number, "r-1")
    pen.record_intent("rain")
    journal.record_not_accepted(number, error="refused")

    with pytest.raises(JournalError, match="cannot record 'accepted'"):
        pen.record_job(number, "r-2")
    pen.record_job(number, "r-1")

    entry = pen.find("rain")
    assert (entry.state, entry.request_id, entry.attempts) == (EntryState.SUBMITTED, "r-1", 1)


@pytest.mark.parametrize(
    "first, second, costs",
    [
        (None, None, (None, None)),
        (None, Decimal(1), (Decimal(2), Decimal(1))),
        (Decimal(1), None, (Decimal(2), Decimal(1))),
        (Decimal("0.1"), Decimal("0.2"), (Decimal("0.3"), Decimal("0.1"))),
    ],
)
async def test_an_unknown_price_is_not_zero(journal, pen, first, second, costs):
    total, left = costs
    number = pen.record_intent("rain", cost_usd=first)
    pen.fail(number)
    pen.record_intent("rain", cost_usd=second)
    assert (pen.find("rain").cost_usd, pen.sum_costs()) == (total, total or 0)

    journal.record_not_accepted(number, error="refused")
    assert (pen.find("rain").cost_usd, pen.sum_costs()) == (left, left or 0)


# Unknown POSTs


@pytest.mark.parametrize("is_flushed", [False, True], ids=["pending", "on-the-disk"])
async def test_posts_of_unknown_fate_are_listed_by_this_run_and_the_next(journal, pen, is_flushed):
    for occurrence in range(5):
        identity = pen.identity("rain", occurrence)
        journal.record_intent(identity, model="m", payload={}, at=1.0, cost_usd=None)
    if is_flushed:
        await journal.flush()
    assert [entry.number for entry in journal._entries.find_unknown()] == [1, 2, 3, 4, 5]

    journal.record_not_accepted(1, error="refused")
    pen.record_job(2, "r-2")
    journal.record_end(3, state=ResultState.AMBIGUOUS, record=None, error="lost")
    pen.fail(4)

    assert [entry.number for entry in journal._entries.find_unknown()] == [3, 5]
    await journal.flush()
    assert [entry.number for entry in WriteAheadJournal(journal._store)._entries.find_unknown()] == [3, 5]


async def test_an_earlier_post_stays_unknown_whatever_happens_to_the_next(journal, pen):
    def unknown_attempts():
        return [(entry.attempts, entry.state, entry.sent_at) for entry in journal._entries.find_unknown()]

    number = pen.record_intent("rain", at=1.0)
    journal.record_end(number, state=ResultState.AMBIGUOUS, record=None, error="lost")
    pen.record_intent("rain", at=2.0)
    assert unknown_attempts() == [(1, EntryState.AMBIGUOUS, 1.0), (2, EntryState.INTENDED, 2.0)]

    journal.record_not_accepted(number, error="refused")
    assert unknown_attempts() == [(1, EntryState.AMBIGUOUS, 1.0)]
    assert pen.find("rain").error == "lost"

    pen.record_intent("rain", at=3.0)
    pen.record_job(number, "r-1")
    await journal.flush()
    unknown = unknown_attempts()
    assert [attempt for attempt, *_ in unknown] == [1]
    journal = WriteAheadJournal(journal._store)
    assert unknown_attempts() == unknown


# After a restart


async def test_a_journal_continues_after_a_kill(journal, pen, store):
    pen.record_job(pen.record_intent("rain"), "r-1")
    await journal.flush()
    pen.record_intent("never durable")

    again = WriteAheadJournal(store)

    assert again.spent_usd_at_start == Decimal("0.35")
    assert again.find(pen.identity("rain")).request_id == "r-1"
    assert again.find(pen.identity("never durable")) is None
    number = again.record_intent(pen.identity("snow"), model="m", payload={}, at=1.0, cost_usd=None)
    assert number == 2
    assert again.find(pen.identity("snow")).number == 2


# The end


async def test_closing_commits_pending_writes_and_can_be_repeated(pen, journal, store):
    with journal:
        pen.record_intent("rain")

    journal.close()
    assert (store.commits, store.is_closed) == ([1], True)


async def test_closing_without_pending_writes_commits_nothing(pen, journal, store):
    pen.record_intent("rain")
    await journal.flush()
    journal.close()

    assert store.commits == [1]


def test_a_journal_shows_its_path(journal):
    assert repr(journal) == "<WriteAheadJournal 'memory.db'>"
