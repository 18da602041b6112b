from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import anyio
import pytest
from virtual_journal import journal_at
from virtual_service import (
    EPOCH,
    FAILED,
    KEY,
    VIDEOS,
    Service,
    Stream,
    always,
    batch_of,
    on,
    prompts,
    reply,
    run,
)

from kling_async import (
    AmbiguousSubmitError,
    APIConnectionError,
    BudgetExceededError,
    ConfigurationError,
    JobFailedError,
    JournalError,
    KlingClient,
    PermissionDeniedError,
    PollingPolicy,
    ResultState,
    VideoRequest,
)
from kling_async._engine.batch.batch import count_earlier, use_journal
from kling_async._engine.batch.item_result import unsent_result
from kling_async._engine.batch.settings import BatchSettings
from kling_async._engine.submit.batch_item import BatchItem
from kling_async._journal.entry import EntryState, Identity, fingerprint
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.open_journal import read_journal
from kling_async._journal.sqlite.store import SqliteStore
from kling_async._policy.budget import Budget
from kling_async._secrets import Secret
from kling_async.emulator import JobScript
from kling_async.events import Finished, Resumed, Spent, SubmitReconciled, Submitted

LOST = APIConnectionError("the connection was lost")
PRICE = Decimal("0.35")


async def run_with(path, service, requests, **settings):
    with journal_at(path) as journal:
        return await run(service, requests, journal=journal, **settings)


async def leave_after(seconds, path, service, requests, **settings):
    with journal_at(path) as journal:
        async with batch_of(service, requests, journal=journal, **settings):
            await anyio.sleep(seconds)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


def states(path):
    return [entry.state for entry in read_journal(path)]


async def test_the_same_call_again_submits_nothing_and_gives_the_same_results(path):
    service = Service(run_time=40.0)
    first = await run_with(path, service, prompts(12))
    events = []
    second = await run_with(path, service, prompts(12), notify=events.append)
    assert service.posts == 12
    assert [
        (r.index, r.state, r.job.request_id, r.job.video_url) for r in sorted(second, key=lambda r: r.index)
    ] == [(r.index, r.state, r.job.request_id, r.job.video_url) for r in sorted(first, key=lambda r: r.index)]
    assert {type(event) for event in events} == {Resumed, Finished}


@pytest.mark.parametrize("column", ["state", "payload"])
async def test_an_item_whose_row_another_program_has_changed_is_not_sent_and_the_others_end(path, column):
    service = Service(run_time=40.0)
    await run_with(path, service, prompts(3))
    change_row(path, 2, **{column: "done"})
    results = sorted(await run_with(path, service, prompts(6)), key=lambda result: result.index)
    assert [result.index for result in results if not result.ok] == [1]
    assert results[1].state is ResultState.NOT_SUBMITTED
    assert f"Entry 2 of the journal cannot be read: its column '{column}'" in str(results[1].error)
    assert results[1].to_dict()["error_type"] == "JournalError"
    assert service.posts == 6


def change_row(path, number, **values):
    changes = ", ".join(f"{column} = ?" for column in values)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE entries SET {changes} WHERE number = ?", [*values.values(), number])  # noqa: S608 - our own names


@pytest.mark.parametrize("values", [{"payload": "[]"}, {"payload": "{"}, {"sent_at": "soon"}])
async def test_an_unpriced_row_that_another_program_has_changed_ends_a_call_with_a_cap_before_it_sends(
    path, values
):
    client = KlingClient(KEY, transport=(service := Service(run_time=5.0)))
    await client.generate_many(prompts(3), journal=path, progress=False)
    change_row(path, 2, **values)
    with pytest.raises(JournalError, match=r"Entry 2 of the journal cannot be read: .+ Put back") as caught:
        await client.generate_many(
            prompts(4), journal=path, max_cost_usd=20, prices="catalog", progress=False
        )
    assert type(caught.value) is JournalError
    assert service.posts == 3


