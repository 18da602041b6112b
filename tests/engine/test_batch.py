from __future__ import annotations

import itertools

import anyio
import pytest
from virtual_journal import journal_at
from virtual_service import Service, always, batch_of, on, prompts, reply, run

from kling_async import (
    AmbiguousSubmitError,
    AuthenticationError,
    BadRequestError,
    InvalidRequestError,
    JobFailedError,
    Limits,
    PollingPolicy,
    ResultState,
    VideoRequest,
)
from kling_async.emulator import JobScript
from kling_async.events import Finished, StatusChanged, Submitted, Throttled


@pytest.mark.unmeasured
async def test_every_item_gets_its_result():
    service = Service(run_time=lambda number: 10.0 + 7 * (number % 5))
    results = await run(service, prompts(50))
    assert sorted(result.index for result in results) == list(range(50))
    assert all(result.ok for result in results)
    assert [result.request.prompt for result in sorted(results, key=lambda one: one.index)] == prompts(50)
    assert service.posts == 50


async def test_results_come_as_jobs_finish():
    service = Service(run_time=lambda number: 100.0 - 10 * number)
    results = await run(service, prompts(5), polling=PollingPolicy(poll_interval=0.5))
    assert [result.index for result in results] == [4, 3, 2, 1, 0]


@pytest.mark.unmeasured
@pytest.mark.parametrize("at_once", [1, 2, 7, 40])
async def test_no_more_jobs_are_in_flight_than_max_concurrency(at_once):
    service = Service(run_time=lambda number: 5.0 + number % 3)
    results = await run(service, prompts(30), at_once=at_once)
    assert len(results) == 30
    assert service.most_in_flight == min(at_once, 30)


async def test_no_prompts_give_no_results():
    service = Service()
    assert await run(service, []) == []
    assert service.calls == {}


async def test_a_refused_item_does_not_affect_the_others():
    service = Service(before=[on("submit", None, reply(400, {"error": "no"}), None)])
    results = await run(service, prompts(3), at_once=1)
    states = {result.index: result.state for result in results}
    assert states == {
        0: ResultState.SUCCEEDED,
        1: ResultState.NOT_SUBMITTED,
        2: ResultState.SUCCEEDED,
    }
    refused = next(result for result in results if not result.ok)
    assert isinstance(refused.error, BadRequestError)
    with pytest.raises(BadRequestError):
        refused.job_or_raise()


async def test_an_item_whose_job_could_not_be_read_is_not_sent_and_the_others_are(tmp_path):
    service = Service(run_time=10)
    many = [VideoRequest("rain, " * 30_000 + str(n), model="kling-of-tomorrow") for n in range(10)]
    with journal_at(tmp_path / "run.db") as journal:
        results = await run(service, [*many, "snow"], journal=journal)
    by_index = {result.index: result for result in results}
    assert all(isinstance(by_index[index].error, InvalidRequestError) for index in range(10))
    assert by_index[0].state is ResultState.NOT_SUBMITTED
    assert by_index[10].ok
    assert service.posts == 1


async def test_a_failed_job_is_a_result_with_the_services_reason():
    service = Service(script=lambda _: JobScript(ending="failed", error="prompt rejected"))
    [result] = await run(service, ["x"])
    assert result.state is ResultState.FAILED
    assert isinstance(result.error, JobFailedError)
    assert "prompt rejected" in str(result.error)


async def test_a_lost_submit_without_a_job_in_the_list_is_ambiguous_and_not_sent_again():
    service = Service(before=[on("submit", reply(500, b"oops"))])
    results = await run(service, prompts(3), at_once=1)
    lost = next(result for result in results if result.index == 0)
    assert lost.state is ResultState.AMBIGUOUS
    assert isinstance(lost.error, AmbiguousSubmitError)
    assert service.posts == 3


async def test_a_refused_key_stops_the_batch():
    service = Service(before=[always("submit", reply(401, {"error": "bad key"}))])
    results = await run(service, prompts(100), at_once=4)
    assert len(results) == 100
    assert all(result.state is ResultState.NOT_SUBMITTED for result in results)
    assert all(isinstance(result.error, AuthenticationError) for result in results)
    assert service.posts <= 4


