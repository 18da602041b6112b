"""A journal whose disk or database takes so long for each write that no intent is fresh when it is written."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from virtual_service import Service, VirtualLoop, prompts, run

from kling_async import JournalError, ResultState
from kling_async._journal.entry import EntryState
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.sqlite.store import SqliteStore


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


async def after(seconds, function, *arguments):
    if getattr(function, "__name__", "") == "commit":
        await anyio.sleep(seconds)
    return function(*arguments)


@pytest.mark.parametrize("items", [1, 20])
async def test_a_journal_that_takes_too_long_for_each_intent_ends_the_batch_and_sends_nothing(
    tmp_path, items
):
    service = Service()
    journal = WriteAheadJournal(SqliteStore(tmp_path / "run.db"), run_sync=partial(after, 6.0))
    with anyio.fail_after(600):
        results = await run(service, prompts(items), journal=journal)
    assert service.posts == 0
    assert {result.state for result in results} == {ResultState.NOT_SUBMITTED}
    assert {type(result.error) for result in results} == {JournalError}
    assert "took more than 5 s for a write, 5 times in a row, so nothing was sent" in str(results[0].error)
    assert {entry.state for entry in journal.entries()} == {EntryState.NOT_SUBMITTED}
    journal.close()


async def test_a_slow_journal_whose_intents_are_fresh_enough_sends_each_item(tmp_path):
    service = Service()
    journal = WriteAheadJournal(SqliteStore(tmp_path / "run.db"), run_sync=partial(after, 2.0))
    results = await run(service, prompts(20), journal=journal)
    assert (service.posts, {result.ok for result in results}) == (20, {True})
    journal.close()