async def test_a_lost_submit_beside_an_unreadable_one_names_the_row_to_put_back_and_no_other_step(path):
    await run_with(path, Service(run_time=5.0), prompts(1))
    change_row(path, 1, state="ambiguous", request_id=None, payload="[]")
    service = Service(before=[on("submit", LOST)])
    with journal_at(path) as journal:
        [result] = await run(service, ["x"], journal=journal)
    assert result.state is ResultState.AMBIGUOUS
    assert type(result.error.__cause__) is JournalError
    assert str(result.error).endswith("Put back what was there, then run the same call again.")


async def test_a_job_in_flight_of_an_earlier_run_is_polled_to_its_end(path):
    service = Service(run_time=100.0)
    await leave_after(30, path, service, prompts(8), at_once=4)
    assert service.posts == 4
    assert states(path) == [EntryState.SUBMITTED] * 4
    results = await run_with(path, service, prompts(8), at_once=4)
    assert all(result.ok for result in results)
    assert service.posts == len({result.job.request_id for result in results}) == 8
    assert service.most_in_flight <= 4


async def test_a_job_that_ended_between_the_runs_has_its_result_at_once(path):
    service = Service(run_time=100.0)
    await leave_after(30, path, service, ["x"])
    await anyio.sleep(1000)
    began = anyio.current_time()
    [result] = await run_with(path, service, ["x"])
    assert result.ok
    assert anyio.current_time() - began < 2


async def test_adding_removing_and_reordering_prompts_submits_only_the_new_ones(path):
    service = Service(run_time=10.0)
    await run_with(path, service, ["a", "b", "c", "a"])
    results = await run_with(path, service, ["c", "new", "a", "a", "a"])
    assert service.posts == 6
    prompt_of = {result.index: result.job.payload["prompt"] for result in results}
    assert [prompt_of[index] for index in range(5)] == ["c", "new", "a", "a", "a"]
    assert len({result.job.request_id for result in results}) == 5


async def test_a_changed_parameter_is_a_new_item_and_a_key_distinguishes_equal_items(path):
    service = Service(run_time=10.0)
    await run_with(path, service, [VideoRequest("a", key="1"), VideoRequest("a", key="2")])
    [changed] = await run_with(path, service, [VideoRequest("a", duration=10, key="1")])
    [same] = await run_with(path, service, [VideoRequest("a", key="2")])
    assert service.posts == 3
    assert (changed.job.request_id, same.job.request_id) == ("job-2", "job-1")


async def test_a_local_picture_is_identified_by_its_content(path, tmp_path):
    def upload(request, service):
        if service.kind(request) == "upload-url":
            where = f"https://storage.example/{service.calls['upload-url']}.png"
            return reply(200, {"upload_url": where, "public_url": where})
        return reply(200, b"") if request.method == "PUT" else None

    service = Service(run_time=10.0, before=[upload])
    for name, content in [("a.png", b"cat"), ("b.png", b"cat"), ("a.png", b"dog")]:
        picture = tmp_path / name
        picture.write_bytes(content)
        await run_with(path, service, [VideoRequest("moves", image=picture)])
    assert service.posts == 2


async def test_failed_items_are_retried_only_on_request(path):
    service = Service(run_time=10.0, script=lambda number: FAILED if number < 2 else JobScript())
    await run_with(path, service, prompts(3))
    again = await run_with(path, service, prompts(3))
    assert service.posts == 3
    failed = [result for result in again if not result.ok]
    assert [result.state for result in failed] == [ResultState.FAILED] * 2
    assert all(isinstance(result.error, JobFailedError) for result in failed)
    retried = await run_with(path, service, prompts(3), retry_failed=True)
    assert service.posts == 5
    assert all(result.ok for result in retried)


async def test_the_next_run_waits_again_for_a_job_that_timed_out(path):
    service = Service(run_time=500.0)
    [result] = await run_with(path, service, ["x"], polling=PollingPolicy(wait_timeout=60))
    assert result.state is ResultState.TIMED_OUT
    assert states(path) == [EntryState.TIMED_OUT]
    [result] = await run_with(path, service, ["x"])
    assert result.ok
    assert service.posts == 1


