"""Two processes on one shared journal, as two clients with a store each: what one holds, the other leaves alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack, suppress
from decimal import Decimal

import anyio
import psycopg
import pytest
from virtual_service import FAILED, Service, always, batch_of, on, prompts, reply, run, session_for

from kling_async import (
    AmbiguousSubmitError,
    APIConnectionError,
    BudgetExceededError,
    JournalError,
    Limits,
    ResultState,
)
from kling_async._engine.batch.batch import count_earlier
from kling_async._journal.entry import EntryState, Identity
from kling_async._journal.journal import WriteAheadJournal
from kling_async._journal.location import journal_location
from kling_async._journal.open_journal import open_journal, read_journal
from kling_async._journal.shared_store import PostPermit, WantedItem
from kling_async._journal.sharing import MAX_CONFIRMATION_AGE, read_monotonic_clock
from kling_async._policy.budget import Budget
from kling_async._policy.matching import look_alike_group
from kling_async._wire.endpoints import LIST
from kling_async.emulator import JobScript
from kling_async.events import Resumed, Submitted

PRICE = Decimal("0.35")
RAIN = {"prompt": "rain"}
LOST = APIConnectionError("submit: the answer was lost", was_sent=True)


async def at_once(function, *arguments):
    return function(*arguments)


def close(journal):
    with suppress(JournalError):  # a test has cut it off
        journal.close()


@pytest.fixture
def database(journal_database):
    """The URL of a database with the tables of a journal."""
    return journal_database


@pytest.fixture
def open_shared(database):
    """Opens the journal once more, as another process does."""
    from kling_async._journal.postgres.store import PostgresStore

    with ExitStack() as stack:

        def open_one(run_sync=at_once, *, schema=None):
            url = database if schema is None else f"{database}?options=-csearch_path%3D{schema}"
            store = PostgresStore(journal_location(url, name="journal"))
            journal = WriteAheadJournal(store, run_sync=run_sync)
            stack.callback(close, journal)
            return journal

        yield open_one


async def session_that_knows_the_time(service):
    session = session_for(service)
    await session.api.fetch(LIST)
    return session


async def run_in_processes(service, requests, journals, **settings):
    """The results of the same batch in each of the processes."""
    runs = [run(service, requests, journal=journal, **settings) for journal in journals]
    return await asyncio.gather(*runs)


def ids_by_index(results):
    return {result.index: result.job and result.job.request_id for result in results}


@pytest.mark.unmeasured
async def test_the_same_batch_in_three_processes_buys_each_item_once_and_each_has_all_results(open_shared):
    service = Service(run_time=30.0)
    journals = [open_shared() for _ in range(3)]

    every = await run_in_processes(service, prompts(40), journals, at_once=5)

    assert service.posts == 40
    assert [len(results) for results in every] == [40, 40, 40]
    assert all(result.ok for results in every for result in results)
    assert ids_by_index(every[0]) == ids_by_index(every[1]) == ids_by_index(every[2])
    assert service.most_in_flight == 15


@pytest.mark.unmeasured
async def test_an_item_of_another_process_has_no_slot(open_shared):
    service = Service(run_time=1_000.0)
    first, second = open_shared(), open_shared()
    submitted = []

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run(service, prompts(8), journal=first, at_once=8))
        await anyio.sleep(10)
        notify = lambda event: submitted.append(event) if isinstance(event, Submitted) else None  # noqa: E731
        others = [*prompts(8), "mine"]
        tasks.start_soon(lambda: run(service, others, journal=second, at_once=1, notify=notify))
        await anyio.sleep(10)
        assert [event.index for event in submitted] == [8]

    assert service.posts == 9


async def test_the_items_of_a_process_that_is_gone_are_taken_over(open_shared):
    service = Service(run_time=100.0)
    first, second = open_shared(), open_shared()
    events = []

    async def run_until_it_is_gone():
        with pytest.raises(JournalError, match="is closed"):
            await run(service, prompts(5), journal=first)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_until_it_is_gone)
        await anyio.sleep(20)

        async def go_on():
            results = await run(service, prompts(5), journal=second, notify=events.append)
            assert [result.state for result in results] == [ResultState.SUCCEEDED] * 5

        tasks.start_soon(go_on)
        await anyio.sleep(20)
        first._store.close()  # as if the process were killed
        await anyio.sleep(20)
        assert sum(isinstance(event, Resumed) for event in events) == 5

    assert service.posts == 5


@pytest.mark.parametrize("due", [60.0, 300.0])
async def test_what_a_process_that_is_cut_off_has_sent_is_searched_for_until_its_answer_is_due(
    open_shared, due
):
    service = Service(run_time=10.0, shows=lambda _: service.now > due - 10)
    first, second = open_shared(), open_shared()
    service.latency = due - 5  # the answer comes later than the take-over

    async def run_until_it_is_cut_off():
        with pytest.raises(JournalError):
            await run(service, ["rain"], journal=first, session=session_for(service, timeout=due))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_until_it_is_cut_off)
        await anyio.sleep(5)
        service.latency = 0.0
        first._store.close()
        [result] = await run(service, ["rain"], journal=second, session=session_for(service, timeout=10.0))

    assert (result.ok, result.job.request_id) == (True, "job-0")
    assert service.posts == 1


async def test_a_process_that_lost_its_items_sends_nothing_more_for_them(open_shared, database):
    service = Service(run_time=10.0)
    service.before.append(on("submit", reply(429, b"", {"retry-after": "60"})))
    first, second = open_shared(), open_shared()

    async with anyio.create_task_group() as tasks:
        results = []

        async def run_first():
            results.extend(await run(service, ["rain"], journal=first))

        tasks.start_soon(run_first)
        await anyio.sleep(20)  # between the 429 and the next POST
        assert service.posts == 1
        first._store._held[1].epoch = 0  # another process has taken the entry, and is gone since
        [mine] = await run(service, ["snow"], journal=second)
        assert mine.ok

    assert [result.ok for result in results] == [True]
    assert service.posts == 3


@pytest.mark.parametrize("column, value", [("payload", "[]"), ("state", "done"), ("key", "other")])
async def test_an_item_whose_row_another_program_has_changed_is_not_sent_and_the_others_end(
    open_shared, database, column, value
):
    service = Service(run_time=10.0)
    assert all(result.ok for result in await run(service, prompts(3), journal=open_shared()))
    with psycopg.connect(database) as connection:
        change = f"UPDATE kling_async_entries SET {column} = %s WHERE number = 2"  # noqa: S608 - our own names
        connection.execute(change, [value])

    results = await run(service, prompts(9), journal=open_shared())
    [unsent] = [result for result in results if not result.ok]
    assert (unsent.index, unsent.state, len(results)) == (1, ResultState.NOT_SUBMITTED, 9)
    assert "Entry 2 of the journal cannot be read" in str(unsent.error)
    assert unsent.to_dict()["error_type"] == "JournalError"
    assert service.posts == 9


async def test_an_intent_of_a_lost_item_is_not_sent(open_shared, database):
    service = Service(run_time=10.0)
    takers = [1]

    async def take_before_the_intent(function, *arguments):
        if function.__name__ == "commit" and takers and arguments[0].fields:
            entries = takers.pop()
            with psycopg.connect(database) as connection:
                connection.execute(
                    "UPDATE kling_async_entries SET holder = NULL, epoch = epoch + %s", [entries]
                )
        return function(*arguments)

    [result] = await run(service, ["rain"], journal=open_shared(take_before_the_intent))

    assert (result.ok, takers) == (True, [])
    assert service.posts == 1


async def test_the_answer_is_recorded_before_others_may_send_a_look_alike(open_shared):
    service = Service(run_time=30.0)
    service.after.append(on("submit", LOST, LOST))
    journals = [open_shared(), open_shared()]
    requests = [{"prompt": "rain", "key": key} for key in "ab"]

    every = await asyncio.gather(
        run(service, requests[:1], journal=journals[0]),
        run(service, requests[1:], journal=journals[1]),
    )

    jobs = [result.job.request_id for results in every for result in results]
    assert sorted(jobs) == ["job-0", "job-1"]
    assert service.posts == 2


async def test_equal_prompts_with_lost_answers_in_two_processes_have_a_job_each(open_shared):
    service = Service(run_time=30.0, latency=0.5)
    service.after.append(always("submit", LOST))
    requests = [{"prompt": f"rain {number % 2}", "key": str(number)} for number in range(12)]

    every = await run_in_processes(service, requests, [open_shared(), open_shared()])

    assert service.posts == 12
    assert Counter(result.job.request_id for result in every[0] if result.job).most_common(1)[0][1] == 1
    assert ids_by_index(every[0]) == ids_by_index(every[1])
    assert all(result.ok for result in every[0])


async def test_a_lost_submit_takes_no_job_of_the_journal_in_another_schema_of_the_same_database(
    open_shared, database
):
    with psycopg.connect(database) as connection:
        connection.execute("CREATE SCHEMA other")
    service = Service(run_time=30.0)
    session = session_for(service)
    journals = [open_shared(), open_shared(schema="other")]

    async def run_one(index):
        await anyio.sleep(index)
        if index == 1:  # the POST of the second journal does not arrive
            service.before.append(on("submit", LOST))
        return await run(service, ["rain"], journal=journals[index], session=session)

    [[mine], [other]] = await asyncio.gather(run_one(0), run_one(1))

    assert (mine.ok, mine.job.request_id) == (True, "job-0")
    assert isinstance(other.error, AmbiguousSubmitError)
    assert other.job is None


async def test_a_lost_submit_counts_once_though_two_batches_of_a_client_have_opened_its_journal(open_shared):
    service = Service(run_time=30.0)
    service.after.append(on("submit", LOST, LOST))
    session = await session_that_knows_the_time(service)
    service.accept({"prompt": "rain"})
    journals = [open_shared(), open_shared()]

    batches = zip(["rain", "snow"], journals, strict=True)
    [[rain], [snow]] = await asyncio.gather(
        *(run(service, [prompt], journal=journal, session=session) for prompt, journal in batches)
    )

    assert (rain.state, snow.state) == (ResultState.AMBIGUOUS, ResultState.SUCCEEDED)
    assert "more than one job that could match" in rain.error.message


async def test_a_look_alike_waits_while_another_process_reconciles(open_shared):
    service = Service(run_time=30.0)
    service.after.append(on("submit", LOST))
    first, second = open_shared(), open_shared()
    service.shows = lambda job: service.now > 9 or job.request_id != "job-0"

    async def run_second():
        await anyio.sleep(3)
        assert service.posts == 1
        return await run(service, [{"prompt": "rain", "key": "b"}], journal=second)

    [one], [other] = await asyncio.gather(
        run(service, [{"prompt": "rain", "key": "a"}], journal=first), run_second()
    )

    assert (one.job.request_id, other.job.request_id) == ("job-0", "job-1")
    assert service.jobs["job-1"].status_times[0] > 9


async def test_the_cap_holds_for_all_processes_together(open_shared):
    service = Service(run_time=30.0)
    journals = [open_shared(), open_shared()]
    budgets = [Budget({"kling-v2-6": PRICE}, PRICE * 7) for _ in journals]

    every = await asyncio.gather(
        *(
            run(service, prompts(20), journal=journal, budget=budget, at_once=3)
            for journal, budget in zip(journals, budgets, strict=True)
        )
    )

    assert service.posts == 7
    assert journals[0]._store.spent_usd() == PRICE * 7
    unsent = [result for result in every[0] if not result.ok]
    assert unsent
    assert all(isinstance(result.error, BudgetExceededError) for result in unsent)
    assert "above the cap of $2.45" in str(unsent[0].error)


async def test_posts_of_any_process_without_a_price_count_under_the_cap(open_shared):
    service = Service(run_time=30.0)
    await run(service, prompts(3), journal=open_shared())
    budget, journal = Budget({"kling-v2-6": PRICE}, PRICE * 5), open_shared()
    await count_earlier(budget, journal)

    results = await run(service, prompts(20), journal=journal, budget=budget, at_once=3)

    assert service.posts == 5
    [error] = {str(result.error) for result in results if not result.ok}
    assert f"bring the spend to ${PRICE * 6}, above the cap of ${PRICE * 5}" in error


async def test_posts_without_a_price_count_once_for_all_processes_when_their_items_are_sent_again(
    open_shared,
):
    """Three failed POSTs without a price count as 3. Sent again, they make 6 of the 9: three more can be sent."""
    service = Service(run_time=30.0, script=lambda _: FAILED)
    await run(service, prompts(3), journal=open_shared())
    service.script = lambda _: JobScript()
    journals = [open_shared(), open_shared()]
    budgets = [Budget({"kling-v2-6": PRICE}, PRICE * 9) for _ in journals]
    for budget, journal in zip(budgets, journals, strict=True):
        await count_earlier(budget, journal)

    await asyncio.gather(
        *(
            run(service, prompts(20), journal=journal, budget=budget, at_once=2, retry_failed=True)
            for journal, budget in zip(journals, budgets, strict=True)
        )
    )

    assert service.posts == 3 + 6
    assert journals[0]._store.spent_usd() == PRICE * 9
    last = open_shared()
    budget = Budget({"kling-v2-6": PRICE}, PRICE * 9)
    await count_earlier(budget, last)
    assert (budget.spent, budget.unrecorded) == (PRICE * 9, 0)


async def test_a_job_that_ended_before_the_journal_had_its_id_is_not_left_to_run(open_shared, caplog):
    service = Service(run_time=10.0)

    async def stand_still_from_the_post_on(function, *arguments):
        if service.posts:
            await anyio.sleep(100)
        return function(*arguments)

    journal = open_shared(stand_still_from_the_post_on)
    async with batch_of(service, ["x"], journal=journal) as results:
        await anyio.sleep(50)
    [left] = results.rest
    assert (left.state, left.job.request_id) == (ResultState.SUCCEEDED, "job-0")
    assert "left 1 video made and not saved (job-0)" in caplog.text


async def test_the_hourly_rate_holds_for_all_processes_together(open_shared):
    service = Service(run_time=10.0)
    limits = Limits(max_submits_per_hour=3600 * 50, max_concurrent_submits=1, max_polls_per_second=1e6)

    began = asyncio.get_running_loop().time()
    every = await asyncio.gather(
        *(
            run(service, prompts(20), journal=open_shared(), session=session_for(service, limits=limits))
            for _ in range(2)
        )
    )

    # The turns are by the clock of the database, the waits by the virtual one.
    assert all(result.ok for results in every for result in results)
    assert asyncio.get_running_loop().time() - began > 10.0


@pytest.mark.parametrize("refusals", [0, 3])
async def test_a_post_that_no_connection_was_made_for_uses_no_turn_of_the_other_processes_up(
    open_shared, refusals
):
    refused = APIConnectionError("refused", was_sent=False)
    service = Service(run_time=1.0, before=[on("submit", *[refused] * refusals)])
    limits = Limits(max_submits_per_hour=60, max_concurrent_submits=1)

    began = asyncio.get_running_loop().time()
    for requests in (["rain"], ["rain", "snow"]):  # the second process only sends what the first one has not
        await run(service, requests, journal=open_shared(), session=session_for(service, limits=limits))

    assert service.posts == refusals + 2
    assert asyncio.get_running_loop().time() - began == pytest.approx(60, abs=30)


@pytest.mark.parametrize("retry_failed", [True, False])
async def test_a_failure_of_another_process_is_not_retried_in_the_same_run(open_shared, retry_failed):
    from virtual_service import FAILED

    service = Service(run_time=30.0, script=lambda _: FAILED)
    first, second = open_shared(), open_shared()

    async def run_later():
        await anyio.sleep(5)
        return await run(service, ["rain"], journal=second, retry_failed=retry_failed)

    every = await asyncio.gather(
        run(service, ["rain"], journal=first, retry_failed=retry_failed), run_later()
    )

    assert service.posts == 1
    assert [result.state for results in every for result in results] == [ResultState.FAILED] * 2


async def test_a_video_that_another_process_saved_is_not_downloaded_again(open_shared, tmp_path):
    service = Service(run_time=30.0)
    first, second = open_shared(), open_shared()

    async def run_later():
        await anyio.sleep(5)
        return await run(service, ["rain"], journal=second, folder=tmp_path / "b")

    for folder in "ab":
        (tmp_path / folder).mkdir()
    [one], [other] = await asyncio.gather(
        run(service, ["rain"], journal=first, folder=tmp_path / "a"), run_later()
    )
    assert one.path.parent.name == "a"
    assert (other.ok, other.path) == (True, None)
    assert service.calls["media"] == 1

    [later] = await run(service, ["rain"], journal=open_shared(), folder=tmp_path / "b")
    assert later.path.parent.name == "b"


async def test_an_ambiguous_submit_of_another_process_is_not_sent_again_in_the_same_run(open_shared):
    service = Service(run_time=30.0, shows=lambda _: False)
    service.after.append(always("submit", LOST))

    every = await run_in_processes(service, ["rain"], [open_shared(), open_shared()], on_ambiguous="resend")

    assert service.posts == 2
    assert [type(result.error) for results in every for result in results] == [AmbiguousSubmitError] * 2


async def test_what_a_batch_began_is_finished_by_its_entries(open_shared, database):
    service = Service(run_time=30.0)
    first = open_shared()
    with anyio.move_on_after(10):
        await run(service, prompts(3), journal=first)
    first.close()
    entries = list(read_journal(database))
    assert [entry.state for entry in entries] == [EntryState.SUBMITTED] * 3

    results = await run(service, entries, journal=open_shared())

    assert [result.ok for result in results] == [True] * 3
    assert service.posts == 3


async def test_an_entry_of_another_journal_is_not_made(open_shared, tmp_path):
    service = Service(run_time=30.0)
    with open_journal(tmp_path / "run.db") as other:
        await run(service, ["rain"], journal=other)
        (entry,) = other.entries()

    [result] = await run(service, [entry], journal=open_shared())

    assert result.state is ResultState.NOT_SUBMITTED
    assert "is not in the journal of this batch" in str(result.error)


async def run_slowly(function, *arguments):
    await anyio.sleep(1)
    return function(*arguments)


async def reserve_post(journal, number) -> PostPermit:
    return await journal.sharing.reserve_post(number, model="m", payload=RAIN, price_usd=None, cap_usd=None)


async def test_what_a_cancelled_task_has_claimed_or_reserved_is_given_back(open_shared):
    journal, other = open_shared(run_slowly), open_shared()
    rain, snow = (WantedItem(identity=Identity(None, name, 0), model="m") for name in ("rain", "snow"))
    with anyio.move_on_after(0.5):
        await journal.sharing.claim(rain.identity, lambda: rain)
    claim = await journal.sharing.claim(snow.identity, lambda: snow)
    with anyio.move_on_after(0.5):
        await reserve_post(journal, claim.entry.number)
    await anyio.sleep(5)
    await journal.flush()

    assert other._store.find_claimable([rain.identity, snow.identity]) == {rain.identity}
    [number] = [claim.entry.number for claim in other._store.claim([rain]) if claim.entry is not None]
    other._store.begin_reconciliation(number, model="m", look_alikes=look_alike_group(RAIN))
    assert other._store.find_searchable([number]) == {number}


async def test_a_claim_of_an_item_that_is_held_elsewhere_gives_nothing_back(open_shared):
    journal, other = open_shared(run_slowly), open_shared()
    rain, snow = (WantedItem(identity=Identity(None, name, 0), model="m") for name in ("rain", "snow"))
    other._store.claim([rain, snow])
    other._store.begin_reconciliation(2, model="m", look_alikes=look_alike_group(RAIN))
    with anyio.move_on_after(0.5):
        await journal.sharing.claim(rain.identity, lambda: rain)
    with anyio.move_on_after(0.5):
        await reserve_post(journal, 1)
    await anyio.sleep(5)
    assert not journal._writes.pending


async def test_an_intent_for_an_item_that_is_not_held_is_an_error(open_shared):
    journal, other = open_shared(), open_shared()
    rain = Identity(None, "rain", 0)
    other._store.claim([WantedItem(identity=rain, model="m")])

    with pytest.raises(JournalError, match=r"a change of the item .*which this process does not hold"):
        journal.record_intent(rain, model="m", payload={}, at=1.0, cost_usd=None)
    assert not journal._writes.pending


async def test_an_item_that_is_claimed_again_before_its_release_is_written_stays_held(open_shared):
    journal, other = open_shared(), open_shared()
    rain = WantedItem(identity=Identity(None, "rain", 0), model="m")
    first = await journal.sharing.claim(rain.identity, lambda: rain)
    journal.sharing.release(first.entry.number)

    again = await journal.sharing.claim(rain.identity, lambda: rain)
    journal.record_intent(rain.identity, model="m", payload={}, at=1.0, cost_usd=None)
    await journal.flush()

    assert again.entry == first.entry
    assert other._store.find_claimable([rain.identity]) == set()
    assert [entry.state for entry in other.entries()] == [EntryState.INTENDED]


async def test_a_post_waits_for_the_end_of_the_one_before(open_shared):
    service = Service(run_time=10.0)
    service.before.append(on("submit", reply(429, b"", {"retry-after": "0"})))

    [result] = await run(service, ["rain"], journal=open_shared(run_slowly))

    assert (result.ok, service.posts) == (True, 2)


async def test_a_process_that_was_stopped_asks_before_it_sends(open_shared):
    service, journal = Service(run_time=10.0), open_shared()
    asked = []
    journal.sharing._clock = lambda: journal._store.confirmed_at() + (20.0 if not asked else 0.0)
    confirm = journal._store.confirm

    def count():
        asked.append(1)
        confirm()

    journal._store.confirm = count

    [result] = await run(service, ["rain"], journal=journal)

    assert (result.ok, asked) == (True, [1])


async def test_a_reconciliation_waits_for_a_look_alike_of_another_process(open_shared):
    service = Service(run_time=60.0, latency=0.5, ahead=0.0)
    service.after.append(on("submit", LOST))
    first, second = open_shared(), open_shared()
    one, other = [await session_that_knows_the_time(service) for _ in range(2)]
    lists = service.calls["list"]

    async def run_second():
        await anyio.sleep(0.2)
        service.latency = 10.0  # of what is sent from now on
        return await run(service, [{"prompt": "rain", "key": "b"}], journal=second, session=other)

    async def calm_down():
        await anyio.sleep(5)
        assert service.calls["list"] == lists
        service.latency = 0.1

    every = await asyncio.gather(
        run(service, [{"prompt": "rain", "key": "a"}], journal=first, session=one), run_second(), calm_down()
    )

    assert [results[0].job.request_id for results in every[:2]] == ["job-0", "job-1"]


@pytest.mark.parametrize("shows_at, overtaken", [(0, 2), (25, 12)], ids=["the first scan", "the last scan"])
async def test_a_scan_that_a_look_alike_overtakes_is_made_after_it(open_shared, shows_at, overtaken):
    service = Service(run_time=60.0, shows=lambda _: service.now > shows_at)
    service.after.append(on("submit", LOST))
    looks = []

    async def overtake(function, *arguments):
        is_look = function.__name__ == "find_searchable"
        looks.extend([1] if is_look else [])
        return set() if is_look and len(looks) == overtaken else function(*arguments)

    [result] = await run(service, ["rain"], journal=open_shared(overtake))

    assert (result.ok, result.job.request_id) == (True, "job-0")
    assert len(looks) == overtaken + 2


async def test_an_input_that_waits_for_the_result_of_an_item_put_aside_leaves_it_the_slot(open_shared):
    service = Service(run_time=100.0)
    first, second = open_shared(), open_shared()
    has_result = anyio.Event()

    async def prompts_after_results():
        yield "rain"
        await has_result.wait()
        yield "snow"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run(service, ["rain"], journal=first))
        await anyio.sleep(5)
        async with batch_of(service, prompts_after_results(), journal=second, at_once=1) as results:
            ended = []
            async for result in results:
                ended.append(result.ok)
                has_result.set()

    assert (ended, service.posts) == ([True, True], 2)


async def test_an_item_that_is_put_aside_and_cannot_wait_lets_no_further_item_be_read(open_shared):
    service = Service(run_time=1_000.0)

    async def fail(function, *arguments):
        if function.__name__ == "find_claimable":
            raise JournalError("The journal could not be reached.")
        return function(*arguments)

    async def count_permits(journal):
        async with batch_of(service, prompts(3), journal=journal) as results:
            states = {result.state async for result in results}
        return states, results.read_ahead.value

    first, second = open_shared(), open_shared(fail)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run(service, prompts(3), journal=first))
        await anyio.sleep(5)
        states, permits = await count_permits(second)

    assert states == {ResultState.NOT_SUBMITTED}
    assert permits == (await count_permits(None))[1]


async def test_a_store_that_always_answers_too_late_is_an_error_and_nothing_is_sent(open_shared):
    service, asked = Service(), []

    async def count(function, *arguments):
        if function.__name__ == "confirm":
            asked.append(function)
            assert len(asked) < 50, "the question has no end"
        return function(*arguments)

    journal = open_shared(count)
    journal.sharing._clock = lambda: read_monotonic_clock() + 2 * MAX_CONFIRMATION_AGE

    [result] = await run(service, ["rain"], journal=journal)

    assert (service.posts, result.state, len(asked)) == (0, ResultState.NOT_SUBMITTED, 5)
    assert "took more than 10 s for an answer, 5 times in a row, so nothing was sent" in result.error.message


async def test_an_item_that_is_put_aside_can_be_cancelled(open_shared):
    service = Service(run_time=1_000.0)
    first, second = open_shared(), open_shared()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run(service, ["rain"], journal=first))
        await anyio.sleep(5)
        with anyio.move_on_after(20) as scope:
            await run(service, ["rain"], journal=second)
        assert scope.cancelled_caught

    assert service.posts == 1


@pytest.mark.parametrize("moment", ["begin_reconciliation", "find_searchable"])
async def test_the_reconciliation_of_an_item_that_is_lost_ends_and_its_holder_reconciles(
    open_shared, database, moment
):
    service = Service(run_time=60.0)
    service.after.append(on("submit", LOST))
    takers = [1]

    async def take(function, *arguments):
        name = function.__name__ if function.__name__ != "begin" else "begin_reconciliation"
        if name != moment or not takers:
            return function(*arguments)
        entries = takers.pop()
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE kling_async_entries SET holder = NULL, epoch = epoch + %s", [entries])
        if moment == "begin_reconciliation":
            return function(*arguments)
        journal._store._held.mark_lost(1)  # as a session does that is opened again
        return set()

    journal = open_shared(take)
    [result] = await run(service, ["rain"], journal=journal)

    assert (result.ok, result.job.request_id, takers) == (True, "job-0", [])
    assert service.posts == 1


async def test_what_was_recorded_of_a_lost_item_is_not_written_into_the_entry_of_its_holder(
    open_shared, database
):
    service = Service(run_time=10.0)
    endings = ["succeeded"]

    async def end_before_the_intent(function, *arguments):
        if function.__name__ == "commit" and endings and arguments[0].fields:
            with psycopg.connect(database) as connection:
                connection.execute(
                    "UPDATE kling_async_entries SET holder = NULL, epoch = epoch + 1, state = %s, request_id = 'job-9',"
                    """ attempts = 1, record = '{"status": "success"}'""",
                    [endings.pop()],
                )
        return function(*arguments)

    [result] = await run(service, ["rain"], journal=open_shared(end_before_the_intent))

    assert (result.ok, result.job.request_id, service.posts) == (True, "job-9", 0)
    [entry] = read_journal(database)
    assert (entry.state, entry.attempts) == (EntryState.SUCCEEDED, 1)


async def test_a_job_that_another_item_has_before_it_is_recorded_is_no_result(open_shared, database):
    service = Service(run_time=10.0)
    takers = ["job-0"]

    async def take_the_job(function, *arguments):
        if function.__name__ == "commit" and any("request_id" in one for one in arguments[0].fields.values()):
            with psycopg.connect(database) as connection:
                connection.execute(
                    "INSERT INTO kling_async_jobs SELECT encode(sha256(%s::bytea), 'hex'), 99 ON CONFLICT DO NOTHING",
                    [takers[0].encode()],
                )
        return function(*arguments)

    [result] = await run(service, ["rain"], journal=open_shared(take_the_job))

    assert (result.state, result.job, service.posts) == (ResultState.AMBIGUOUS, None, 1)
    [entry] = read_journal(database)
    assert (entry.state, entry.request_id) == (EntryState.AMBIGUOUS, None)


async def test_the_end_of_a_job_whose_item_is_lost_meanwhile_is_reported(open_shared, database):
    service = Service(run_time=60.0)
    journal = open_shared()

    async def lose():
        await anyio.sleep(30)
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE kling_async_entries SET holder = NULL, epoch = epoch + 1")

    [result], _ = await asyncio.gather(run(service, ["rain"], journal=journal), lose())

    assert (result.ok, result.job.request_id) == (True, "job-0")
    [entry] = read_journal(database)
    assert entry.state is EntryState.SUBMITTED


async def test_an_item_that_is_lost_between_its_submit_and_its_record_is_reported(open_shared, database):
    service = Service(run_time=60.0, latency=5.0)

    async def lose():
        await anyio.sleep(3)
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE kling_async_entries SET holder = NULL, epoch = epoch + 1")

    [result], _ = await asyncio.gather(run(service, ["rain"], journal=open_shared()), lose())

    assert (result.ok, result.job.request_id, service.posts) == (True, "job-0", 1)


async def run_until_an_error(service, requests, journal, session=None, **settings):
    """The results before the error that ends a batch, and that error."""
    results = []
    with pytest.raises(JournalError) as failure:
        async with batch_of(service, requests, journal=journal, session=session, **settings) as stream:
            async for result in stream:
                results.append(result)
    return results, failure.value


DELETE = "DELETE FROM kling_async_entries"
OLDER = "UPDATE kling_async_entries SET epoch = 0, holder = NULL, state = 'not_submitted', request_id = NULL, attempts = 0"


@pytest.mark.parametrize(
    "change",
    [
        DELETE,
        OLDER,
        "TRUNCATE kling_async_entries RESTART IDENTITY CASCADE",
        "DROP TABLE kling_async_entries CASCADE",
    ],
)
async def test_entries_that_are_gone_end_the_batch_and_the_log_has_the_jobs(
    open_shared, database, change, caplog
):
    service = Service(run_time=30.0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute_at, 10.0, database, change)
        journal = open_shared()
        results, error = await run_until_an_error(service, prompts(3), journal)

    assert service.posts == 3
    assert sorted(result.job.request_id for result in results) == ["job-0", "job-1", "job-2"]
    assert "has lost entries that it had before: rows or tables were deleted" in error.message
    with pytest.raises(JournalError, match="has lost entries"):
        journal.close()
    assert all(f"job-{number}" in caplog.text for number in range(3))


@pytest.mark.parametrize("change", [DELETE, OLDER])
async def test_a_lost_submit_whose_entry_is_gone_is_not_sent_again(open_shared, database, change):
    service = Service(run_time=30.0, shows=lambda _: False)
    service.after.append(on("submit", LOST))
    service.latency = 5.0

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(execute_at, 8.0, database, change)
        [result], _ = await run_until_an_error(service, ["rain"], open_shared())

    assert (service.posts, result.state) == (1, ResultState.AMBIGUOUS)


async def test_an_item_that_waits_for_another_process_is_not_sent_if_its_entry_is_gone(open_shared, database):
    service = Service(run_time=1_000.0)
    first, second = open_shared(), open_shared()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run_until_an_error(service, ["rain"], first))
        await anyio.sleep(10)
        tasks.start_soon(execute_at, 10.0, database, DELETE)
        [result] = await run(service, ["rain"], journal=second)

    assert (service.posts, result.state) == (1, ResultState.NOT_SUBMITTED)
    assert "has lost entries" in result.error.message


@pytest.mark.parametrize("options", [{}, {"budget": Budget({"kling-v2-6": 1}, 5)}])
async def test_a_journal_whose_own_row_is_gone_sends_nothing(open_shared, database, options):
    service = Service()
    journal = open_shared()
    execute(database, "DELETE FROM kling_async_journal")

    [result], error = await run_until_an_error(service, ["rain"], journal, **options)

    assert (service.posts, result.state) == (0, ResultState.NOT_SUBMITTED)
    assert "has lost entries" in error.message


async def test_a_journal_whose_own_row_is_gone_gives_no_turn(open_shared, database):
    journal = open_shared()
    execute(database, "DELETE FROM kling_async_journal")

    with pytest.raises(JournalError, match="has lost entries"):
        await journal.sharing.take_turn(rate=1.0, burst=1.0)


def execute(database, statement):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(statement)


async def execute_at(seconds, database, statement):
    await anyio.sleep(seconds)
    execute(database, statement)


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
async def test_the_first_submit_of_a_machine_with_a_wrong_clock_is_found_by_another_machine(
    open_shared, ahead
):
    service = Service(run_time=10.0, ahead=0.0)
    service.after.append(on("submit", LOST))
    await run_on_a_machine_that_is_gone(service, open_shared(), clock_ahead=ahead)

    results = await run(service, ["rain", "snow"], journal=open_shared(), on_ambiguous="resend_absent")

    assert ([result.ok for result in results], service.posts) == ([True, True], 2)


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
async def test_a_submit_by_the_clock_of_another_machine_alone_is_not_proven_absent(open_shared, ahead):
    service = Service(run_time=10.0, ahead=0.0)
    service.after.append(on("submit", LOST))
    refused = on("list", APIConnectionError("list: no route"))
    service.before.append(refused)
    await run_on_a_machine_that_is_gone(service, open_shared(), clock_ahead=ahead)

    results = await run(service, ["rain", "snow"], journal=open_shared(), on_ambiguous="resend_absent")

    states = {result.index: (result.state, result.error and result.error.absent) for result in results}
    assert states == {0: (ResultState.AMBIGUOUS, False), 1: (ResultState.SUCCEEDED, None)}
    assert service.posts == 2


async def run_on_a_machine_that_is_gone(service, journal, *, clock_ahead):
    """Lose the answer to a submit on a machine whose clock is wrong; then the process of that machine is gone."""
    session = session_for(service)
    by_the_service = session.api.clock.wall
    session.api.clock.wall = lambda: by_the_service() + clock_ahead

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_until_an_error, service, ["rain"], journal, session)
        await anyio.sleep(0.5)
        assert service.posts == 1
        journal._store.close()
