"""An outage in which the service answers each submit with an error, whatever became of the job."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

import anyio
import pytest
from virtual_journal import journal_at
from virtual_service import Service, always, on, prompts, reply, run, session_for

from kling_async import AmbiguousSubmitError, Limits, ResultState, VideoRequest
from kling_async.events import Notifier, Throttled

pytestmark = pytest.mark.unmeasured

LOST = reply(502, {"error": "bad gateway"})


def note_times(times):
    """A script that notes the time of each submit."""

    def note(request, service):
        if service.kind(request) == "submit":
            times.append(service.now)

    return note


@pytest.mark.parametrize("at_once", [20, 100])
async def test_an_outage_leaves_few_ambiguous_items_and_two_in_each_later_try(at_once):
    service = Service(run_time=10.0, before=[always("submit", LOST)])
    session = session_for(service)
    posts = []
    for _ in range(4):
        before = service.posts
        results = await run(service, prompts(200), session=session, at_once=at_once)
        posts.append(service.posts - before)
        states = Counter(result.state for result in results)
        assert states == {
            ResultState.AMBIGUOUS: posts[-1],
            ResultState.NOT_SUBMITTED: 200 - posts[-1],
        }
        await anyio.sleep(60)
    assert posts == [18, 2, 2, 2]


async def test_the_log_says_once_that_an_outage_holds_submits_back(caplog):
    service = Service(run_time=10.0, before=[always("submit", LOST)])
    await run(service, prompts(100), at_once=100)
    told = [record.getMessage() for record in caplog.records if "ten submits in a row" in record.getMessage()]
    assert told == [
        "ten submits in a row had no answer: one leaves every 30 s until the service takes or refuses one"
    ]


@pytest.mark.parametrize("at_once", [1, 20])
async def test_the_first_answer_ends_an_outage(at_once):
    service = Service(run_time=10.0, before=[always("submit", LOST)])
    session = session_for(service)
    await run(service, prompts(200), session=session, at_once=at_once)
    service.before.clear()
    began = anyio.current_time()

    results = await run(service, prompts(20), session=session, at_once=at_once)

    assert all(result.ok for result in results)
    assert anyio.current_time() - began < 20 * 12 / at_once + 60


@pytest.mark.parametrize("answer", [None, reply(400, {"error": "no"})], ids=["accepts", "refuses"])
async def test_a_moment_of_lost_submits_holds_up_those_that_wait_for_a_second(answer):
    times = []
    service = Service(run_time=10.0, before=[note_times(times), on("submit", *[LOST] * 16, answer)])
    results = await run(service, prompts(40), at_once=40)
    lost = [result for result in results if result.state is ResultState.AMBIGUOUS]
    assert (len(lost), service.posts) == (16, 40)
    assert times[-1] - times[0] < 3


async def test_a_job_that_is_found_ends_an_outage():
    service = Service(run_time=100.0, after=[on("submit", *[LOST] * 16)])
    results = await run(service, prompts(40), at_once=40)
    assert all(result.ok for result in results)
    assert service.posts == 40


async def test_a_submit_alone_waits_for_its_turn_in_an_outage():
    service = Service(run_time=10.0, before=[always("submit", LOST)])
    session = session_for(service)
    await run(service, prompts(200), session=session)
    times = []
    service.before.insert(0, note_times(times))
    await run(service, ["a"], session=session)
    await run(service, ["b"], session=session)
    assert times[1] - times[0] >= 30


@pytest.mark.parametrize("limits", [Limits(), Limits(max_concurrent_submits=1)], ids=str)
async def test_each_single_submit_that_an_outage_holds_back_says_so(limits):
    service = Service(run_time=10.0, before=[always("submit", LOST)])
    session = session_for(service, limits=limits)
    await run(service, prompts(200), session=session)
    await anyio.sleep(60)
    events = defaultdict(list)

    async def submit(prompt):
        with pytest.raises(AmbiguousSubmitError):
            await session.submit(VideoRequest(prompt, model="kling-v2-6"), Notifier(events[prompt].append))

    async with anyio.create_task_group() as tasks:
        for prompt in ("first", "second", "third"):
            tasks.start_soon(submit, prompt)
            await anyio.sleep(1)

    pauses = {
        prompt: [round(event.delay) for event in of_one if isinstance(event, Throttled)]
        for prompt, of_one in events.items()
    }
    assert pauses["first"] == []
    assert all(pauses[prompt] for prompt in ("second", "third"))
    assert sorted(pauses["second"] + pauses["third"]) == [28, 29, 30]
    errors = [event.error for of_one in events.values() for event in of_one if isinstance(event, Throttled)]
    assert {error.status_code for error in errors} == {502}


async def test_a_batch_that_an_outage_holds_back_says_so_once_for_each_turn():
    service = Service(run_time=10.0, before=[always("submit", LOST)])
    session = session_for(service)
    events = []
    await run(service, prompts(200), session=session, at_once=100)
    await anyio.sleep(60)
    await run(service, prompts(200), session=session, at_once=100, notify=events.append)
    assert [round(event.delay) for event in events if isinstance(event, Throttled)] == [30, 30]


@pytest.mark.parametrize("call", ["submit", "generate"])
async def test_a_deadline_around_a_call_that_an_outage_holds_back_ends_it_and_leaves_nothing(call, caplog):
    service = Service(run_time=10.0, before=[always("submit", LOST)])
    session = session_for(service)
    await run(service, prompts(200), session=session)
    await anyio.sleep(60)
    first, request = (VideoRequest(prompt, model="kling-v2-6") for prompt in ("first", "rain"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.submit, first, Notifier())  # takes the turn
        await anyio.sleep(1)
        posts, began = service.posts, anyio.current_time()
        caplog.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*(session.submit(request, Notifier(), call=call) for _ in range(30)))
        assert anyio.current_time() - began == pytest.approx(5.0, abs=0.1)
        assert (service.posts, caplog.text) == (posts, "")
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(max_concurrent_submits=2), Limits(max_submits_per_hour=3600)], ids=str
)
async def test_a_batch_that_has_stopped_sends_nothing_of_what_waits(limits):
    """The first answer is a pause, in which all others wait; the second one stops the batch."""
    throttled = reply(429, {"error": "no"}, {"retry-after": "5"})
    service = Service(before=[on("submit", throttled, *[reply(402, {"error": "no credits"})] * 40)])
    results = await run(service, prompts(40), at_once=40, limits=limits)
    assert {result.state for result in results} == {ResultState.NOT_SUBMITTED}
    assert service.posts <= limits.max_concurrent_submits + 2


@pytest.mark.parametrize("same_client", [True, False])
async def test_the_lost_submits_of_an_earlier_run_stop_no_batch(tmp_path, same_client):
    service = Service(run_time=10.0, before=[always("submit", LOST)])
    session = session_for(service)
    with journal_at(tmp_path / "run.db") as journal:
        first = await run(service, prompts(60), journal=journal, session=session)
    lost = [result.index for result in first if result.state is ResultState.AMBIGUOUS]
    service.before.clear()
    await anyio.sleep(600)

    with journal_at(tmp_path / "run.db") as journal:
        results = await run(service, prompts(60), journal=journal, session=session if same_client else None)

    assert len(lost) > 10
    assert sorted(result.index for result in results if not result.ok) == sorted(lost)


async def test_what_waits_for_a_slot_when_its_batch_stops_takes_no_hourly_turn():
    service = Service(latency=1.0, before=[always("submit", reply(402, {"error": "no credits"}))])
    began = anyio.current_time()
    results = await run(service, prompts(60), at_once=60, limits=Limits(max_submits_per_hour=60))
    assert {result.state for result in results} == {ResultState.NOT_SUBMITTED}
    assert anyio.current_time() - began < 60
