from __future__ import annotations

from statistics import fmean
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import anyio
import pytest
from virtual_service import FAILED, Service, always, prompts, reply, run

from benchmarks.lists import LISTS, minutes, run_day, run_jobs
from kling_async import APIConnectionError, JobStatus, Limits, PollingPolicy, ResultState, VideoRequest
from kling_async.emulator import Job as EmulatedJob
from kling_async.emulator import JobScript, Status

AT_ONCE = Limits(max_concurrent_submits=100, max_polls_per_second=50)


def run_time_of(number):
    return 40.0 + (number * 7919 % 400) / 10


async def run_batch_of(service, number=150, *, use_lists="auto", poll_interval=None, at_once=150, **settings):
    polling = PollingPolicy(use_lists=use_lists, poll_interval=poll_interval, wait_timeout=2000)
    results = await run(
        service, prompts(number), at_once=at_once, limits=AT_ONCE, polling=polling, **settings
    )
    assert len(results) == number
    assert all(result.ok for result in results), [result.error for result in results if not result.ok][:3]
    return results


def add_strangers_jobs(service, number, *, model="kling-v2-6"):
    for index in range(number):
        service.queue.put(
            EmulatedJob(
                number=0,
                request_id=f"stranger-{index}",
                model=model,
                payload={"prompt": "x"},
                organization_id="org",
                statuses=(Status.QUEUED, Status.SUCCESS),
                status_times=(-9000.0, -8000.0),
            )
        )


@pytest.mark.unmeasured
async def test_a_list_that_spells_uuids_otherwise_shows_the_same_jobs():
    def spell_in_upper_case(request, service):
        if service.kind(request) != "list":
            return None
        page = service.call("list", request)
        rows = [{**row, "request_id": row["request_id"].upper()} for row in page["requests"]]
        return reply(200, {**page, "requests": rows})

    def uuid_of(number):
        return JobScript(request_id=str(UUID(int=0xABC << 112 | number)))

    service = Service(run_time=run_time_of, script=uuid_of, before=[spell_in_upper_case])
    await run_batch_of(service)
    by_status = Service(run_time=run_time_of)
    await run_batch_of(by_status, use_lists="never")
    assert service.calls["list"] + service.calls["status"] < 0.6 * by_status.calls["status"]


@pytest.mark.unmeasured
async def test_one_list_call_replaces_many_status_calls():
    service = Service(run_time=run_time_of)
    await run_batch_of(service)
    assert service.calls["list"] > 0
    by_status = Service(run_time=run_time_of)
    await run_batch_of(by_status, use_lists="never")
    assert by_status.calls["list"] == 0
    assert service.calls["list"] + service.calls["status"] < 0.6 * by_status.calls["status"]


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "order, rows, tells",
    [
        ("newest", 7, "everything"), ("newest", 100, "nothing"), ("newest", 1000, "no more"),
        ("oldest", 7, "nothing"), ("oldest", 100, "no more"), ("oldest", 1000, "everything"),
        ("random", 7, "no more"), ("random", 100, "everything"), ("random", 1000, "nothing"),
    ],
)  # fmt: skip
async def test_no_order_size_or_total_of_a_list_is_relied_on(order, rows, tells):
    has_fields = tells != "nothing"
    service = Service(
        run_time=run_time_of,
        order=order,
        rows=rows,
        has_total=has_fields,
        has_more=has_fields,
        denies_more=tells == "no more",
    )
    await run_batch_of(service)
    lags = service.lags()
    assert max(lags) < 20
    assert sum(lags) < 3 * len(lags)


@pytest.mark.unmeasured
async def test_a_page_covers_our_first_to_last_job_even_if_most_have_ended():
    service = Service(run_time=run_time_of, rows=1000)
    add_strangers_jobs(service, 5000)
    await run_batch_of(service, 250, at_once=250)
    offsets = [
        int(parse_qs(urlsplit(request.url).query)["offset"][0])
        for request in service.requests
        if "offset=" in request.url
    ]
    assert len(offsets) > 20
    assert sum(offset > 0 for offset in offsets) <= 2


@pytest.mark.unmeasured
@pytest.mark.parametrize("order", ["newest", "oldest", "random"])
async def test_a_list_with_many_other_jobs_costs_few_calls(order):
    service = Service(run_time=run_time_of, order=order)
    add_strangers_jobs(service, 5000)
    await run_batch_of(service)
    assert service.calls["list"] + service.calls["status"] <= 9 * 150  # status calls alone are 6 a job