async def test_ten_equal_failures_in_a_row_stop_the_batch():
    service = Service(before=[always("submit", reply(400, {"error": "no"}))])
    results = await run(service, prompts(100), at_once=1)
    assert len(results) == 100
    assert service.posts == 10


async def test_throttled_submits_wait_and_no_item_fails():
    throttle = reply(429, {"error": "slow down"}, {"retry-after": "20"})
    service = Service(before=[on("submit", None, None, throttle, throttle, throttle)])
    results = await run(service, prompts(12), at_once=6)
    assert all(result.ok for result in results)
    assert len(service.jobs) == 12


async def test_an_invalid_item_in_a_collection_is_an_error_before_the_first_post():
    service = Service()
    with pytest.raises(InvalidRequestError, match=r"2 of 4 .*item 1: .*item 3: "):
        await run(service, ["fine", "", "fine", {"prompt": "x", "colour": "red"}])
    assert service.calls == {}


async def test_the_error_of_a_collection_has_the_advice_of_its_first_invalid_item():
    with pytest.raises(InvalidRequestError) as caught:
        await run(Service(), [{"prompt": "a cat", "resolution": "4k"}, {"prompt": ""}])
    assert "give extra={'resolution': ...}. skip_invalid=True leaves them out." in caught.value.advice


async def test_skipped_invalid_items_have_results():
    results = await run(Service(), ["fine", "", 7, "fine"], skip_invalid=True)
    states = {result.index: result.state for result in results}
    assert [states[index] for index in range(4)] == [
        ResultState.SUCCEEDED,
        ResultState.NOT_SUBMITTED,
        ResultState.NOT_SUBMITTED,
        ResultState.SUCCEEDED,
    ]


@pytest.mark.parametrize("one", ["a prompt", b"x", {"prompt": "x"}, VideoRequest("x"), 7])
async def test_a_single_request_is_an_error(one):
    with pytest.raises(InvalidRequestError):
        await run(Service(), one)


async def endless(consumed):
    for number in itertools.count():
        consumed.append(number)
        yield f"prompt {number}"


async def test_input_is_read_only_a_little_ahead_and_closed_when_the_block_ends():
    consumed = []
    generator = endless(consumed)
    service = Service(run_time=10.0)
    async with batch_of(service, generator, at_once=3) as results:
        seen = [await anext(results) for _ in range(9)]
    assert len(seen) == 9
    assert len(consumed) <= 9 + 2 * 3 + 3
    with pytest.raises(StopAsyncIteration):
        await anext(generator)


async def test_a_slow_reader_of_results_slows_the_reading_of_input():
    consumed = []
    service = Service(run_time=1.0)
    async with batch_of(service, endless(consumed), at_once=4) as results:
        await anext(results)
        await anyio.sleep(1000)
        assert len(consumed) <= 1 + 2 * 4 + 4


async def test_leaving_the_block_early_submits_no_further_item():
    service = Service(run_time=100.0)
    async with batch_of(service, prompts(50), at_once=5):
        await anyio.sleep(10)
    posts = service.posts
    await anyio.sleep(1000)
    assert posts == service.posts == 5


async def test_leaving_the_block_during_posts_submits_no_further_item_after_them():
    service = Service(run_time=100.0, latency=10.0)
    async with batch_of(service, prompts(50), at_once=20, limits=Limits(max_concurrent_submits=3)):
        await anyio.sleep(5)
    assert anyio.current_time() == pytest.approx(10)
    assert service.posts == len(service.jobs) == 3


async def test_an_error_of_the_block_is_raised_without_a_group():
    with pytest.raises(ZeroDivisionError):
        async with batch_of(Service(), prompts(3)):
            _ = 1 / 0


async def test_an_error_of_the_input_is_raised_after_the_results_of_the_submitted_items():
    def fail_late():
        yield from prompts(3)
        raise LookupError("no more")

    service = Service()
    seen = []
    with pytest.raises(LookupError, match="no more"):
        async with batch_of(service, fail_late()) as results:
            async for result in results:
                seen.append(result)
    assert sorted(result.index for result in seen) == [0, 1, 2]
    assert all(result.ok for result in seen)


