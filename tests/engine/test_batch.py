from __future__ import annotations

import itertools

import anyio
import pytest
from virtual_service import Service, always, batch_of, on, prompts, reply, run

from kling_async import (
    AmbiguousSubmitError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    InvalidRequestError,
    JobFailedError,
    Limits,
    PollingPolicy,
    ResultState,
    VideoRequest,
)
from kling_async.events import Finished, StatusChanged, Submitted, Throttled


async def test_every_item_gets_its_result():
    service = Service(run_time=lambda number: 10.0 + 7 * (number % 5))
    results = await run(service, prompts(50))
    assert sorted(result.index for result in results) == list(range(50))
    assert all(result.ok for result in results)
    assert [result.request.prompt for result in sorted(results, key=lambda one: one.index)] == prompts(50)
    assert service.posts == 50


async def test_results_come_as_they_finish():
    service = Service(run_time=lambda number: 100.0 - 10 * number)
    results = await run(service, prompts(5), polling=PollingPolicy(poll_interval=0.5))
    assert [result.index for result in results] == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("at_once", [1, 2, 7, 40])
async def test_never_more_jobs_are_alive_than_allowed(at_once):
    service = Service(run_time=lambda number: 5.0 + number % 3)
    results = await run(service, prompts(30), at_once=at_once)
    assert len(results) == 30
    assert service.most_alive == min(at_once, 30)


async def test_no_prompts_give_no_results():
    service = Service()
    assert await run(service, []) == []
    assert service.calls == {}


async def test_failing_items_leave_the_others_alone():
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


async def test_a_failed_job_is_a_result_with_the_services_reason():
    service = Service()

    def fail(request, service):
        for job in service.jobs.values():
            job.final = "failed"
            job.error = "prompt rejected"

    service.after.append(fail)
    [result] = await run(service, ["x"])
    assert result.state is ResultState.FAILED
    assert isinstance(result.error, JobFailedError)
    assert "prompt rejected" in str(result.error)


async def test_a_reply_that_is_lost_for_good_is_ambiguous_and_not_bought_again():
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


async def test_the_same_failure_many_times_in_a_row_stops_the_batch():
    service = Service(before=[always("submit", reply(400, {"error": "no"}))])
    results = await run(service, prompts(100), at_once=1)
    assert len(results) == 100
    assert service.posts == 10


async def test_throttling_is_waited_out_and_fails_nothing():
    throttle = reply(429, {"error": "slow down"}, {"retry-after": "20"})
    service = Service(before=[on("submit", None, None, throttle, throttle, throttle)])
    results = await run(service, prompts(12), at_once=6)
    assert all(result.ok for result in results)
    assert len(service.jobs) == 12


async def test_one_bad_item_in_a_collection_and_nothing_is_sent():
    service = Service()
    with pytest.raises(InvalidRequestError, match=r"2 of 4 .*item 1: .*item 3: "):
        await run(service, ["fine", "", "fine", {"prompt": "x", "colour": "red"}])
    assert service.calls == {}


async def test_bad_items_are_results_when_they_are_to_be_skipped():
    results = await run(Service(), ["fine", "", 7, "fine"], skip_invalid=True)
    states = {result.index: result.state for result in results}
    assert [states[index] for index in range(4)] == [
        ResultState.SUCCEEDED,
        ResultState.NOT_SUBMITTED,
        ResultState.NOT_SUBMITTED,
        ResultState.SUCCEEDED,
    ]


@pytest.mark.parametrize("one", ["a prompt", b"x", {"prompt": "x"}, VideoRequest("x"), 7])
async def test_one_request_is_not_many(one):
    with pytest.raises(InvalidRequestError):
        await run(Service(), one)


async def endless(taken):
    for number in itertools.count():
        taken.append(number)
        yield f"prompt {number}"


async def test_input_is_taken_no_faster_than_needed_and_closed_when_the_block_ends():
    taken = []
    source = endless(taken)
    service = Service(run_time=10.0)
    async with batch_of(service, source, at_once=3) as results:
        seen = [await anext(results) for _ in range(9)]
    assert len(seen) == 9
    assert len(taken) <= 9 + 2 * 3 + 3
    with pytest.raises(StopAsyncIteration):
        await anext(source)


async def test_a_slow_reader_slows_the_intake():
    taken = []
    service = Service(run_time=1.0)
    async with batch_of(service, endless(taken), at_once=4) as results:
        await anext(results)
        await anyio.sleep(1000)
        assert len(taken) <= 1 + 2 * 4 + 4


async def test_leaving_early_leaves_the_jobs_alone_and_submits_nothing_more():
    service = Service(run_time=100.0)
    async with batch_of(service, prompts(50), at_once=5):
        await anyio.sleep(10)
    posts = service.posts
    await anyio.sleep(1000)
    assert posts == service.posts == 5


