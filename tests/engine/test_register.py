from __future__ import annotations

from contextlib import closing
from sqlite3 import connect

import pytest

from kling_async import InvalidRequestError, VideoRequest
from kling_async._engine.batch.item_identifier import ItemIdentifier
from kling_async._engine.batch.register import RegisteredBatch, register_batch
from kling_async._journal.entry import EntryState
from kling_async._journal.journal import Journal


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "run.db") as journal:
        yield journal


def requests(*prompts, **options):
    return [VideoRequest(prompt, **options) for prompt in prompts]


async def test_what_is_new_is_written_down_as_not_submitted_and_costs_nothing(journal):
    assert await register_batch(journal, requests("a", "b", duration=10), at=5.0) == RegisteredBatch(
        [None, None], dropped=0
    )
    entries = list(Journal.read(journal.path))
    assert [entry.request for entry in entries] == requests("a", "b", duration=10)
    assert {(entry.state, entry.attempts, entry.cost_usd) for entry in entries} == {
        (EntryState.NOT_SUBMITTED, 0, None)
    }


async def test_what_is_known_is_left_as_it_is_and_told(journal):
    await register_batch(journal, requests("a"), at=5.0)
    journal.record_intent(
        next(journal.entries()).identity, model="kling-v2-6", payload={"prompt": "a"}, at=6.0, cost_usd=None
    )
    journal.record_accepted(1, request_id="r1", record={"status": "queued"})
    first, second, third = (await register_batch(journal, requests("a", "a", "b"), at=7.0)).known
    assert first.request_id == "r1"
    assert (second, third) == (None, None)
    assert [entry.identity.occurrence for entry in journal.entries()] == [0, 1, 0]
    assert [entry.request_id for entry in journal.entries()] == ["r1", None, None]


async def test_what_an_earlier_order_left_unsent_is_dropped_and_can_be_asked_for_again(journal):
    await register_batch(journal, requests("a", "mistake", "bought"), at=5.0)
    bought = list(journal.entries())[2]
    journal.record_intent(bought.identity, model="kling-v2-6", payload=bought.payload, at=6.0, cost_usd=None)
    again = await register_batch(journal, requests("a", "b"), at=7.0)
    assert again.dropped == 1
    assert [entry.state for entry in journal.entries()] == [
        EntryState.NOT_SUBMITTED,
        EntryState.DROPPED,
        EntryState.INTENDED,
        EntryState.NOT_SUBMITTED,
    ]
    assert (await register_batch(journal, requests("mistake"), at=8.0)).dropped == 2
    (entry,) = (entry for entry in Journal.read(journal.path) if entry.state is EntryState.NOT_SUBMITTED)
    assert (entry.payload, entry.attempts) == ({"prompt": "mistake"}, 0)


async def test_what_was_dropped_is_sent_when_it_is_asked_for_as_if_it_were_new(journal):
    await register_batch(journal, requests("a"), at=5.0)
    await register_batch(journal, requests("b"), at=6.0)
    entry = next(journal.entries())
    journal.record_intent(entry.identity, model=entry.model, payload=entry.payload, at=7.0, cost_usd=None)
    await journal.flush()
    assert next(journal.entries()).attempts == 1
    with closing(connect(journal.path)) as connection:
        assert connection.execute("SELECT count(*) FROM earlier_attempts").fetchone() == (0,)


async def test_a_picture_is_found_again_from_any_folder(journal, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"cat")
    monkeypatch.chdir(tmp_path)
    await register_batch(journal, requests("it moves", image="a.png"), at=5.0)
    (entry,) = journal.entries()
    assert entry.payload["image"] == str(tmp_path / "a.png")
    monkeypatch.chdir("/")
    assert await ItemIdentifier().claim(entry) == entry.identity


async def test_a_picture_that_cannot_be_read_is_left_out(journal):
    lost = VideoRequest("it moves", image="lost.png")
    assert await register_batch(journal, [lost, VideoRequest("a")], at=5.0) == RegisteredBatch(
        [None], dropped=0
    )
    assert len(list(journal.entries())) == 1


async def test_another_picture_by_the_same_name_is_not_sent_for_the_old_one(journal, tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"cat")
    await register_batch(journal, requests("it moves", image=str(picture)), at=5.0)
    picture.write_bytes(b"dog")
    (entry,) = journal.entries()
    with pytest.raises(InvalidRequestError, match=r"a\.png' is another picture than when entry 1"):
        await ItemIdentifier().claim(entry)


async def test_a_picture_of_many_requests_is_read_once(journal, tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"cat")
    identities = ItemIdentifier()
    [request] = requests("it moves", image=str(picture))
    first = await identities.of(request)
    picture.unlink()
    second = await identities.of(request)
    assert first.fingerprint == second.fingerprint
    assert (first.occurrence, second.occurrence) == (0, 1)