async def test_the_next_run_waits_again_for_a_job_whose_polls_were_refused(path):
    service = Service(run_time=100.0, before=[])
    await leave_after(10, path, service, ["x"])
    service.before.append(always("status", reply(401, {"error": "bad key"})))
    [result] = await run_with(path, service, ["x"], polling=PollingPolicy(wait_timeout=60, use_lists="never"))
    assert not result.ok
    service.before.clear()
    [result] = await run_with(path, service, ["x"])
    assert result.ok
    assert service.posts == 1


async def test_a_refused_item_is_submitted_by_the_next_run(path):
    service = Service(run_time=10.0, before=[on("submit", reply(402, {"error": "no credits"}))])
    [result] = await run_with(path, service, ["x"])
    assert result.state is ResultState.NOT_SUBMITTED
    [result] = await run_with(path, service, ["x"])
    assert result.ok
    assert service.posts == 2


async def test_the_next_run_reconciles_an_intent_without_an_answer(path):
    service = Service(run_time=300.0, latency=5.0, after=[on("submit", LOST)])
    with journal_at(path) as journal:
        number = _record_intent(journal)
        assert number == 1
    service.accept({"prompt": "x"})
    events = []
    [result] = await run_with(path, service, ["x"], notify=events.append)
    assert result.ok
    assert service.posts == 0
    assert SubmitReconciled in {type(event) for event in events}
    assert Submitted not in {type(event) for event in events}


async def test_an_intent_that_never_left_is_ambiguous_until_the_caller_says_resend(path):
    service = Service(run_time=10.0)
    with journal_at(path) as journal:
        _record_intent(journal)
    for _ in range(2):
        [result] = await run_with(path, service, ["x"])
        assert result.state is ResultState.AMBIGUOUS
    assert service.posts == 0
    assert states(path) == [EntryState.AMBIGUOUS]
    [result] = await run_with(path, service, ["x"], on_ambiguous="resend")
    assert result.ok
    assert service.posts == 1


async def test_an_item_that_may_have_been_accepted_is_never_not_submitted(path):
    budget = Budget({"kling-v2-6": PRICE}, PRICE)
    service = Service(run_time=10.0, before=[on("submit", LOST)])
    [result] = await run_with(path, service, ["x"], on_ambiguous="resend", budget=budget)
    assert (result.state, result.cost_usd) == (ResultState.AMBIGUOUS, PRICE)
    assert isinstance(result.error, AmbiguousSubmitError)
    assert states(path) == [EntryState.AMBIGUOUS]


async def test_a_refused_second_post_leaves_the_first_ambiguous(path):
    refused = reply(400, {"error": "no"})
    service = Service(run_time=10.0, before=[on("submit", LOST, refused)])
    [result] = await run_with(path, service, ["x"], on_ambiguous="resend")
    assert result.state is ResultState.AMBIGUOUS
    [result] = await run_with(path, service, ["x"])
    assert result.state is ResultState.AMBIGUOUS
    assert service.posts == 2
    assert [entry.attempts for entry in read_journal(path)] == [1]


async def test_the_job_of_a_first_post_is_found_though_the_second_was_refused_long_after(path):
    busy = reply(429, {"error": "slow"}, {"retry-after": "1000"})
    service = Service(
        run_time=10.0, after=[on("submit", LOST)], before=[on("submit", None, busy, reply(400))]
    )
    service.shows = lambda job: anyio.current_time() > 500
    [result] = await run_with(path, service, ["x"], on_ambiguous="resend")
    assert result.state is ResultState.AMBIGUOUS
    [result] = await run_with(path, service, ["x"])
    assert (result.ok, result.job.request_id) == (True, "job-0")
    assert len(service.jobs) == 1


