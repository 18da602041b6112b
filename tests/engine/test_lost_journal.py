"""A journal that is deleted, moved, replaced or overwritten while a batch uses it: nothing more is sent, no id is lost."""

from __future__ import annotations

import logging
import os
import shutil

import pytest
from virtual_journal import journal_at
from virtual_service import Service, VirtualLoop, batch_of, prompts, run

from kling_async import JournalError, ResultState
from kling_async._engine.batch.batch import use_journal
from kling_async._journal.entry import Identity
from kling_async._journal.open_journal import open_journal, read_journal
from kling_async._journal.sqlite.store import SqliteStore
from kling_async.journal import Journal

FILES = ["run.db", "run.db-wal", "run.db-shm", "run.db-lock"]


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "run.db"


def make_other(path):
    """Another journal, closed, in another folder."""
    other = path.parent.parent / "other.db"
    open_journal(other).close()
    return other


def delete(path):
    path.unlink()


def delete_all(path):
    for name in FILES:
        path.with_name(name).unlink()


def delete_and_make_again(path):
    delete_all(path)
    open_journal(path).close()


def move(path):
    path.rename(path.with_name("moved.db"))


def replace(path):
    make_other(path).replace(path)


def delete_writes(path):
    path.with_name("run.db-wal").unlink()


def delete_index(path):
    path.with_name("run.db-shm").unlink()


def delete_lock(path):
    path.with_name("run.db-lock").unlink()


def replace_lock(path):
    path.with_name("run.db-lock").unlink()
    path.with_name("run.db-lock").touch()


def overwrite(path):
    shutil.copyfile(make_other(path), path)


def truncate(path):
    path.write_bytes(b"")


def delete_folder(path):
    shutil.rmtree(path.parent)


def move_folder(path):
    path.parent.rename(path.parent.with_name("moved"))


LOSSES = {
    delete: "was moved or deleted",
    delete_all: "was moved or deleted",
    delete_and_make_again: "was replaced by another file",
    move: "was moved or deleted",
    replace: "was replaced by another file",
    delete_writes: "lost 'run.db-wal', which was moved or deleted",
    delete_index: "lost 'run.db-shm', which was moved or deleted",
    delete_lock: "lost 'run.db-lock', which was moved or deleted",
    replace_lock: "lost 'run.db-lock', which was replaced by another file",
}
WITHOUT_COPY = {
    overwrite: "was overwritten by another program",
    truncate: "was overwritten by another program",
    delete_folder: "was moved or deleted",
    move_folder: "was moved or deleted",
}


def lose_at(post, lose, path):
    """A script that does something to the journal, once, while a POST is in flight."""
    steps = [lose]

    def script(request, service):
        if service.kind(request) == "submit" and service.posts >= post and steps:
            steps.pop()(path)

    return script


def name_of(case):
    return getattr(case, "__name__", None)


async def lose_during_a_batch(lose, path, service, **settings):
    """The results of 20 prompts whose journal is lost at the seventh POST, and the error that ended the batch."""
    service.before.append(lose_at(6, lose, path))
    results = []
    with pytest.raises(JournalError) as caught, journal_at(path) as journal:
        async with batch_of(service, prompts(20), journal=journal, **settings) as stream:
            async for result in stream:
                results.append(result)
    service.before.clear()
    return results, caught.value


@pytest.mark.unmeasured
@pytest.mark.parametrize("at_once", [1, 4, 20])
@pytest.mark.parametrize("lose, what", LOSSES.items(), ids=name_of)
async def test_a_batch_whose_journal_is_lost_stops_and_its_copy_resumes_it(path, lose, what, at_once):
    service = Service(run_time=40.0)
    results, error = await lose_during_a_batch(lose, path, service, at_once=at_once)
    sent = [result for result in results if result.state is not ResultState.NOT_SUBMITTED]
    assert all(result.ok for result in sent)
    assert len(sent) == service.posts <= 6 + at_once
    assert all(isinstance(result.error, JournalError) for result in results if result not in sent)
    copy = path.with_name("run.db-saved")
    assert f"The journal '{path}' {what} while it was in use" in error.message
    assert f"with '{copy}' as its journal" in error.message

    with journal_at(copy) as journal:
        again = await run(service, prompts(20), journal=journal)
    assert all(result.ok for result in again)
    assert len({result.job.request_id for result in again}) == service.posts == 20