@pytest.mark.unmeasured
async def test_a_list_that_grows_while_it_is_read_is_read_to_its_end():
    service = Service(run_time=0.01, latency=0.05)
    limits = Limits(max_concurrent_submits=100, max_polls_per_second=1e6)
    results = await run(service, prompts(2000), at_once=2000, limits=limits)
    assert all(result.ok for result in results)
    assert service.calls["status"] < 0.1 * 2000
    assert service.calls["list"] < 0.05 * 2000


@pytest.mark.unmeasured
@pytest.mark.parametrize("grows", [0, 30, 100])
async def test_a_list_that_repeats_its_rows_is_left_after_two_pages(grows):
    """The list ignores the offset, and its total can grow."""

    def repeat_first_page(request, service):
        if service.kind(request) != "list":
            return None
        rows = [service.record(job) for job in list(service.jobs.values())[:100]]
        total = 1000 + grows * service.calls["list"]
        return reply(200, {"requests": rows, "has_more": True, "total": total})

    service = Service(run_time=run_time_of, before=[repeat_first_page])
    await run_batch_of(service)
    offsets = [
        parse_qs(urlsplit(one.url).query)["offset"][0] for one in service.requests if "offset=" in one.url
    ]
    assert all("0" in three for three in zip(offsets, offsets[1:], offsets[2:], offsets[3:], strict=False))


@pytest.mark.unmeasured
async def test_jobs_that_the_list_does_not_show_are_polled_by_status_calls():
    service = Service(run_time=run_time_of, shows=lambda job: not job.request_id.endswith("3"))
    await run_batch_of(service)
    assert service.calls["list"] > 0
    assert max(service.lags()) < 35


async def test_a_list_that_does_not_show_our_only_job_is_no_reason_to_test_it():
    service = Service(run_time=30.0, shows=lambda _: False)
    await run_batch_of(service, 1, use_lists="always", at_once=1)
    assert service.calls["list"] > 0
    assert max(service.lags()) < 10


async def test_a_start_that_a_list_shows_while_a_status_call_hangs_is_taken_in():
    class SlowStatus(Service):
        async def send(self, request):
            if self.kind(request) == "status":
                await anyio.sleep(25.0)
            return await super().send(request)

    service = SlowStatus(run_time=40.0, queue_time=10.0)
    events = []
    await run_batch_of(service, 10, use_lists="always", poll_interval=2.0, at_once=10, notify=events.append)
    started = [event.at for event in events if getattr(event, "status", None) is JobStatus.PROCESSING]
    assert len(started) == 10
    assert max(service.lags()) < 5


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "answer",
    [
        reply(404, {"error": "no such call"}),
        reply(400, {"error": "model_id"}),
        reply(500, b"<html>"),
        reply(429, b""),
        reply(200, b"garbage"),
        reply(200, {"requests": 7}),
        APIConnectionError("reset"),
        reply(200, {"requests": [], "has_more": True, "total": 10**9}),
        reply(
            200, {"requests": [{"request_id": "stranger", "status": "queued"}, 7, None, {}], "has_more": True}
        ),
    ],
    ids=["404", "400", "500", "429", "garbage", "shape", "reset", "empty", "strangers"],
)
@pytest.mark.parametrize("use_lists", ["auto", "always"])
async def test_a_useless_list_costs_few_calls(answer, use_lists):
    service = Service(run_time=run_time_of, before=[always("list", answer)])
    await run_batch_of(service, use_lists=use_lists)
    assert service.calls["list"] <= 12
    assert max(service.lags()) < 40


async def test_a_refused_page_size_is_not_requested_again():
    def refuse_large(request, service):
        if service.kind(request) == "list" and "limit=100&" not in request.url:
            return reply(400, {"error": "limit must be at most 100"})
        return None

    service = Service(run_time=run_time_of, before=[refuse_large])
    await run_batch_of(service)
    refused = [one for one in service.requests if "limit=" in one.url and "limit=100&" not in one.url]
    assert len(refused) <= 2
    assert service.calls["list"] > 20


