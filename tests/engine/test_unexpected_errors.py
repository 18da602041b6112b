"""An error that no code expects, as by a mistake of ours, ends a batch or a wait as itself, and no paid job is forgotten."""

from __future__ import annotations

import anyio
import pytest
from virtual_service import Service, batch_of, prompts, session_for

from kling_async import Job, JobStatus, PollingPolicy, ResultState
from kling_async.events import Notifier

ONE_BY_ONE = PollingPolicy(use_lists="never")


def polls_of(job_id):
    """Raises at each status call for a job."""

    def script(request, service):
        return (
            LookupError("a mistake of ours")
            if request.method == "GET" and request.url.endswith(job_id)
            else None
        )

    return script


async def collect(batch):
    """All results of a batch, and the error after them."""
    results = []
    with pytest.raises(LookupError, match="a mistake of ours") as caught:
        async with batch as stream:
            async for result in stream:
                results.append(result)
    return results, caught.value


@pytest.mark.parametrize("number", [1, 3, 20])
async def test_the_error_comes_after_the_results_of_all_items_and_names_the_paid_jobs(number, caplog):
    service = Service(run_time=30.0, latency=0.1, before=[polls_of("job-0")])
    results, error = await collect(batch_of(service, prompts(number), polling=ONE_BY_ONE))
    assert {result.state for result in results} == {ResultState.TIMED_OUT}
    assert {result.job.request_id for result in results} == {f"job-{index}" for index in range(number)}
    [note] = error.__notes__
    assert f"left {number} job" in note
    assert all(result.job.request_id in note for result in results)
    assert caplog.text.count(note) == 1


async def test_the_result_of_an_item_whose_video_cannot_be_saved_for_it_is_not_lost(tmp_path):
    class NoMedia(Service):
        def stream(self, request):
            raise LookupError("a mistake of ours")

    results, error = await collect(batch_of(NoMedia(run_time=5.0), prompts(2), folder=tmp_path))
    assert [result.ok for result in results] == [True, True]
    assert "made and not saved (job-0, job-1)" in error.__notes__[0]


async def test_a_batch_that_the_caller_leaves_after_it_names_the_paid_jobs_once_more(caplog):
    service = Service(run_time=30.0, latency=0.1, before=[polls_of("job-0")])
    async with batch_of(service, prompts(2), polling=ONE_BY_ONE):
        await anyio.sleep(60)
    told = [record.getMessage() for record in caplog.records if record.name == "kling_async.interrupted"]
    assert len(told) == 2
    assert all("job-0, job-1" in text for text in told)


@pytest.mark.parametrize("number", [1, 3])
async def test_a_wait_ends_with_the_error_itself(number):
    session = session_for(Service(run_time=30.0, before=[polls_of("job-0")]), polling=ONE_BY_ONE)
    jobs = [Job(request_id=f"job-{index}", status=JobStatus.QUEUED) for index in range(number)]
    with pytest.raises(LookupError, match="a mistake of ours"):
        await session.wait(jobs[0], Notifier())
    with pytest.raises(LookupError, match="a mistake of ours"):
        await session.wait_many(jobs, Notifier(), polling=ONE_BY_ONE)
