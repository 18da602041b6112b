from __future__ import annotations

import anyio
import pytest

from kling_async import JournalError
from kling_async._journal.entry import EntryState
from kling_async._journal.journal import WriteAheadJournal


def start_committer(tasks, journal):
    """A scope around the journal's committer; cancel it to make the committer leave."""
    scope = anyio.CancelScope()

    async def run():
        with scope:
            await journal.run()

    tasks.start_soon(run)
    return scope


# Together


async def test_durable_returns_when_it_is_on_the_disk(journal, pen, store):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        pen.record_intent("rain")
        await journal.wait_durable()
        assert store.kept[1].payload == {"prompt": "rain"}

        before = anyio.current_time()
        await journal.wait_durable()
        assert anyio.current_time() == before
        tasks.cancel_scope.cancel()


async def test_tasks_that_wait_together_share_a_commit(journal, pen, store):
    async def worker(prompt):
        await anyio.sleep(0.0001 * prompt)
        pen.record_intent(str(prompt))
        await journal.wait_durable()
        assert len(store.kept) > prompt

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        async with anyio.create_task_group() as workers:
            for prompt in range(20):
                workers.start_soon(worker, prompt)
        tasks.cancel_scope.cancel()

    assert store.commits == [20]


async def test_a_write_during_a_commit_waits_for_the_next_one(journal, pen, store, slow_disk):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        pen.record_intent("rain")
        tasks.start_soon(journal.wait_durable)
        await anyio.sleep(slow_disk / 2)
        pen.record_intent("snow")
        await journal.wait_durable()
        assert sorted(store.kept) == [1, 2]
        tasks.cancel_scope.cancel()

    assert store.commits == [1, 1]


async def test_a_write_before_a_commit_can_be_waited_for_during_it(journal, pen, store, slow_disk):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        pen.record_intent("rain")
        await anyio.sleep(slow_disk / 2)
        await journal.wait_durable()
        tasks.cancel_scope.cancel()

    assert store.commits == [1]


async def test_writes_without_a_waiting_task_are_committed_soon_and_together(journal, pen, store, slow_disk):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        for prompt in range(10):
            pen.record_intent(str(prompt))
            await anyio.sleep(0.001)
        await anyio.sleep(slow_disk + 0.1)
        tasks.cancel_scope.cancel()

    assert store.commits == [10]


async def test_without_a_committer_a_waiting_task_commits_by_itself(journal, pen, store):
    async with anyio.create_task_group() as tasks:
        for prompt in range(3):
            pen.record_intent(str(prompt))
            tasks.start_soon(journal.wait_durable)

    assert store.commits == [3]


async def test_a_task_that_waits_when_the_committer_stops_commits_by_itself(journal, pen, store):
    async with anyio.create_task_group() as tasks:
        committer = start_committer(tasks, journal)
        await anyio.sleep(0.001)
        pen.record_intent("rain")
        tasks.start_soon(journal.wait_durable)
        await anyio.sleep(0.001)
        committer.cancel()

    assert store.commits == [1]


async def test_two_batches_may_write_through_one_journal(journal, pen, store):
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(journal.run)
        await anyio.sleep(0.001)
        for prompt in range(4):
            pen.record_intent(str(prompt))
            await journal.wait_durable()
        tasks.cancel_scope.cancel()

    assert store.commits == [1] * 4


async def test_a_cancelled_commit_is_repeated(journal, pen, store, slow_disk):
    number = pen.record_intent("rain")
    with anyio.move_on_after(slow_disk / 2):
        await journal.flush()
    assert store.kept == {}
    pen.record_job(number, "r-1")

    await journal.flush()

    assert store.kept[1].request_id == "r-1"


async def test_a_task_that_waits_for_a_cancelled_commit_gets_another_one(journal, pen, store, slow_disk):
    pen.record_intent("rain")
    async with anyio.create_task_group() as tasks:
        committer = start_committer(tasks, journal)
        await anyio.sleep(0.001)
        tasks.start_soon(journal.wait_durable)
        await anyio.sleep(slow_disk / 2)
        committer.cancel()

    assert store.commits == [1]


# When the disk fails


async def test_all_waiting_tasks_raise_the_error_of_the_disk(journal, pen, store):
    store.failure = JournalError("The journal is full.")
    errors = []

    async def worker(prompt):
        pen.record_intent(prompt)
        try:
            await journal.wait_durable()
        except JournalError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        async with anyio.create_task_group() as workers:
            for prompt in "abc":
                workers.start_soon(worker, prompt)
        tasks.cancel_scope.cancel()

    assert [error.message for error in errors] == ["The journal is full."] * 3
    assert len(set(map(id, errors))) == 3
    assert all(error.__cause__ is store.failure for error in errors)


async def test_a_failed_write_is_part_of_the_next_commit(journal, pen, store):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        store.failure = JournalError("full")
        number = pen.record_intent("rain")
        with pytest.raises(JournalError):
            await journal.wait_durable()
        store.failure = None
        journal.record_not_accepted(number, error="not written down")
        pen.record_intent("snow")
        await journal.wait_durable()
        tasks.cancel_scope.cancel()

    assert store.commits == [2]
    assert [entry.state for entry in store.kept.values()] == [EntryState.NOT_SUBMITTED, EntryState.INTENDED]


async def test_a_failing_disk_is_not_tried_again_without_a_new_write(store, pen_for, slow_disk):
    tries = []

    async def failing_disk(_function, changes):
        tries.append(changes)
        raise JournalError("full")

    journal = WriteAheadJournal(store, run_sync=failing_disk)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        pen_for(journal).record_intent("rain")
        await anyio.sleep(100 * slow_disk)
        tasks.cancel_scope.cancel()

    assert len(tries) == 1


async def test_a_flush_raises_an_error_that_no_task_waited_for(journal, pen, store, slow_disk):
    store.failure = JournalError("full")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run)
        pen.record_intent("rain")
        await anyio.sleep(2 * slow_disk)
        tasks.cancel_scope.cancel()

    with pytest.raises(JournalError, match="full"):
        await journal.flush()


# One loop after the other


async def at_once(function, *arguments):
    function(*arguments)


def test_a_journal_serves_one_event_loop_after_the_other(pen_for, store):
    journal = WriteAheadJournal(store, run_sync=at_once)

    async def write(prompt):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(journal.run)
            await anyio.sleep(0.1)
            pen_for(journal).record_intent(prompt)
            await journal.wait_durable()
            tasks.cancel_scope.cancel()

    anyio.run(write, "rain")
    anyio.run(write, "snow")

    assert sorted(store.kept) == [1, 2]
