from __future__ import annotations

import asyncio
import os
from contextlib import closing
from sqlite3 import connect

import pytest

import kling_async
from kling_async import ConfigurationError, InvalidRequestError, JournalError, VideoRequest
from kling_async._engine.submit.item_identifier import ItemIdentifier
from kling_async._engine.submit.picture_digests import PictureDigests
from kling_async._journal.open_journal import open_journal
from kling_async.journal import EntryState, Journal, NextStep, RegisteredBatch
from kling_async.lines import quote_value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


@pytest.fixture
def journal(path):
    return Journal(path)


def requests(*prompts, **options):
    return [VideoRequest(prompt, model="kling-v2-6", **options) for prompt in prompts]


def send(journal, number, *, request_id=None, **ending):
    """What a batch writes for the entry of this number: its submit, and what became of that."""
    entry = list(journal.entries())[number - 1]
    with open_journal(journal.path) as log:
        log.record_intent(entry.identity, model=entry.model, payload=entry.payload, at=6.0, cost_usd=None)
        if request_id is not None:
            log.record_job(number, request_id=request_id, record={"status": "success"})
        if ending:
            log.record_end(number, record=None, error=None, state=ending["state"])
        if "file" in ending:
            file = ending["file"]
            log.record_file(number, path=str(file), size_bytes=file.stat().st_size, sha256=None)


def test_the_package_gives_the_public_journal():
    assert kling_async.Journal is Journal


def test_a_journal_stands_for_its_path_and_opens_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    journal = Journal("~/run.db")
    assert journal.path == journal.__fspath__() == str(tmp_path / "run.db")
    assert repr(journal) == f"<Journal {journal.path!r}>"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(JournalError, match="There is no journal"):
        journal.entries()


@pytest.mark.parametrize(
    "place", ["s3://bucket/run.db", ":memory:", 5, b"run.db", "", "~no-such-user/run.db"], ids=repr
)
def test_a_journal_is_a_file_on_this_machine(place):
    with pytest.raises(ConfigurationError, match=r"^Journal\(\): path="):
        Journal(place)


async def test_the_place_of_a_next_step_is_read_as_that_of_a_batch(journal):
    (entry,) = (await journal.register(["a comet"])).entries
    with pytest.raises(ConfigurationError, match=r"^next_step\(\): output="):
        Journal.next_step(entry, output="https://bucket.example/videos")


@pytest.mark.parametrize("entry", [None, "a comet", VideoRequest("a comet"), 0], ids=quote_value)
def test_the_next_step_of_what_is_no_entry_is_refused(entry):
    with pytest.raises(InvalidRequestError, match=r"^next_step\(\): An entry of a journal is wanted, not "):
        Journal.next_step(entry)


async def test_a_new_item_is_registered_as_not_submitted_and_costs_nothing(journal):
    registered = await journal.register(["a", {"prompt": "b"}], duration=10)
    entries = tuple(journal.entries())
    assert registered == RegisteredBatch(entries=entries, dropped=0)
    assert [entry.request for entry in entries] == requests("a", "b", duration=10)
    assert {(entry.state, entry.attempts, entry.cost_usd) for entry in entries} == {
        (EntryState.NOT_SUBMITTED, 0, None)
    }


async def test_a_prompt_that_looks_like_a_mistake_is_registered_only_if_it_is_meant(journal):
    for call in (journal.register, journal.preview):
        with pytest.raises(InvalidRequestError, match="looks like a comment"):
            await call(["# a comment"])
    assert len(await journal.preview(["# a comment"], allow_suspicious=True)) == 1
    assert len((await journal.register(["# a comment"], allow_suspicious=True)).entries) == 1


async def test_an_item_that_the_journal_has_is_left_as_it_is(journal):
    await journal.register(requests("a"))
    send(journal, 1, request_id="r1")
    first, second, third = (await journal.register(requests("a", "a", "b"))).entries
    assert (first.state, first.request_id) == (EntryState.SUBMITTED, "r1")
    assert (second.state, third.state) == (EntryState.NOT_SUBMITTED, EntryState.NOT_SUBMITTED)
    assert [entry.identity.occurrence for entry in journal.entries()] == [0, 1, 0]
    assert [entry.request_id for entry in journal.entries()] == ["r1", None, None]


async def test_registered_entries_stand_in_the_order_of_the_input(journal):
    await journal.register(requests("a", "b"))
    registered = await journal.register(requests("b", "c", "a"))
    assert [entry.payload["prompt"] for entry in registered.entries] == ["b", "c", "a"]


