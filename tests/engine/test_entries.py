"""A batch whose items are entries of its journal."""

from __future__ import annotations

import gc

import anyio
import pytest
from virtual_service import EPOCH, FAILED, KEY, Service, batch_of, prompts, run

from kling_async import BatchInterruptedError, ConfigurationError, KlingClient, ResultState, VideoRequest
from kling_async._engine.batch.batch_input import InputReader
from kling_async._engine.batch.given_entries import require_entries
from kling_async._journal.entry import Entry, EntryState, Identity
from kling_async._policy.budget import Budget
from kling_async.emulator import JobScript
from kling_async.journal import Journal
from tests.engine.test_resume import journal_at, leave_after, run_with, states


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


def entries(path):
    return list(Journal(path).entries())


async def test_entries_resume_without_their_prompts_and_keep_their_identities(path):
    service = Service(run_time=100.0)
    await leave_after(30, path, service, prompts(6), at_once=3)
    await Journal(path).register([VideoRequest(prompt) for prompt in prompts(6)])
    before = entries(path)
    results = await run_with(path, service, before)
    assert service.posts == 6
    assert all(result.ok for result in results)
    assert {result.index: result.request.prompt for result in results} == dict(enumerate(prompts(6)))
    assert [entry.identity for entry in entries(path)] == [entry.identity for entry in before]
    await run_with(path, service, entries(path))
    await run_with(path, service, prompts(6))
    assert service.posts == 6


def count_entries():
    gc.collect()
    return sum(isinstance(one, Entry) for one in gc.get_objects())


@pytest.mark.parametrize("give", [entries, lambda path: prompts(6)], ids=["entries", "prompts"])
async def test_no_entry_is_kept_in_memory_while_its_job_is_in_flight(path, give):
    service = Service(run_time=100.0)
    await leave_after(30, path, service, prompts(6))
    before = count_entries()
    items = give(path)
    with journal_at(path) as journal:
        async with batch_of(service, (items.pop(0) for _ in range(6)), journal=journal) as results:
            await anyio.sleep(30)
            assert count_entries() == before
            assert [result.ok async for result in results] == [True] * 6


async def test_failed_entries_are_retried_only_on_request_and_only_those_given(path):
    service = Service(run_time=10.0, script=lambda number: FAILED if number < 2 else JobScript())
    await run_with(path, service, prompts(3))
    [reported, _, _] = sorted(await run_with(path, service, entries(path)), key=lambda result: result.index)
    assert (reported.state, service.posts) == (ResultState.FAILED, 3)
    failed = [entry for entry in entries(path) if entry.state is EntryState.FAILED]
    [again] = await run_with(path, service, failed[:1], retry_failed=True)
    assert (again.ok, service.posts) == (True, 4)
    assert states(path) == [EntryState.SUCCEEDED, EntryState.FAILED, EntryState.SUCCEEDED]


async def read_all(reader):
    items = []
    while (item := await reader.next_item()) is not None:
        items.append(item)
    return items


CHANGES = [
    ({"duration": 10}, "duration=10 cannot change item 0: .* without one"),
    ({"duration": "10", "model": "kling-v2-6"}, "duration=10 cannot"),
    ({"model": "kling-v1-6"}, "model='kling-v1-6' cannot change item 0: .* with 'kling-v2-6'"),
    ({"sound": True}, "sound=True"),
    ({"sound": "on"}, "sound=True"),
    ({"image": "eagle.png"}, "image='eagle.png' .* without one"),
    ({"extra": {"seed": 8}}, "seed=8 .* with 7"),
    ({"extra": {"style": "x"}}, "style='x' .* without one"),
    # What makes no valid request for the given model is a mistake of the call, and no item is left out for it.
    ({"mode": "std", "model": "kling-v2-6"}, "cannot change item 0, .* mode must be 'pro'"),
    ({"duration": 7, "model": "kling-v2-6"}, "cannot change item 0, .* duration must be 5 or 10"),
    ({"resolution": "1080p", "model": "kling-v2-6"}, "cannot change item 0, .* takes no resolution"),
    ({"image": "eagle.gif", "model": "kling-v2-6"}, "cannot change item 0, .* image must be"),
    ({"extra": {"image": "eagle.png"}}, "cannot change item 0, .* is the file"),
]