async def test_the_job_of_a_resent_post_is_not_matched_to_a_request_with_fewer_parameters(path):
    service = Service(run_time=10.0, after=[on("submit", LOST)])
    service.shows = lambda job: anyio.current_time() > 50
    long = VideoRequest("x", duration=10)
    [result] = await run_with(path, service, [long], on_ambiguous="resend")
    assert (result.ok, result.job.request_id) == (True, "job-1")
    service.before.append(on("submit", LOST))
    results = await run_with(path, service, [long, VideoRequest("x")])
    assert {result.index: result.state for result in results} == {
        0: ResultState.SUCCEEDED,
        1: ResultState.AMBIGUOUS,
    }


async def test_leaving_during_a_pause_before_the_second_post_leaves_the_first_ambiguous(path):
    busy = reply(429, {"error": "slow"}, {"retry-after": "1000"})
    service = Service(run_time=10.0, before=[on("submit", LOST, busy)])
    await leave_after(100, path, service, ["x"], on_ambiguous="resend")
    assert states(path) == [EntryState.AMBIGUOUS]
    [result] = await run_with(path, service, ["x"])
    assert result.state is ResultState.AMBIGUOUS


@pytest.mark.parametrize("status", [402, 400])
async def test_a_throttled_job_that_cannot_be_submitted_again_ends_as_failed_and_is_sent_by_the_next_run(
    path, status
):
    throttled = JobScript(ending="failed", error="rate limit exceeded(RPM)")
    service = Service(
        run_time=10.0,
        script=lambda number: throttled if number == 0 else JobScript(),
        before=[on("submit", None, reply(status, {}))],
    )
    [result] = await run_with(path, service, ["x"])
    assert (result.state, result.job.request_id) == (ResultState.FAILED, "job-0")
    assert isinstance(result.error, JobFailedError)
    [result] = await run_with(path, service, ["x"])
    assert result.ok
    assert len(service.jobs) == 2


async def test_a_lost_submit_after_a_throttled_job_is_ambiguous_whatever_job_was_before(path):
    throttled = JobScript(ending="failed", error="rate limit exceeded(RPM)")
    refused = reply(429, {"error": "slow down"})
    service = Service(run_time=10.0, script=lambda _: throttled, before=[on("submit", None, refused, LOST)])
    [result] = await run_with(path, service, ["x"])
    assert (result.state, len(service.jobs)) == (ResultState.AMBIGUOUS, 1)


async def test_a_failed_item_that_cannot_be_sent_again_stays_failed(path):
    service = Service(run_time=10.0, script=lambda _: FAILED)
    await run_with(path, service, ["x"])
    service.before.append(on("submit", reply(400, {"error": "no"})))
    for again in (True, False):
        [result] = await run_with(path, service, ["x"], retry_failed=again)
        assert (result.state, result.job.request_id) == (ResultState.FAILED, "job-0")
    assert service.posts == 2


async def test_each_run_retries_a_failed_item_that_the_run_before_could_not_send(path):
    service = Service(run_time=10.0, script=lambda number: FAILED if number == 0 else JobScript())
    await run_with(path, service, ["x"])
    service.before.append(on("submit", reply(400, {"error": "no"}), reply(400, {"error": "no"})))
    results = [(await run_with(path, service, ["x"], retry_failed=True))[0] for _ in range(3)]
    assert [result.state for result in results] == [ResultState.FAILED] * 2 + [ResultState.SUCCEEDED]
    assert service.posts == 4


@pytest.mark.parametrize("at_once", [1, 2])
async def test_a_job_is_left_to_the_intent_with_more_parameters(path, at_once):
    service = Service(run_time=10.0)
    with journal_at(path) as journal:
        for payload in ({"prompt": "x"}, {"prompt": "x", "duration": "10"}):
            identity = Identity(None, fingerprint("kling-v2-6", payload), 0)
            journal.record_intent(identity, model="kling-v2-6", payload=payload, at=_wall(), cost_usd=None)
    service.accept({"prompt": "x", "duration": "10"})
    requests = [VideoRequest("x"), VideoRequest("x", duration=10)]
    results = await run_with(path, service, requests, at_once=at_once)
    assert {result.index: result.state for result in results} == {
        0: ResultState.AMBIGUOUS,
        1: ResultState.SUCCEEDED,
    }
    assert service.posts == 0


