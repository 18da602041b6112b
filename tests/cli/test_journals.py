from __future__ import annotations

from pathlib import Path

import pytest

from kling_async._journal.entry import EntryState, Identity
from kling_async._journal.open_journal import open_journal
from kling_async.cli.budget_options import BudgetOptions
from kling_async.cli.journals import (
    count_states,
    describe_resume,
    find_journal,
    read_entries,
    step_of,
)
from kling_async.cli.run_config import RunConfig
from kling_async.cli.service import Service
from kling_async.errors import ConfigurationError, JournalError
from kling_async.journal import NextStep

DONE = {"status": "success", "outcome": {"media_urls": [{"url": "https://storage.example/v.mp4"}]}}


@pytest.fixture
def journal(home):
    """A journal with an entry of each state, in the order of the states' names."""
    with open_journal(home / "run.db") as journal:
        for place, state in enumerate(sorted(EntryState)):
            identity = Identity(key=None, fingerprint="f", occurrence=place)
            number = journal.record_intent(
                identity, model="kling-v2-6", payload={"prompt": state}, at=5.0, cost_usd=None
            )
            if state in {EntryState.NOT_SUBMITTED, EntryState.DROPPED}:
                journal.record_not_accepted(number, error="refused")
            elif state not in {EntryState.INTENDED, EntryState.AMBIGUOUS}:
                journal.record_job(number, request_id=state, record={"status": "queued"})
            if state not in {EntryState.INTENDED, EntryState.SUBMITTED, EntryState.NOT_SUBMITTED}:
                record = DONE if state is EntryState.SUCCEEDED else {"status": state}
                journal.record_end(number, state=state, record=record, error=None)
        yield journal


def config(**budget: bool) -> RunConfig:
    return RunConfig(folder=Path(), service=Service(), journal=Path("run.db"), budget=BudgetOptions(**budget))


@pytest.mark.parametrize("retry_failed", [False, True])
def test_each_entry_has_one_next_step(journal, retry_failed):
    steps = {entry.state: step_of(entry, config(retry_failed=retry_failed)) for entry in journal.entries()}
    failed = NextStep.SUBMIT if retry_failed else NextStep.REPORT
    assert steps == {
        EntryState.AMBIGUOUS: NextStep.RECONCILE,
        EntryState.CANCELLED: failed,
        EntryState.DROPPED: NextStep.SUBMIT,
        EntryState.FAILED: failed,
        EntryState.INTENDED: NextStep.RECONCILE,
        EntryState.NOT_SUBMITTED: NextStep.SUBMIT,
        EntryState.SUBMITTED: NextStep.WAIT,
        EntryState.SUCCEEDED: NextStep.DOWNLOAD,
        EntryState.TIMED_OUT: NextStep.WAIT,
    }


def test_a_video_that_is_here_needs_nothing_more(journal, home):
    (home / "v.mp4").write_bytes(b"1234")
    number = next(entry.number for entry in journal.entries() if entry.state is EntryState.SUCCEEDED)
    journal.record_file(number, path="/elsewhere/v.mp4", size_bytes=4, sha256=None)
    entry = next(entry for entry in journal.entries() if entry.number == number)
    assert step_of(entry, config()) is NextStep.REPORT
    (home / "v.mp4").write_bytes(b"123")
    assert step_of(entry, config()) == NextStep.DOWNLOAD


def test_resumed_entries_are_counted_in_words(journal):
    entries = list(journal.entries())
    words = "1 made before, 2 in flight, 2 without a reply, 2 failed before"
    assert count_states(entries) == words
    shared = words.replace("without a reply", "being sent or without a reply")
    assert count_states(entries, is_shared=True) == shared
    assert describe_resume(entries, config()) == f"Resuming run.db: {words}, 2 of 9 to submit."
    assert describe_resume(entries, config(retry_failed=True)).endswith(", 4 of 9 to submit.")
    assert (
        describe_resume([entry for entry in entries if entry.state is EntryState.DROPPED], config())
        == count_states([])
        == ""
    )


def test_a_journal_is_found_by_its_folder_and_a_near_name_is_offered(home):
    (home / "v").mkdir()
    with open_journal(home / "v" / "run.db"):
        pass
    assert find_journal(Path("v")) == find_journal(Path("v/run.db")) == Path("v/run.db")
    for name, advice in [
        ("v/runn.db", "did you mean 'v/run.db'?"),
        ("v/x", "check its name."),
        ("w/run.db", "check its name."),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            find_journal(Path(name))
        assert str(caught.value) == f"There is no journal {name!r}: {advice}"


@pytest.mark.parametrize("name", ["v", "v/run.db"])
def test_the_copy_of_a_journal_that_was_lost_is_offered(home, name):
    (home / "v").mkdir()
    with pytest.raises(JournalError), open_journal(home / "v" / "run.db"):
        (home / "v" / "run.db").unlink()
    with pytest.raises(ConfigurationError, match=r"did you mean 'v/run\.db-saved'\?"):
        find_journal(Path(name))


def test_what_is_no_journal_cannot_be_read(home):
    (home / "run.db").write_text("a cat\n" * 1000)
    with pytest.raises(ConfigurationError, match="is not a journal of kling_async"):
        list(read_entries(Path("run.db")))