@pytest.mark.parametrize("form", [list, iter], ids=["list", "iterator"])
@pytest.mark.parametrize("options, message", CHANGES)
async def test_an_option_that_would_change_an_entry_is_refused(path, form, options, message):
    await Journal(path).register([VideoRequest("x", sound=False, extra={"seed": 7})])
    with pytest.raises(ConfigurationError, match=message):
        await read_all(InputReader(form(entries(path)), options, skip_invalid=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"duration": 5, "sound": "off", "model": "kling-v2-6"},
        {"duration": "5.0", "mode": None, "negative_prompt": ""},
        {"image": "eagle.png", "extra": {"seed": 7}},
    ],
)
async def test_options_that_an_entry_has_already_stand_beside_it(path, tmp_path, options, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eagle.png").write_bytes(b"picture")
    request = VideoRequest("x", duration=5, sound=False, image="eagle.png", extra={"seed": 7})
    await Journal(path).register([request])
    [item] = await read_all(InputReader(entries(path), options, skip_invalid=False))
    assert item.request.duration == 5


async def test_no_option_changes_an_entry_that_no_valid_request_makes(path):
    add_invalid_entry(path, EntryState.NOT_SUBMITTED)
    [item] = await read_all(InputReader(entries(path), {"duration": 10}, skip_invalid=False))
    assert item.request is None


async def test_an_option_is_for_the_requests_beside_an_entry_that_has_it(path):
    await Journal(path).register([VideoRequest("x", duration=10)])
    items = await read_all(InputReader([*entries(path), "new"], {"duration": 10}, skip_invalid=False))
    assert [item.request.duration for item in items] == [10, 10]


async def test_a_cap_needs_the_prices_of_entries_too(path):
    await Journal(path).register([VideoRequest("x")])
    reader = InputReader(entries(path), {}, skip_invalid=False, check=Budget({}, 1).price)
    with pytest.raises(ConfigurationError, match="price of 'kling-v2-6' is not known"):
        await reader.check()


async def test_an_entry_without_its_journal_is_not_submitted_as_a_new_item(path, tmp_path):
    service = Service(run_time=10.0)
    await run_with(path, service, ["x"])
    [result] = await run_with(tmp_path / "other.db", service, entries(path))
    assert service.posts == 1
    assert result.state is ResultState.NOT_SUBMITTED
    assert str(result.error).startswith("Item 0 is not in the journal of this batch")


@pytest.mark.parametrize("skip_invalid", [False, True])
@pytest.mark.parametrize("call", ["generate_many", "stream_many"])
async def test_entries_without_their_journal_are_refused_before_anything_is_made(
    path, tmp_path, call, skip_invalid
):
    await Journal(path).register(["x", "y"])
    given = entries(path)
    missing, other, videos = tmp_path / "missing.db", tmp_path / "other.db", tmp_path / "videos"
    await Journal(other).register(["x", "z", "y"])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    async def use(items, **options):
        async with KlingClient(KEY, base_url="https://127.0.0.1:1") as client:
            if call == "generate_many":
                await client.generate_many(
                    items, output=videos, skip_invalid=skip_invalid, progress=False, **options
                )
            else:
                async with client.stream_many(
                    items, output=videos, skip_invalid=skip_invalid, **options
                ) as results:
                    assert [result async for result in results] == []

    for items, options, message in [
        (given, {}, r"Item 0 is an entry of a journal, and the batch has no journal. Give journal="),
        (["new", given[1]], {}, "Item 1 is an entry of a journal"),
        (given, {"journal": missing}, "Item 0 is not in the journal of this batch"),
        (given, {"journal": other}, "Item 1 is not in the journal of this batch"),
        ([given[0], given[0]], {"journal": path}, "is in this batch already"),
        (given, {"journal": path, "duration": 10}, "duration=10 cannot change item 0"),
    ]:
        with pytest.raises(ConfigurationError, match=message) as caught:
            await use(items, **options)
        assert caught.value.call == call
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("chosen", [[0], [2], [2, 0], [0, 1, 2], []])
async def test_entries_of_the_journal_are_accepted_in_any_order(path, chosen):
    await Journal(path).register(["x", "y", "z"])
    await require_entries([entries(path)[index] for index in chosen], str(path))


async def test_an_entry_of_an_iterator_without_its_journal_ends_the_batch(path):
    await Journal(path).register(["x"])
    async with KlingClient(KEY, base_url="https://127.0.0.1:1") as client:
        with pytest.raises(BatchInterruptedError, match="Item 0 is an entry of a journal"):
            await client.generate_many(Journal(path).entries(), progress=False)


@pytest.mark.parametrize("order", [[0, 0], [0, "x"], ["x", 0]])
async def test_an_item_given_twice_is_not_submitted_twice(path, order):
    service = Service(run_time=10.0)
    await Journal(path).register([VideoRequest("x")])
    [entry] = entries(path)
    results = await run_with(path, service, [entry if item == 0 else item for item in order])
    is_next_equal_item = order == [0, "x"]  # an equal prompt after the entry is a new item
    assert service.posts == len(entries(path)) == 1 + is_next_equal_item
    refused = [result for result in results if not result.ok]
    assert len(refused) == (not is_next_equal_item)
    assert all("is in this batch already" in str(result.error) for result in refused)


def add_invalid_entry(path, state, request_id=None):
    """Add an entry with a payload that no valid request makes."""
    with journal_at(path) as journal:
        identity = Identity(key=None, fingerprint="f", occurrence=0)
        payload = {"text": "x"}
        number = journal.record_intent(identity, model="kling-v2-6", payload=payload, at=EPOCH, cost_usd=None)
        if request_id is not None:
            journal.record_job(number, request_id=request_id, record={"status": "queued"})
        if state is EntryState.NOT_SUBMITTED:
            journal.record_not_accepted(number, error="refused")


async def test_the_job_of_an_entry_without_a_valid_request_is_polled_and_saved(path, tmp_path):
    service = Service(run_time=10.0)
    await run(service, ["x"])
    add_invalid_entry(path, EntryState.SUBMITTED, "job-0")
    folder = tmp_path / "videos"
    folder.mkdir()
    [result] = await run_with(path, service, entries(path), folder=folder)
    assert (result.ok, result.request) == (True, None)
    assert result.path.exists()


async def test_an_entry_without_a_valid_request_is_not_submitted(path):
    service = Service(run_time=10.0)
    add_invalid_entry(path, EntryState.NOT_SUBMITTED)
    [result] = await run_with(path, service, entries(path))
    assert (result.state, service.posts) == (ResultState.NOT_SUBMITTED, 0)
    assert "no valid request makes" in str(result.error)


async def test_a_saved_video_is_found_after_its_folder_was_renamed(path, tmp_path):
    service = Service(run_time=10.0)
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    [saved] = await run_with(path, service, ["x"], folder=before)
    before.rename(after)
    events = []
    [result] = await run_with(path, service, ["x"], folder=after, notify=events.append)
    assert result.path == after / saved.path.name
    assert service.calls["media"] == 1
    assert events[0].path == result.path


async def test_entries_keep_their_indices_in_file_names_and_results(path, tmp_path):
    service = Service(run_time=10.0)
    await run_with(path, service, ["a", "b", "c", "d"])
    left = [entry for entry in entries(path) if entry.payload["prompt"] in {"b", "d"}]
    results = await run_with(path, service, left, folder=tmp_path)
    assert sorted((result.index, result.path.name[:8]) for result in results) == [
        (1, "00001-b-"),
        (3, "00003-d-"),
    ]
    assert [entry.index for entry in entries(path)] == [0, 1, 2, 3]


@pytest.mark.parametrize("form", [list, iter])
async def test_entries_in_any_iterable_keep_their_indices(path, form):
    await Journal(path).register(["a", {}, "b", "c"], skip_invalid=True)
    reader = InputReader(form(entries(path)), {}, skip_invalid=False)
    assert [(await reader.next_item()).index for _ in range(3)] == [0, 2, 3]
    reader = InputReader(form(entries(path)[::-1]), {}, skip_invalid=False)
    assert [(await reader.next_item()).index for _ in range(3)] == [3, 4, 5]
    mixed = InputReader(form([entries(path)[1], "new"]), {}, skip_invalid=False)
    assert [(await mixed.next_item()).index for _ in range(2)] == [2, 3]


async def test_entries_of_two_batches_get_the_places_of_the_input(path, tmp_path):
    service = Service(run_time=10.0)
    await run_with(path, service, ["a", "b"])
    await run_with(path, service, ["c"])
    assert [entry.index for entry in entries(path)] == [0, 1, 0]
    results = await run_with(path, service, entries(path), folder=tmp_path)
    assert sorted(result.index for result in results) == [0, 1, 2]
    assert [entry.index for entry in entries(path)] == [0, 1, 2]


async def test_an_item_in_another_place_gets_its_new_index_and_is_not_paid_for_again(path):
    service = Service(run_time=10.0)
    await run_with(path, service, ["a", "b"])
    results = await run_with(path, service, ["new", "b", "a"])
    assert {result.request.prompt: result.index for result in results} == {"new": 0, "b": 1, "a": 2}
    assert {entry.payload["prompt"]: entry.index for entry in entries(path)} == {"a": 2, "b": 1, "new": 0}
    assert service.posts == 3