@pytest.mark.parametrize("at_once", [1, 3])
async def test_equal_intents_of_an_earlier_run_are_matched_by_count_under_any_concurrency_limit(
    path, at_once
):
    service = Service(run_time=10.0)
    with journal_at(path) as journal:
        for occurrence in range(3):
            _record_intent(journal, occurrence=occurrence)
    for _ in range(3):
        service.accept({"prompt": "x"})
    results = await run_with(path, service, ["x"] * 3, at_once=at_once)
    assert all(result.ok for result in results)
    assert len({result.job.request_id for result in results}) == 3
    assert service.posts == 0


async def test_one_strangers_job_among_the_jobs_of_equal_intents_leaves_all_unmatched(path):
    service = Service(run_time=10.0)
    with journal_at(path) as journal:
        for occurrence in range(4):
            await anyio.sleep(70 if occurrence == 3 else 0)
            _record_intent(journal, occurrence=occurrence)
            service.accept({"prompt": "x"})
            if occurrence == 2:
                await anyio.sleep(30)
                service.accept({"prompt": "x"})
    results = await run_with(path, service, ["x"] * 4, at_once=1)
    assert {result.state for result in results} == {ResultState.AMBIGUOUS}


async def test_a_job_of_another_entry_is_never_matched(path):
    service = Service(run_time=10.0)
    await run_with(path, service, ["x"])
    with journal_at(path) as journal:
        _record_intent(journal, occurrence=1)
    results = await run_with(path, service, ["x", "x"])
    assert [result.state for result in sorted(results, key=lambda r: r.index)] == [
        ResultState.SUCCEEDED,
        ResultState.AMBIGUOUS,
    ]


async def test_a_saved_file_is_not_downloaded_again_and_a_missing_one_is(path, tmp_path):
    service = Service(run_time=10.0)
    [first] = await run_with(path, service, ["x"], folder=tmp_path)
    assert first.path.read_bytes()
    [again] = await run_with(path, service, ["x"], folder=tmp_path)
    assert again.path == first.path
    assert service.calls["media"] == 1
    first.path.unlink()
    [again] = await run_with(path, service, ["x"], folder=tmp_path)
    assert again.path.exists()
    assert service.calls["media"] == 2


async def test_a_video_goes_to_the_folder_of_this_call(path, tmp_path):
    service = Service(run_time=10.0)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    await run_with(path, service, ["x"], folder=tmp_path / "a")
    [result] = await run_with(path, service, ["x"], folder=tmp_path / "b")
    assert result.path.parent == tmp_path / "b"
    assert result.path.exists()
    [result] = await run_with(path, service, ["x"])
    assert result.path.parent == tmp_path / "b"


async def test_a_success_whose_download_failed_is_saved_by_the_next_run(path, tmp_path):
    url = f"{VIDEOS}/job-0.mp4"
    service = Service(run_time=10.0, media={url: Stream(403, [b"expired"])})
    [result] = await run_with(path, service, ["x"], folder=tmp_path)
    assert result.ok
    assert result.path is None
    assert result.error is not None
    service.media.clear()
    [result] = await run_with(path, service, ["x"], folder=tmp_path)
    assert result.path is not None
    assert result.path.exists()
    assert service.posts == 1


async def test_the_journal_is_written_ahead_of_every_post(path):
    seen = []

    def count_intents(request, service):
        if service.kind(request) == "submit":
            seen.append([entry.state for entry in read_journal(path)].count(EntryState.INTENDED))

    service = Service(run_time=10.0, before=[count_intents])
    await run_with(path, service, prompts(6), at_once=1)
    assert seen == [1] * 6