async def test_leaving_while_posts_are_in_flight_submits_nothing_more_once_they_are_answered():
    service = Service(run_time=100.0, latency=10.0)
    async with batch_of(service, prompts(50), at_once=20, limits=Limits(max_concurrent_submits=3)):
        await anyio.sleep(5)
    assert anyio.current_time() == pytest.approx(10)
    assert service.posts == len(service.jobs) == 3


async def test_what_the_block_raises_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError):
        async with batch_of(Service(), prompts(3)):
            _ = 1 / 0


async def test_an_input_that_raises_ends_the_batch_after_what_was_submitted():
    def broken():
        yield from prompts(3)
        raise LookupError("no more")

    service = Service()
    seen = []
    with pytest.raises(LookupError, match="no more"):
        async with batch_of(service, broken()) as results:
            async for result in results:
                seen.append(result)
    assert sorted(result.index for result in seen) == [0, 1, 2]
    assert all(result.ok for result in seen)


async def test_a_bad_item_of_an_iterator_ends_the_batch_after_what_was_submitted():
    seen = []
    with pytest.raises(InvalidRequestError, match="Item 2"):
        async with batch_of(Service(), iter(["a", "b", "", "c"]), at_once=1) as results:
            async for result in results:
                seen.append(result)
    assert [result.index for result in seen] == [0, 1]


async def test_an_input_whose_cleanup_raises_is_reported_after_all_results():
    def broken():
        try:
            yield from prompts(100)
        finally:
            raise LookupError("cleanup")

    async with batch_of(Service(), broken(), at_once=2) as results:
        await anext(results)


async def test_a_window_of_ten_thousand_submits_all_at_once():
    service = Service(run_time=50.0)
    results = await run(service, prompts(600), at_once=10_000)
    assert service.most_alive == 600
    assert len(results) == 600


async def test_every_item_tells_its_story_in_order():
    events = []
    service = Service(run_time=20.0, queue_time=5.0)
    await run(service, ["x"], notify=events.append, polling=PollingPolicy(poll_interval=1.0))
    assert [type(event) for event in events] == [Submitted, StatusChanged, StatusChanged, Finished]
    assert {event.index for event in events} == {0}
    assert {event.request_id for event in events} == {"job-0"}
    assert events[-1].state is ResultState.SUCCEEDED


async def test_a_listener_that_raises_never_hurts_the_batch():
    def broken(event):
        raise RuntimeError("listener")

    [result] = await run(Service(), ["x"], notify=broken)
    assert result.ok


async def test_a_job_that_outlives_its_deadline_is_timed_out_and_its_place_is_free():
    service = Service(run_time=lambda number: 1e9 if number == 0 else 10.0)
    results = await run(service, prompts(3), at_once=1, polling=PollingPolicy(wait_timeout=60))
    states = {result.index: result.state for result in results}
    assert states == {0: ResultState.TIMED_OUT, 1: ResultState.SUCCEEDED, 2: ResultState.SUCCEEDED}
    assert "client.wait('job-0')" in str(next(r for r in results if r.index == 0).error)


async def test_a_folder_that_cannot_be_written_is_known_before_anything_is_sent(tmp_path):
    from kling_async._engine.download.downloader import check_folder

    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file/videos"):
        await check_folder(tmp_path / "file" / "videos")


async def test_a_picture_that_cannot_be_uploaded_fails_its_item_and_not_the_batch(tmp_path):
    picture = tmp_path / "start.png"
    picture.write_bytes(b"png")
    items = [VideoRequest("with", image=picture), "without"]
    results = await run(Service(), items, at_once=1)
    states = {result.index: result.state for result in results}
    assert states == {0: ResultState.NOT_SUBMITTED, 1: ResultState.SUCCEEDED}


def failing(times, reason="Video generation failed: rate limit exceeded(RPM)"):
    """Has the first jobs fail at once, as a service does that tells a rate limit by a failed job."""

    def script(request, service):
        for job in service.jobs.values():
            if int(job.request_id.removeprefix("job-")) < times:
                job.final, job.error, job.begins, job.ends = "failed", reason, job.created, job.created

    return script


async def test_a_job_that_failed_for_a_rate_limit_is_submitted_again_after_a_pause():
    events = []
    service = Service(run_time=10.0, after=[failing(2)])
    results = await run(service, prompts(3), at_once=3, notify=events.append)
    assert all(result.ok for result in results)
    assert service.posts == 5
    assert service.most_alive <= 3
    pauses = [event for event in events if isinstance(event, Throttled)]
    assert len(pauses) == 2
    assert all(event.delay >= 1.0 for event in pauses)
    assert len([event for event in events if isinstance(event, Finished)]) == 3


async def test_an_item_that_fails_for_a_rate_limit_again_and_again_is_a_failure_in_the_end():
    service = Service(run_time=10.0, after=[failing(1000)])
    [result] = await run(service, ["x"])
    assert result.state is ResultState.FAILED
    assert service.posts == 6


async def test_a_job_that_failed_for_another_reason_is_not_submitted_again():
    service = Service(run_time=10.0, after=[failing(1, "Generation rejected")])
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
