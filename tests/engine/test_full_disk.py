"""The same call again with the same client, after a journal that could not be written."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from virtual_service import Service, prompts, run, session_for
from virtual_store import MemoryStore

from kling_async import APIConnectionError, JournalError, ResultState
from kling_async._journal.journal import WriteAheadJournal

pytestmark = pytest.mark.unmeasured

FULL = JournalError("The journal could not be written (database or disk is full).")


async def write_at_once(write, changes):
    write(changes)


async def run_with(disk, service, requests, *, session, **settings):
    """One run; each opens the journal again, over what the disk has kept."""
    store = MemoryStore(kept=disk.kept, earlier=disk.earlier)
    store.failure, journal = disk.failure, WriteAheadJournal(store, run_sync=write_at_once)
    disk.open_store = store
    return await run(service, requests, journal=journal, session=session, **settings)


class Disk(MemoryStore):
    """What is on the disk."""


def fill(disk, *, after):
    """A script that fills the disk at a submit."""

    def script(request, service):
        if service.kind(request) == "submit" and service.posts > after:
            disk.open_store.failure = FULL

    return script


@pytest.mark.parametrize("after", [0, 3, 8, 15])
async def test_the_jobs_that_this_client_saw_and_its_journal_did_not_are_found_again(after):
    disk, service = Disk(), Service(ahead=0.0)
    session = session_for(service)
    service.before.append(fill(disk, after=after))
    with pytest.raises(JournalError, match="full"):
        await run_with(disk, service, prompts(20), session=session, at_once=16)
    service.before.clear()
    accepted = len(service.jobs)
    assert accepted > 0
    results = await run_with(disk, service, prompts(20), session=session, at_once=16)
    assert [result.state for result in results] == [ResultState.SUCCEEDED] * 20
    assert len({result.job.request_id for result in results}) == 20
    assert len(service.jobs) == service.posts == 20


async def test_equal_prompts_are_found_again_by_count():
    disk, service = Disk(), Service(ahead=0.0)
    session = session_for(service)
    service.before.append(fill(disk, after=0))
    with pytest.raises(JournalError, match="full"):
        await run_with(disk, service, ["a cat"] * 6, session=session, at_once=6)
    service.before.clear()
    results = await run_with(disk, service, ["a cat"] * 6, session=session)
    assert all(result.ok for result in results)
    assert len(service.jobs) == 6


async def test_a_job_of_such_a_run_is_still_not_taken_by_another_batch_of_the_client():
    disk, service = Disk(), Service(ahead=0.0)
    session = session_for(service)
    service.before.append(fill(disk, after=0))
    with pytest.raises(JournalError, match="full"):
        await run_with(disk, service, ["a cat"], session=session)
    service.before.clear()
    service.before.append(lambda request, _: LOST if service.kind(request) == "submit" else None)
    [result] = await run(service, ["a cat"], session=session)
    assert result.state is ResultState.AMBIGUOUS
    [result] = await run_with(disk, service, ["a cat"], session=session)
    assert result.ok


LOST = APIConnectionError("the connection was lost")


@pytest.mark.parametrize("seed", range(20))
async def test_however_often_the_disk_is_full_nothing_is_bought_twice(seed):
    rng = random.Random(seed)  # noqa: S311
    disk, service = Disk(), Service(ahead=0.0, latency=0.5)
    session = session_for(service)
    for _ in range(5):
        service.before.append(fill(disk, after=service.posts + rng.randint(0, 6)))
        with suppress(JournalError):  # after the last prompt the disk stays as it is
            await run_with(disk, service, prompts(40), session=session, at_once=rng.randint(1, 16))
        service.before.clear()
    results = await run_with(disk, service, prompts(40), session=session, at_once=16)
    assert all(result.ok for result in results)
    assert len(service.jobs) == service.posts == 40