class _FullDisk(SqliteStore):
    """A store whose disk is full from some commit on."""

    commits_left = 0

    def commit(self, changes):
        if self.commits_left <= 0:
            raise JournalError("The journal could not be written (database or disk is full).")
        self.commits_left -= 1
        super().commit(changes)


async def test_a_full_disk_stops_the_submits_and_loses_no_job(path):
    async def at_once(write, changes):
        write(changes)

    store = _FullDisk(path)
    store.commits_left = 4
    journal = WriteAheadJournal(store, run_sync=at_once)
    service = Service(run_time=10.0)
    results = []
    with pytest.raises(JournalError, match="full"):
        async with batch_of(service, prompts(20), at_once=2, journal=journal) as stream:
            async for result in stream:
                results.append(result)
    assert len(results) == 20
    assert sum(1 for result in results if result.ok) == len(service.jobs) < 20
    assert {result.state for result in results if not result.ok} == {ResultState.NOT_SUBMITTED}
    store.commits_left = 100
    journal.close()
    again = await run_with(path, service, prompts(20))
    assert all(result.ok for result in again)
    assert service.posts == 20


async def test_leaving_while_an_intent_is_written_sends_nothing_and_rejects_the_intent(path):
    async def slow(write, changes):
        await anyio.sleep(5)
        write(changes)

    journal = WriteAheadJournal(SqliteStore(path), run_sync=slow)
    service = Service()
    async with batch_of(service, ["x"], journal=journal):
        await anyio.sleep(1)
    assert service.posts == 0
    journal.close()
    assert states(path) == [EntryState.NOT_SUBMITTED]


@pytest.mark.parametrize("earlier", [None, FAILED])
async def test_an_intent_that_took_too_long_is_written_again_with_the_time_of_the_post(earlier, path):
    service = Service(run_time=10.0, script=lambda number: earlier or JobScript())
    if earlier is not None:
        await run_with(path, service, ["x"])
        service.script = lambda _: JobScript()
    delays = [0.001, 600.0]

    async def slow(write, changes):
        if any("identity" in change for change in changes.fields.values()):
            await anyio.sleep(delays.pop() if delays else 0.001)
        write(changes)

    journal = WriteAheadJournal(SqliteStore(path), run_sync=slow)
    budget = Budget({"kling-v2-6": PRICE}, PRICE)
    posts = service.posts
    [result] = await run(service, ["x"], journal=journal, budget=budget, retry_failed=True)
    [entry] = journal.entries()
    journal.close()

    assert (result.ok, service.posts - posts, budget.spent) == (True, 1, PRICE)
    assert entry.sent_at == pytest.approx(result.job.created_at.timestamp(), abs=1.0)
    assert entry.attempts == service.posts
    assert not delays


async def test_money_is_reserved_before_each_post_and_emitted(path):
    events = []
    budget = Budget({"kling-v2-6": PRICE}, Decimal("1.05"))
    service = Service(run_time=10.0)
    results = await run(service, prompts(10), budget=budget, notify=events.append)
    assert service.posts == 3
    made = [result for result in results if result.ok]
    assert [result.cost_usd for result in made] == [PRICE] * 3
    assert all(isinstance(r.error, BudgetExceededError) for r in results if not r.ok)
    assert {r.state for r in results if not r.ok} == {ResultState.NOT_SUBMITTED}
    spends = [event for event in events if isinstance(event, Spent)]
    assert [event.total_usd for event in spends] == [PRICE, PRICE * 2, PRICE * 3]


async def test_a_post_that_was_provably_not_accepted_costs_nothing():
    budget = Budget({"kling-v2-6": PRICE}, PRICE)
    throttle = reply(429, {"error": "slow"}, {"retry-after": "1"})
    refused = APIConnectionError("refused", was_sent=False)
    service = Service(run_time=10.0, before=[on("submit", throttle, refused)])
    [result] = await run(service, ["x"], budget=budget)
    assert result.ok
    assert result.cost_usd == budget.spent == PRICE


