from __future__ import annotations

import pytest

from kling_async import InvalidRequestError, VideoRequest
from kling_async._engine.identities import Identities
from kling_async._engine.plan import plan
from kling_async._journal.entry import EntryState
from kling_async._journal.journal import Journal


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "run.db") as journal:
        yield journal


def requests(*prompts, **options):
    return [VideoRequest(prompt, **options) for prompt in prompts]


async def test_what_is_new_is_written_down_as_not_submitted_and_costs_nothing(journal):
    assert await plan(journal, requests("a", "b", duration=10), at=5.0) == [None, None]
    entries = list(Journal.read(journal.path))
    assert [entry.request for entry in entries] == requests("a", "b", duration=10)
    assert {(entry.state, entry.attempts, entry.cost_usd) for entry in entries} == {
        (EntryState.NOT_SUBMITTED, 0, None)
    }


async def test_what_is_known_is_left_as_it_is_and_told(journal):
    await plan(journal, requests("a"), at=5.0)
    journal.intend(
        next(journal.entries()).identity, model="kling-v2-6", payload={"prompt": "a"}, at=6.0, cost_usd=None
    )
    journal.accept(1, request_id="r1", record={"status": "queued"})
    first, second, third = await plan(journal, requests("a", "a", "b"), at=7.0)
    assert first.request_id == "r1"
    assert (second, third) == (None, None)
    assert [entry.identity.occurrence for entry in journal.entries()] == [0, 1, 0]
    assert [entry.request_id for entry in journal.entries()] == ["r1", None, None]


async def test_a_picture_is_found_again_from_any_folder(journal, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"cat")
    monkeypatch.chdir(tmp_path)
    await plan(journal, requests("it moves", image="a.png"), at=5.0)
    (entry,) = journal.entries()
    assert entry.payload["image"] == str(tmp_path / "a.png")
    monkeypatch.chdir("/")
    assert await Identities().claim(entry) == entry.identity


async def test_a_picture_that_cannot_be_read_is_left_out(journal):
    lost = VideoRequest("it moves", image="lost.png")
    assert await plan(journal, [lost, VideoRequest("a")], at=5.0) == [None]
    assert len(list(journal.entries())) == 1


async def test_another_picture_by_the_same_name_is_not_sent_for_the_old_one(journal, tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"cat")
    await plan(journal, requests("it moves", image=str(picture)), at=5.0)
    picture.write_bytes(b"dog")
    (entry,) = journal.entries()
    with pytest.raises(InvalidRequestError, match=r"a\.png' is another picture than when entry 1"):
        await Identities().claim(entry)


async def test_a_picture_of_many_requests_is_read_once(journal, tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"cat")
    identities = Identities()
    [request] = requests("it moves", image=str(picture))
    first = await identities.of(request)
    picture.unlink()
    second = await identities.of(request)
    assert first.fingerprint == second.fingerprint
    assert (first.occurrence, second.occurrence) == (0, 1)
