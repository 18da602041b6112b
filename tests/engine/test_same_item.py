"""Which items of a later run are items of an earlier one: what no reader sees makes no difference."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from virtual_service import Service, always, on, reply, run

from kling_async import APIConnectionError, ConfigurationError, InvalidRequestError, ResultState, VideoRequest
from kling_async._journal.open_journal import open_journal
from kling_async._journal.sqlite.schema import MIGRATIONS
from kling_async._journal.sqlite.store import SqliteStore
from kling_async.emulator import JobScript
from kling_async.journal import EntryState, Journal

VERSION_1 = Path(__file__).parents[1] / "journal" / "version_1.sql"
PICTURE = b"\x89PNG picture of a cat"
LOST = APIConnectionError("the connection was lost")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


@pytest.fixture
def old(path):
    """A journal of version 1, written before the visible text was the identity."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.read_text())
    return path


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(PICTURE)
    return path


async def run_with(path, service, requests, **settings):
    with open_journal(path) as journal:
        return await run(service, requests, journal=journal, **settings)


def bodies(service):
    return [json.loads(one.body)["payload"] for one in service.requests if service.kind(one) == "submit"]


def requests_of_version_1(picture, *, change):
    return [
        VideoRequest(change("a cat\r\nat night")),
        VideoRequest(change("a cat\nat night")),
        VideoRequest(change("an eagle\n"), duration=10),
        VideoRequest(change("an eagle"), duration=10),
        VideoRequest(change("cafe\u0301 au lait")),
        VideoRequest(change("\u00a0the sea\u00a0at dawn ")),
        VideoRequest(change("a fox"), key="row 1\r"),
        VideoRequest("a city\n", image=picture),
        VideoRequest(change("plain")),
        VideoRequest(change("a wolf "), extra={"camera": {"note": change("slow\r\npan")}}),
    ]


RESPELL = {
    "as it was": lambda text: text,
    "LF": lambda text: text.replace("\r\n", "\n"),
    "CRLF": lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n"),
    "bare": lambda text: text.replace("\r\n", "\n").replace("\u00a0", " ").replace("e\u0301", "é").strip(),
    "padded": lambda text: f"\n {text}\u00a0",
}


@pytest.mark.parametrize("change", RESPELL.values(), ids=RESPELL)
async def test_a_journal_of_version_1_matches_under_any_spelling(old, picture, change):
    service = Service()
    results = await run_with(old, service, requests_of_version_1(picture, change=change))
    assert [result.state for result in results] == [ResultState.SUCCEEDED] * 10
    assert len({result.job.request_id for result in results}) == 10
    assert service.posts == 0


async def test_equal_items_of_version_1_are_counted(old):
    service = Service()
    await run_with(old, service, [VideoRequest("an eagle", duration=10)] * 3)
    assert service.posts == 1


async def test_a_lost_submit_of_version_1_is_matched_by_what_was_sent(old):
    job = JobScript(request_id="a job that the journal does not have")
    service = Service(script=lambda _: job)
    service.accept({"prompt": "lost\r\n"})
    [result] = await run_with(old, service, ["lost"])
    assert result.ok
    assert (result.job.request_id, service.posts) == (job.request_id, 0)


async def test_the_public_journal_of_version_1_previews_and_registers_the_same_entries(old, picture):
    requests = requests_of_version_1(picture, change=RESPELL["bare"])
    previewed = await Journal(old).preview(requests)
    registered = await Journal(old).register(requests)
    numbers = [1, 2, 3, 4, 5, 6, 7, 11, 9, 10]
    assert [entry.number for entry in previewed] == numbers
    assert [entry.number for entry in registered.entries] == numbers
    assert registered.dropped == 0