async def test_an_unsent_item_of_an_earlier_batch_is_dropped_until_it_is_registered_again(journal):
    await journal.register(requests("a", "mistake", "bought"))
    send(journal, 3)
    assert (await journal.register(requests("a", "b"))).dropped == 1
    assert [entry.state for entry in journal.entries()] == [
        EntryState.NOT_SUBMITTED,
        EntryState.DROPPED,
        EntryState.INTENDED,
        EntryState.NOT_SUBMITTED,
    ]
    assert (await journal.register(requests("mistake"))).dropped == 2
    (entry,) = (entry for entry in journal.entries() if entry.state is EntryState.NOT_SUBMITTED)
    assert (entry.payload, entry.attempts) == ({"prompt": "mistake"}, 0)


async def test_a_dropped_item_is_submitted_as_if_it_were_new(journal):
    await journal.register(requests("a"))
    await journal.register(requests("b"))
    send(journal, 1)
    assert next(journal.entries()).attempts == 1
    with closing(connect(journal.path)) as connection:
        assert connection.execute("SELECT count(*) FROM earlier_attempts").fetchone() == (0,)


async def test_a_journal_in_use_registers_nothing(journal):
    with open_journal(journal.path), pytest.raises(JournalError, match="is in use"):
        await journal.register(requests("a"))
    assert list(journal.entries()) == []


async def test_a_batch_that_cannot_be_written_is_an_error_and_unlocks_the_file(journal, monkeypatch):
    def fail(_store, _changes):
        raise JournalError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr("kling_async._journal.sqlite.store.SqliteStore.commit", fail)
        with pytest.raises(JournalError, match="The disk is full"):
            await journal.register(requests("a"))
    assert len((await journal.register(requests("a"))).entries) == 1


async def test_a_local_picture_is_found_from_any_folder(journal, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"cat")
    monkeypatch.chdir(tmp_path)
    await journal.register(requests("it moves", image="a.png"))
    (entry,) = journal.entries()
    assert entry.payload["image"] == str(tmp_path / "a.png")
    monkeypatch.chdir("/")
    digests = await PictureDigests().read(entry.request)
    assert ItemIdentifier().identify_entry(entry, digests) == entry.identity


@pytest.mark.parametrize("call", ["register", "preview"])
async def test_an_invalid_item_writes_nothing_unless_it_is_left_out(journal, path, tmp_path, call):
    (tmp_path / "lost.png").symlink_to("/proc/self/mem")  # a file that is there and cannot be read
    items = [VideoRequest("it moves", image=str(tmp_path / "lost.png")), {"prompts": "b"}, "a"]
    with pytest.raises(InvalidRequestError, match="2 of 3 requests are invalid"):
        await getattr(journal, call)(items)
    with pytest.raises(InvalidRequestError, match=r"lost\.png' cannot be read"):
        await getattr(journal, call)(items[:1])
    assert not path.exists()
    result = await getattr(journal, call)(items, skip_invalid=True)
    entries = result if call == "preview" else result.entries
    assert [entry.payload for entry in entries] == [{"prompt": "a"}]


@pytest.mark.parametrize("call", ["register", "preview"])
async def test_a_picture_that_is_removed_after_the_check_writes_nothing(journal, path, tmp_path, call):
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for picture in pictures:
        picture.write_bytes(b"a picture")

    async def remove():
        pictures[1].unlink()

    removal = asyncio.create_task(remove())  # runs while the first picture is read in a thread
    with pytest.raises(InvalidRequestError, match=r"b\.png' cannot be read"):
        await getattr(journal, call)([VideoRequest("it moves", image=picture) for picture in pictures])
    await removal
    assert not path.exists()


@pytest.mark.parametrize("call", ["register", "preview"])
async def test_a_wrong_option_names_the_call(journal, call):
    with pytest.raises(TypeError, match=rf"^{call}\(\).*'durations'"):
        await getattr(journal, call)(["a"], durations=5)


async def test_another_picture_by_the_same_name_is_not_sent_for_the_old_one(journal, tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"cat")
    await journal.register(requests("it moves", image=str(picture)))
    picture.write_bytes(b"dog")
    (entry,) = journal.entries()
    with pytest.raises(InvalidRequestError, match=r"a\.png' has changed since item 0"):
        ItemIdentifier().identify_entry(entry, await PictureDigests().read(entry.request))


async def test_a_preview_shows_each_entry_and_writes_nothing(journal, path):
    (new,) = await journal.preview(["a"], duration=10)
    assert (new.number, new.state, new.request) == (
        0,
        EntryState.NOT_SUBMITTED,
        VideoRequest("a", model="kling-v2-6", duration=10),
    )
    assert not path.exists()
    await journal.register(requests("a"))
    before = path.read_bytes()
    first, second = await journal.preview(requests("a", "a"))
    assert (first, second.number, second.identity.occurrence) == (next(journal.entries()), 0, 1)
    assert path.read_bytes() == before