async def test_an_invalid_item_of_an_iterator_is_an_error_after_the_results_of_the_submitted_items():
    seen = []
    with pytest.raises(InvalidRequestError, match="Item 2"):
        async with batch_of(Service(), iter(["a", "b", "", "c"]), at_once=1) as results:
            async for result in results:
                seen.append(result)
    assert [result.index for result in seen] == [0, 1]


async def test_an_input_whose_cleanup_raises_does_not_break_a_batch_that_is_left():
    def fail_late():
        try:
            yield from prompts(100)
        finally:
            raise LookupError("cleanup")

    async with batch_of(Service(), fail_late(), at_once=2) as results:
        await anext(results)


async def test_a_limit_of_ten_thousand_submits_all_items_at_once():
    service = Service(run_time=50.0)
    results = await run(service, prompts(600), at_once=10_000)
    assert service.most_in_flight == 600
    assert len(results) == 600


async def test_the_events_of_an_item_come_in_order():
    events = []
    service = Service(run_time=20.0, queue_time=5.0)
    await run(service, ["x"], notify=events.append, polling=PollingPolicy(poll_interval=1.0))
    assert [type(event) for event in events] == [Submitted, StatusChanged, StatusChanged, Finished]
    assert {event.index for event in events} == {0}
    assert {event.request_id for event in events} == {"job-0"}
    assert events[-1].state is ResultState.SUCCEEDED


async def test_a_listener_that_raises_does_not_affect_the_batch():
    def fail(event):
        raise RuntimeError("listener")

    [result] = await run(Service(), ["x"], notify=fail)
    assert result.ok


async def test_a_job_past_its_deadline_is_timed_out_and_its_slot_is_free():
    service = Service(run_time=lambda number: 1e9 if number == 0 else 10.0)
    results = await run(service, prompts(3), at_once=1, polling=PollingPolicy(wait_timeout=60))
    states = {result.index: result.state for result in results}
    assert states == {0: ResultState.TIMED_OUT, 1: ResultState.SUCCEEDED, 2: ResultState.SUCCEEDED}
    assert "client.wait('job-0')" in str(next(r for r in results if r.index == 0).error)


async def test_a_picture_that_cannot_be_uploaded_fails_only_its_item(tmp_path):
    picture = tmp_path / "start.png"
    picture.write_bytes(b"png")
    items = [VideoRequest("with", image=picture), "without"]
    results = await run(Service(), items, at_once=1)
    states = {result.index: result.state for result in results}
    assert states == {0: ResultState.NOT_SUBMITTED, 1: ResultState.SUCCEEDED}


def fail_first(times, reason="Video generation failed: rate limit exceeded(RPM)"):
    """Lets the first jobs fail at once, as by a service that reports a rate limit as a failed job."""
    failed = JobScript(ending="failed", error=reason, run_time=0.0)
    return lambda number: failed if number < times else JobScript()


async def test_an_item_whose_job_failed_for_a_rate_limit_is_submitted_again_after_a_pause():
    events = []
    service = Service(run_time=10.0, script=fail_first(2))
    results = await run(service, prompts(3), at_once=3, notify=events.append)
    assert all(result.ok for result in results)
    assert service.posts == 5
    assert service.most_in_flight <= 3
    pauses = [event for event in events if isinstance(event, Throttled)]
    assert len(pauses) == 2
    assert all(event.delay >= 1.0 for event in pauses)
    assert len([event for event in events if isinstance(event, Finished)]) == 3


async def test_an_item_whose_jobs_always_fail_for_a_rate_limit_fails_after_five_resubmits():
    service = Service(run_time=10.0, script=fail_first(1000))
    [result] = await run(service, ["x"])
    assert result.state is ResultState.FAILED
    assert service.posts == 6


async def test_an_item_whose_job_failed_for_another_reason_is_not_submitted_again():
    service = Service(run_time=10.0, script=fail_first(1, "Generation rejected"))
    [result] = await run(service, ["x"])
    assert result.state is ResultState.FAILED
    assert service.posts == 1


async def test_two_readers_of_one_batch_share_its_results():
    seen = []

    async def read(results):
        async for result in results:
            seen.append(result.index)

    batch = batch_of(Service(run_time=lambda number: 5.0 + number), prompts(10))
    async with batch as results, anyio.create_task_group() as readers:
        readers.start_soon(read, results)
        readers.start_soon(read, results)
    assert sorted(seen) == list(range(10))