async def test_an_entry_of_version_1_with_a_local_picture_continues_as_an_entry(old, picture):
    service = Service()
    with closing(sqlite3.connect(old)) as connection:  # as `register` wrote it: with the path, and not sent
        payload = json.dumps({"prompt": "a city\n", "image": str(picture)})
        connection.execute(
            "UPDATE entries SET payload = ?, state = 'not_submitted', request_id = NULL WHERE number = 11",
            [payload],
        )
        connection.commit()
    entry = next(entry for entry in Journal(old).entries() if entry.number == 11)
    picture.write_bytes(b"\x89PNG another picture")
    [result] = await run_with(old, service, [entry])
    assert isinstance(result.error, InvalidRequestError)
    picture.write_bytes(PICTURE)
    service.before.append(
        on(
            "upload-url",
            reply(
                200, {"upload_url": "https://storage.example/up", "public_url": "https://storage.example/1"}
            ),
        )
    )
    service.before.append(on("up", reply(200, b"")))
    [result] = await run_with(old, service, [entry])
    assert result.ok
    assert bodies(service) == [{"prompt": "a city\n", "image": "https://storage.example/1"}]


def test_only_the_identities_that_differ_are_rewritten(old):
    SqliteStore(old, migrations=MIGRATIONS[:1]).close()
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("UPDATE entries SET occurrence = 7 WHERE number = 9")
        connection.commit()
    by_number = {entry.number: entry for entry in Journal(old).entries()}
    assert by_number[9].identity.occurrence == 7
    assert [by_number[number].identity.occurrence for number in (1, 2, 3, 4)] == [0, 1, 0, 1]
    assert by_number[1].payload == {"prompt": "a cat\r\nat night"}
    assert by_number[7].identity.key == "row 1"
    assert len({entry.identity for entry in by_number.values()}) == 11


@pytest.mark.parametrize("respelt", ["a cat\r\n", "\u00a0a cat", "a\u00a0cat", "a cat\u200b"])
async def test_a_later_run_buys_nothing_for_another_spelling(path, respelt):
    service = Service()
    await run_with(path, service, ["a cat"])
    [result] = await run_with(path, service, [respelt])
    assert (result.ok, service.posts) == (True, 1)


async def test_two_spellings_in_one_batch_are_two_items_and_both_are_sent_as_they_were_given(path):
    service = Service()
    await run_with(path, service, ["a cat", "a cat\r\n"], at_once=1)
    assert bodies(service) == [{"prompt": "a cat"}, {"prompt": "a cat\r\n"}]
    await run_with(path, service, ["a cat\n", "a cat "])
    assert service.posts == 2
    await run_with(path, service, ["a cat"] * 3)
    assert service.posts == 3


async def test_a_lost_submit_under_another_spelling_is_matched_by_what_was_sent(path):
    service = Service(after=[on("submit", LOST)])
    service.before.append(on("list", None, reply(403, {"error": "no"})))
    [result] = await run_with(path, service, ["a cat\r\n"])
    assert result.state is ResultState.AMBIGUOUS
    [result] = await run_with(path, service, ["a cat"])
    assert result.ok
    assert result.job.payload == {"prompt": "a cat\r\n"}
    assert service.posts == 1


async def test_a_key_counts_by_its_visible_text(path):
    service = Service()
    await run_with(path, service, [VideoRequest("a cat", key="row 1")])
    await run_with(path, service, [VideoRequest("a cat", key=" row 1\r\n")])
    assert service.posts == 1


async def test_a_registered_entry_and_its_request_in_another_spelling_are_one_item(path):
    service = Service()
    registered = await Journal(path).register(["a cat\n"])
    assert registered.entries[0].state is EntryState.NOT_SUBMITTED
    again = await Journal(path).register([" a cat"])
    assert (again.entries[0].number, again.dropped) == (1, 0)
    results = await run_with(path, service, [again.entries[0], "a cat"])
    assert service.posts == len(results) == 2
    repeated = await run_with(path, service, ["a cat", again.entries[0]], at_once=1)
    assert [type(result.error) for result in repeated] == [type(None), ConfigurationError]


async def test_each_attempt_of_an_item_keeps_what_it_sent(path):
    service = Service(before=[always("submit", LOST)])
    await run_with(path, service, ["a cat\n"])
    await run_with(path, service, ["a cat"], on_ambiguous="resend")
    assert bodies(service) == [{"prompt": "a cat\n"}, {"prompt": "a cat"}]
    with open_journal(path) as journal:
        assert [entry.payload for entry in journal._entries.find_unknown()] == bodies(service)