async def test_the_next_step_of_a_made_video_depends_on_its_file(journal, tmp_path):
    (entry,) = (await journal.register(["a"])).entries
    assert journal.next_step(entry) is NextStep.SUBMIT
    video = tmp_path / "videos" / "v.mp4"
    video.parent.mkdir()
    video.write_bytes(b"1234")
    send(journal, 1, request_id="r1", state=EntryState.SUCCEEDED, file=video)
    (made,) = journal.entries()
    assert journal.next_step(made) is NextStep.REPORT
    assert journal.next_step(made, output=video.parent) is NextStep.REPORT
    assert journal.next_step(made, output=tmp_path) is NextStep.DOWNLOAD
    video.write_bytes(b"123")
    assert journal.next_step(made, output=video.parent) is NextStep.DOWNLOAD


async def test_a_failed_entry_is_submitted_again_only_on_request(journal):
    await journal.register(["a"])
    send(journal, 1, request_id="r1", state=EntryState.FAILED)
    (failed,) = journal.entries()
    assert journal.next_step(failed, output=".") is NextStep.REPORT
    assert journal.next_step(failed, retry_failed=True) is NextStep.SUBMIT


async def test_a_request_without_a_model_is_the_item_that_an_earlier_release_wrote():
    implicit = ItemIdentifier().identify_request(VideoRequest("rain", duration=5), {})
    explicit = ItemIdentifier().identify_request(VideoRequest("rain", model="kling-v2-6", duration=5), {})
    assert implicit == explicit
    assert implicit.fingerprint == "7f3f375513539c284367b7e3224a9d1c"


async def test_a_registered_item_has_the_index_of_its_last_batch(journal):
    async def indices(*given, call=journal.register):
        found = await call(given, skip_invalid=True)
        return [entry.index for entry in (found.entries if call == journal.register else found)]

    assert await indices("a", {}, "b", call=journal.preview) == [0, 2]
    assert await indices("a", {}, "b") == [0, 2]
    assert await indices("b", "a") == [0, 1]
    assert await indices("a", "b", "c", call=journal.preview) == [0, 1, 2]
    assert {entry.payload["prompt"]: entry.index for entry in journal.entries()} == {"a": 1, "b": 0}


async def test_a_journal_in_a_database_is_a_journal(database):
    journal = Journal(database)
    name = database.replace(":s3cret-of-the-database@", "@")
    assert (journal.path, str(journal), repr(journal)) == (name, name, f"<Journal {name!r}>")
    assert journal.is_database
    assert not journal.exists()
    assert [entry.number for entry in await journal.preview(["a cat"])] == [0]

    registered = await journal.register(["a cat", "a dog"])

    assert journal.exists()
    assert registered.dropped == 0
    assert list(journal.entries()) == list(registered.entries)
    again = await journal.register(["a dog", "a fox"])
    assert again.dropped == 0
    assert again.entries[0].number == registered.entries[1].number
    assert len(list(journal.entries())) == 3
    with pytest.raises(ConfigurationError, match="is a database, and no file"):
        os.fspath(journal)


def test_a_journal_can_be_named_by_another(tmp_path):
    journal = Journal(tmp_path / "run.db")
    assert Journal(journal).path == journal.path
    assert not journal.is_database
    assert not journal.exists()


async def test_entries_are_read_with_for_and_with_async_for(journal):
    await journal.register([f"prompt {number}" for number in range(1_200)])
    numbers = list(range(1, 1_201))
    assert [entry.number for entry in journal.entries()] == numbers
    assert [entry.number async for entry in journal.entries()] == numbers


async def test_entries_can_be_taken_in_both_ways_one_after_the_other(journal):
    await journal.register(["a", "b", "c", "d"])
    entries = journal.entries()
    taken = [next(entries), await anext(entries), next(entries), *entries]
    assert [entry.number for entry in taken] == [1, 2, 3, 4]
    assert [entry async for entry in entries] == []


@pytest.mark.unmeasured
async def test_other_tasks_have_their_turn_while_entries_are_read(journal):
    await journal.register([f"prompt {number}" for number in range(1_200)])
    turns = []

    async def count():
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    async for _ in journal.entries():
        pass
    task.cancel()
    assert len(turns) >= 3


async def test_an_error_ends_the_entries_and_is_no_end_of_the_journal(path, journal):
    await journal.register(["a", "b"])
    entries = journal.entries()
    path.unlink()
    with pytest.raises(JournalError, match="could not be read"):
        await anext(entries)