async def test_a_lost_submit_counts_as_spent():
    events = []
    budget = Budget({"kling-v2-6": PRICE}, PRICE)
    service = Service(run_time=10.0, before=[on("submit", LOST)])
    results = await run(service, ["x", "y"], at_once=1, budget=budget, notify=events.append)
    assert [(r.state, r.cost_usd) for r in sorted(results, key=lambda r: r.index)] == [
        (ResultState.AMBIGUOUS, PRICE),
        (ResultState.NOT_SUBMITTED, None),
    ]
    assert [event.total_usd for event in events if isinstance(event, Spent)] == [PRICE]


async def test_the_spend_of_earlier_runs_counts_under_the_cap(path):
    service = Service(run_time=10.0)
    with journal_at(path) as journal:
        await run(service, prompts(2), journal=journal, budget=Budget({"kling-v2-6": PRICE}))
    with journal_at(path) as journal:
        budget = Budget({"kling-v2-6": PRICE}, PRICE * 3)
        budget.spent = journal.spent_usd_at_start
        results = await run(service, prompts(5), journal=journal, budget=budget)
    assert service.posts == 3
    assert sum(result.cost_usd or 0 for result in results) == PRICE * 3


async def test_posts_of_earlier_runs_without_a_price_count_under_the_cap(path):
    service = Service(run_time=10.0)
    with journal_at(path) as journal:
        await run(service, prompts(2), journal=journal)
    with journal_at(path) as journal:
        budget = Budget({"kling-v2-6": PRICE}, PRICE * 3)
        await count_earlier(budget, journal)
        await run(service, prompts(5), journal=journal, budget=budget)
    assert service.posts == 3


async def test_a_retry_that_the_cap_stops_has_the_reason_in_its_error(path):
    service = Service(run_time=10.0, script=lambda _: FAILED)
    prices = {"kling-v2-6": PRICE}
    with journal_at(path) as journal:
        await run(service, ["x"], journal=journal, budget=Budget(prices))
    with journal_at(path) as journal:
        budget = Budget(prices, PRICE)
        await count_earlier(budget, journal)
        [result] = await run(service, ["x"], journal=journal, budget=budget, retry_failed=True)
    assert service.posts == 1
    assert result.state is ResultState.FAILED
    assert "It may have been charged; it was not submitted again: One more video" in str(result.error)
    assert str(result.error).endswith("Raise max_cost_usd to submit more.")
    assert isinstance(result.error.__cause__, BudgetExceededError)


def test_an_error_that_says_why_the_item_was_not_sent_again_keeps_its_fields_and_the_earlier_error_is_as_it_was():
    earlier = AmbiguousSubmitError("submit: no job was found.", absent=True, advice="Look.", request_id="r")
    item = BatchItem(index=3, request=None, fallback_end=earlier)
    for _ in ("once", "after a takeover"):
        error = unsent_result(item, BudgetExceededError("Too dear."), secret=Secret("")).error
        assert str(error) == "submit: no job was found; it was not submitted again: Too dear. Look."
        assert (type(error), error.args) == (AmbiguousSubmitError, (error.message,))
        assert (error.absent, error.request_id) == (True, "r")
    assert str(earlier) == "submit: no job was found. Look."


@pytest.mark.parametrize("knows_price", [(False, True), (True, False), (False, False)])
async def test_all_posts_of_an_item_count_under_a_cap_also_those_of_runs_without_a_price(path, knows_price):
    service = Service(run_time=10.0, script=lambda _: FAILED)
    prices, events = {"kling-v2-6": PRICE}, []
    for is_known in knows_price:
        with journal_at(path) as journal:
            budget = Budget(prices if is_known else None)
            await count_earlier(budget, journal)
            [result] = await run(
                service, ["x"], journal=journal, budget=budget, retry_failed=True, notify=events.append
            )
            [entry] = journal.entries()
            assert (result.cost_usd or 0) == (entry.cost_usd or 0) == budget.spent
    assert service.posts == 2
    assert result.cost_usd == (PRICE * 2 if any(knows_price) else None)
    assert [event.total_usd for event in events if isinstance(event, Spent)][-1:] == [PRICE * 2][
        : any(knows_price)
    ]

    with journal_at(path) as journal:
        budget = Budget(prices, PRICE * 4)
        await count_earlier(budget, journal)
        assert budget.spent == PRICE * 2
        service.script = lambda _: JobScript()
        results = await run(
            service, ["x", *prompts(3)], journal=journal, budget=budget, retry_failed=True, at_once=1
        )
    assert service.posts == 4
    assert sum(result.cost_usd or 0 for result in results) == PRICE * 4