async def test_a_stale_list_is_detected():
    frozen = {}

    def freeze(request, service):
        if service.kind(request) != "list":
            return None
        if service.now < 20:
            return None
        if "page" not in frozen:
            frozen["page"] = service.answer("list", request)
        return frozen["page"]

    service = Service(run_time=run_time_of, before=[freeze])
    await run_batch_of(service)
    lags = sorted(service.lags())
    assert lags[len(lags) // 2] < 40
    assert lags[-1] < 120


async def test_a_list_that_shows_old_states_is_not_trusted():
    def show_queued(request, service):
        if service.kind(request) != "list":
            return None
        rows = [{**service.record(job), "status": "queued", "outcome": None} for job in service.jobs.values()]
        return reply(200, {"requests": rows, "has_more": False})

    service = Service(run_time=run_time_of, before=[show_queued])
    await run_batch_of(service)
    assert service.calls["list"] <= 12


async def test_jobs_with_unreadable_rows_are_polled_by_status_calls():
    def spoil(request, service):
        if service.kind(request) != "list":
            return None
        rows = [{"request_id": job.request_id, "status": 7} for job in service.jobs.values()]
        return reply(200, {"requests": rows})

    await run_batch_of(Service(run_time=run_time_of, before=[spoil]))


@pytest.mark.unmeasured
async def test_a_success_in_the_list_without_its_video_is_polled_by_a_status_call():
    def bare(request, service):
        if service.kind(request) != "list":
            return None
        rows = [{**service.record(job), "outcome": None} for job in service.jobs.values()]
        return reply(200, {"requests": rows, "has_more": False})

    results = await run_batch_of(Service(run_time=run_time_of, before=[bare]))
    assert all(result.job.video_url for result in results)


@pytest.mark.unmeasured
async def test_each_model_is_listed_on_its_own():
    service = Service(run_time=run_time_of)
    items = [
        VideoRequest(f"prompt {number}", model=model)
        for number in range(80)
        for model in ("kling-v2-6", "Kling-Text2Video-V2.1-Master")
    ]
    results = await run(service, items, at_once=200, limits=AT_ONCE)
    assert all(result.ok for result in results)
    listed = {
        url.split("model_id=")[1].split("&")[0] for one in service.requests if "model_id=" in (url := one.url)
    }
    assert listed == {"kling-v2-6", "Kling-Text2Video-V2.1-Master"}


async def test_a_list_with_large_rows_costs_few_calls():
    picture = "data:image/png;base64," + "A" * 300_000

    def heavy(request, service):
        if service.kind(request) != "list":
            return None
        rows = [
            {**service.record(job), "payload": {"image": picture}} for job in list(service.jobs.values())[:40]
        ]
        return reply(200, {"requests": rows, "has_more": False})

    service = Service(run_time=run_time_of, before=[heavy])
    await run_batch_of(service, 40)
    assert service.calls["list"] <= 12


async def test_a_fixed_poll_interval_holds_for_list_scans_too():
    service = Service(run_time=30.0)
    await run_batch_of(service, poll_interval=2.0, use_lists="always")
    assert service.calls["list"] + service.calls["status"] < 150 * 4
    assert max(service.lags()) < 5


@pytest.mark.unmeasured
async def test_no_list_scan_runs_after_the_batch():
    service = Service(run_time=run_time_of)
    await run_batch_of(service)
    calls = sum(service.calls.values())
    await anyio.sleep(500)
    assert sum(service.calls.values()) == calls


async def test_list_scans_end_with_the_last_wait_and_begin_again_with_the_next():
    async def two():
        yield "never done"
        await anyio.sleep(100)
        yield "done in time"

    service = Service(run_time=lambda number: 1e6 if number == 0 else 12.0)
    polling = PollingPolicy(use_lists="always", poll_interval=10.0, wait_timeout=35.0)
    results = await run(service, two(), at_once=2, limits=AT_ONCE, polling=polling)
    assert [result.ok for result in sorted(results, key=lambda result: result.index)] == [False, True]
    assert 4 <= service.calls["list"] <= 8


async def test_the_list_does_not_delay_the_status_call_for_a_video():
    def without_outcome(request, service):
        if service.kind(request) not in {"list", "status"}:
            return None
        if service.kind(request) == "status" and service.calls["status"] > 2:
            return APIConnectionError("reset") if service.now < 90 else None
        rows = [{**service.record(job), "outcome": None} for job in service.jobs.values()]
        return reply(200, {"requests": rows, "has_more": False}) if service.kind(request) == "list" else None

    results = await run_batch_of(Service(run_time=run_time_of, before=[without_outcome]), use_lists="always")
    assert all(result.job.video_url for result in results)


# Calls and lags in worlds with a name


def calls_per_job(service):
    return sum(service.calls.values()) / len(service.jobs)


def mean_lag(service):
    return fmean(service.lags())


@pytest.mark.unmeasured
@pytest.mark.parametrize("rows, most", [(100, 2.8), (1000, 2.2)])
async def test_two_hundred_jobs_of_a_minute_cost_two_requests_and_a_half_each(rows, most):
    service = Service(run_time=minutes, rows=rows)
    await run_batch_of(service, 200, at_once=200)
    assert calls_per_job(service) <= most
    assert mean_lag(service) <= 0.65


@pytest.mark.unmeasured
@pytest.mark.parametrize("rows", [100, 1000])
async def test_lists_are_as_good_after_a_queue_and_where_no_start_is_shown(rows):
    queued = Service(run_time=minutes, rows=rows, queue_time=10.0)
    await run_batch_of(queued, 200, at_once=200)
    unshown = Service(run_time=0.0, rows=rows, queue_time=60.0)
    await run_batch_of(unshown, 200, at_once=200)
    assert calls_per_job(queued) <= 3.6
    assert mean_lag(queued) <= 0.8
    assert calls_per_job(unshown) <= 3.6
    assert mean_lag(unshown) <= 3.6


async def test_a_service_that_fails_all_jobs_in_a_second_is_noticed_at_the_next_scan():
    service = Service(run_time=1.0, script=lambda _: FAILED)
    results = await run(service, prompts(200), at_once=50, limits=AT_ONCE)
    assert {result.state for result in results} == {ResultState.FAILED}
    assert calls_per_job(service) <= 2.5
    assert mean_lag(service) <= 0.3


@pytest.mark.unmeasured
async def test_a_crowd_that_comes_while_scans_are_rare_is_not_kept_waiting_for_the_next():
    async def few_then_many():
        for number in range(5):
            yield f"slow {number}"
        await anyio.sleep(2005)
        for number in range(100):
            yield f"quick {number}"

    service = Service(run_time=lambda number: 3000.0 + number if number < 5 else 20.0)
    polling = PollingPolicy(wait_timeout=None)
    await run(service, few_then_many(), at_once=200, limits=AT_ONCE, polling=polling)
    assert max(service.lags()[:100]) <= 12.0
    assert calls_per_job(service) <= 12.0


@pytest.mark.unmeasured
async def test_run_times_that_triple_half_way_are_followed_by_the_scans():
    service = Service(run_time=lambda number: minutes(number) * (1 if number < 200 else 3))
    await run_batch_of(service, 400, at_once=100)
    assert calls_per_job(service) <= 8.0
    assert mean_lag(service) <= 1.5


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "name, most_calls, most_lag, longest_lag",
    [
        ("honest", 2.8, 0.65, 4.0),
        ("refused", 11.0, 3.0, 16.0),
        ("fails", 11.0, 3.0, 16.0),
        ("garbage", 11.0, 3.0, 16.0),
        ("partial", 10.0, 2.5, 15.0),
        ("huge", 9.0, 2.5, 15.0),
        ("all queued", 11.0, 3.0, 16.0),
        ("stale from the beginning", 8.0, 8.0, 35.0),
        ("stale after 45 s", 7.0, 4.0, 25.0),
        ("fresh once a minute", 8.0, 8.0, 35.0),
    ],
)
def test_a_list_that_misbehaves_costs_little_more_than_none(name, most_calls, most_lag, longest_lag):
    report = run_jobs(LISTS[name], jobs=200, at_once=200)
    assert report.requests <= most_calls
    assert fmean(report.lags) <= most_lag
    assert max(report.lags) <= longest_lag


@pytest.mark.unmeasured
@pytest.mark.slow
def test_every_job_ends_in_hours_of_lists_that_misbehave():
    report = run_day(400)
    assert len(report.lags) == 400
    assert report.hours > 1
    assert report.requests <= 25
    assert fmean(report.lags) <= 20
    assert max(report.lags) <= 120