@pytest.mark.parametrize("lose, what", WITHOUT_COPY.items(), ids=name_of)
async def test_where_no_copy_can_be_made_the_log_names_each_job(path, lose, what, caplog):
    service = Service(run_time=40.0)
    with caplog.at_level(logging.WARNING, "kling_async"):
        results, error = await lose_during_a_batch(lose, path, service, at_once=4)
    jobs = {result.job.request_id for result in results if result.job is not None}
    assert len(jobs) == service.posts
    assert what in error.message
    assert "Put the journal back before you run the same call again" in error.message
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    named = {word.strip(",") for text in warnings for word in text.split()}
    if lose not in {overwrite, truncate}:  # the content is gone: only what was not written is known
        assert jobs <= named
    assert "job-6" in named


@pytest.mark.parametrize("lose", [replace, delete_and_make_again], ids=name_of)
async def test_nothing_is_written_into_the_journal_that_took_the_place(path, lose):
    service = Service(run_time=40.0)
    await lose_during_a_batch(lose, path, service, at_once=4)
    assert list(read_journal(path)) == []


@pytest.mark.parametrize("lose", LOSSES, ids=name_of)
async def test_the_same_call_again_is_refused_until_the_copy_has_the_name_of_the_journal(path, lose):
    service = Service(run_time=40.0)
    await lose_during_a_batch(lose, path, service, at_once=4)
    with pytest.raises(
        JournalError, match=r"run\.db' was lost during a run, and .*/run\.db-saved' has the paid jobs"
    ):
        SqliteStore(path)
    path.with_name("run.db-saved").rename(path)
    with journal_at(path) as journal:
        again = await run(service, prompts(20), journal=journal)
    assert len({result.job.request_id for result in again}) == service.posts == 20


async def test_the_first_of_two_processes_stops_before_its_next_submit(path):
    """A second one makes a journal at the path of the first, whose files were deleted."""
    service = Service(run_time=40.0)
    second = []

    def take_over(path):
        delete_all(path)
        second.append(open_journal(path))

    await lose_during_a_batch(take_over, path, service, at_once=1)
    assert service.posts == 6
    assert list(second[0].entries()) == []
    second[0].close()


def test_a_second_copy_gets_another_name(path):
    with pytest.raises(JournalError, match=r"run\.db-saved-2' as its journal"), journal_at(path):
        path.with_name("run.db-saved").touch()
        path.unlink()
    assert path.with_name("run.db-saved").read_bytes() == b""
    assert path.with_name("run.db-saved-2").stat().st_mode & 0o777 == 0o600


def test_a_copy_that_cannot_be_written_leaves_no_file(path):
    store = SqliteStore(path)
    store._writer.close()
    path.unlink()
    with pytest.raises(JournalError, match="Put the journal back"):
        store.close()
    assert [file.name for file in path.parent.iterdir() if "saved" in file.name] == []


# Without a batch


def test_a_loss_is_noticed_when_the_journal_is_closed(path):
    with pytest.raises(JournalError, match="was moved or deleted"), journal_at(path) as journal:
        path.unlink()
    journal.close()


async def test_a_loss_that_is_noticed_after_the_last_result_is_logged(path, caplog):
    with caplog.at_level(logging.ERROR, "kling_async"):
        async with use_journal(path):
            path.unlink()
    assert "was moved or deleted while it was in use" in caplog.text


async def test_register_says_that_its_journal_was_lost(path, monkeypatch):
    commit = SqliteStore.commit

    def lose_and_commit(store, changes):
        path.unlink(missing_ok=True)
        commit(store, changes)

    monkeypatch.setattr(SqliteStore, "commit", lose_and_commit)
    with pytest.raises(JournalError, match=r"run\.db-saved' as its journal"):
        await Journal(path).register(["a cat"])


async def test_writes_of_this_process_to_the_main_file_are_no_loss(path):
    """SQLite brings the newest writes into the main file now and then, which changes the time of that file."""
    with journal_at(path) as journal:
        before = path.stat()
        for number in range(60):
            payload = {"prompt": "rain " * 20_000}
            journal.record_intent(
                Identity(None, "f", number), model="m", payload=payload, at=1.0, cost_usd=None
            )
            await journal.flush()
        assert path.stat().st_size > before.st_size


async def test_a_file_system_that_shows_a_write_late_loses_no_journal(path):
    with journal_at(path) as journal:
        record_one(journal)
        await journal.flush()
        written = path.stat().st_mtime_ns
        os.utime(path, ns=(written, written + 1))
        record_one(journal)
        await journal.flush()


async def test_an_overwritten_journal_with_an_older_time_is_noticed(path):
    with pytest.raises(JournalError, match="was overwritten by another program"), journal_at(path) as journal:
        written = path.stat().st_mtime_ns
        os.utime(path, ns=(written, written - 1))
        record_one(journal)
        await journal.flush()


def record_one(journal):
    number = len(list(journal.entries()))
    journal.record_intent(Identity(None, "f", number), model="m", payload={}, at=1.0, cost_usd=None)