async def test_without_a_cap_no_earlier_post_needs_a_price(path):
    with journal_at(path) as journal:
        await run(Service(), prompts(2), journal=journal)
        budget = Budget()
        await count_earlier(budget, journal)
    assert budget.spent == 0


def _record_intent(journal, *, occurrence=0):
    """Record the intent of an earlier run to send the prompt "x"."""
    identity = _identity("x", occurrence)
    return journal.record_intent(
        identity, model="kling-v2-6", payload={"prompt": "x"}, at=_wall(), cost_usd=None
    )


def _identity(prompt, occurrence=0):
    return Identity(None, fingerprint("kling-v2-6", {"prompt": prompt}), occurrence)


def _wall():
    return EPOCH + anyio.current_time()


async def test_a_journal_serves_one_batch_at_a_time(path):
    async with use_journal(path):
        with pytest.raises(JournalError, match="in use"):
            async with use_journal(path):
                pass
    async with use_journal(path) as again:
        assert list(again.entries()) == []


async def test_a_saved_file_is_found_from_another_working_directory(path, tmp_path, monkeypatch):
    service = Service(run_time=10.0)
    (tmp_path / "videos").mkdir()
    monkeypatch.chdir(tmp_path)
    [first] = await run_with(path, service, ["x"], folder=Path("videos"))
    assert str(first.path).startswith("videos")
    monkeypatch.chdir("/")
    [again] = await run_with(path, service, ["x"], folder=tmp_path / "videos")
    assert again.path == tmp_path / first.path
    assert service.calls["media"] == 1


async def test_a_later_run_waits_for_a_job_whose_first_poll_was_refused(path):
    service = Service(run_time=10.0, before=[always("status", reply(403, {"error": "not yours"}))])
    service.accept({"prompt": "x"})
    with journal_at(path) as journal:
        number = _record_intent(journal)
        journal.record_job(number, request_id="job-0", record={})
    [result] = await run_with(path, service, ["x"], polling=PollingPolicy(use_lists="never"))
    assert result.state is ResultState.TIMED_OUT
    assert isinstance(result.error, PermissionDeniedError)
    assert states(path) == [EntryState.TIMED_OUT]
    service.before.clear()
    [result] = await run_with(path, service, ["x"])
    assert result.ok
    assert service.posts == 0


async def test_the_error_of_closing_a_journal_is_logged(path, caplog):
    async with use_journal(path) as journal:
        journal._store._writer.execute("PRAGMA max_page_count = 1")
        payload = {"prompt": "x" * 100_000}
        journal.record_intent(_identity("x"), model="m", payload=payload, at=_wall(), cost_usd=None)
    assert "full" in caplog.text


async def test_an_unknown_price_in_an_iterator_ends_the_reading_of_input():
    def items():
        yield "a"
        yield VideoRequest("b", model="other")
        yield "c"

    service = Service(run_time=10.0)
    seen = []
    with pytest.raises(ConfigurationError, match="'other'"):
        async with batch_of(
            service, items(), at_once=1, budget=Budget({"kling-v2-6": PRICE}, PRICE * 9)
        ) as results:
            async for result in results:
                seen.append(result.index)
    assert (seen, service.posts) == ([0], 1)


def test_the_error_of_an_invalid_setting_names_it():
    with pytest.raises(ConfigurationError, match="'report', 'resend_absent' or 'resend', not 'maybe'"):
        BatchSettings(on_ambiguous="maybe")
