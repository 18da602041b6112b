from __future__ import annotations

import pytest

from kling_async.emulator.job_records import make_page, make_record, make_submit_reply, video_path
from kling_async.emulator.service_queue import ServiceQueue
from kling_async.emulator.settings import EmulatorSettings, JobScript, LogNormal, ResponseFormat

NOON = 1_800_000_000.0
HOST = "https://storage.example"
MINIMAL = ["request_id", "model", "status", "created_at", "updated_at", "queued_at"]
FULL = [
    "request_id", "org_id", "user_id", "model", "status", "is_public",
    "payload", "outcome", "created_at", "updated_at", "queued_at",
]  # fmt: skip


def jobs(count=1, *, ending="success", error=None, **settings):
    times = {name: LogNormal(10.0) for name in ("queue_time", "run_time")}
    chosen = EmulatorSettings(
        time_scale=1.0,
        script=lambda _number, _payload: JobScript(ending=ending, error=error),
        **(times | settings),
    )
    queue = ServiceQueue(chosen)
    for number in range(count):
        queue.submit("kling-v2-6", {"prompt": f"rain {number}"}, now=NOON + number)
    return queue.jobs


def told(job, *, now=NOON + 1000, **response_format):
    return make_record(job, now=now, response_format=ResponseFormat(**response_format), storage_url=HOST)


def listed(jobs, *, now=NOON + 1000, limit=None, offset=0, delay=0.0, **response_format):
    return make_page(
        jobs,
        now=now,
        limit=limit,
        offset=offset,
        delay=delay,
        response_format=ResponseFormat(**response_format),
        storage_url=HOST,
    )


def prompts(answer):
    return [int(row["payload"]["prompt"].removeprefix("rain ")) for row in answer["requests"]]


def test_a_record_has_the_keys_of_production_in_their_order():
    assert list(told(jobs()[0])) == FULL


@pytest.mark.parametrize("case, spelled", [("lower", "success"), ("upper", "SUCCESS"), ("title", "Success")])
def test_statuses_are_spelled_in_any_case(case, spelled):
    assert told(jobs()[0], status_case=case)["status"] == spelled


@pytest.mark.parametrize("ahead", [0.0, 3600.0, -3600.0])
def test_the_clock_of_the_records_may_be_off(ahead):
    make_record = told(jobs()[0], clock_ahead=ahead)

    assert make_record["created_at"] == make_record["queued_at"] == NOON + ahead
    assert make_record["updated_at"] > make_record["created_at"]


def test_user_id_may_be_absent_as_documented():
    assert list(told(jobs()[0], user_id=False)) == [key for key in FULL if key != "user_id"]


def test_a_worker_is_named_once_it_took_the_job():
    (job,) = jobs()

    assert "qworker_id" not in told(job, now=NOON, qworker_id=True)
    assert told(job, now=NOON + 10, qworker_id=True)["qworker_id"].startswith("qworker-")


def test_times_are_whole_unix_seconds_and_updated_moves_with_the_status():
    (job,) = jobs()
    seen = [told(job, now=NOON + age) for age in (0, 5, 10.5, 1000)]

    assert [row["updated_at"] - int(NOON) for row in seen] == [0, 0, 10, 21]
    assert {(row["created_at"], row["queued_at"]) for row in seen} == {(int(NOON), int(NOON))}
    assert all(type(row[key]) is int for row in seen for key in ("created_at", "updated_at", "queued_at"))


@pytest.mark.parametrize("now", [NOON, NOON + 15])
def test_there_is_no_outcome_before_the_end(now):
    assert told(jobs()[0], now=now)["outcome"] is None


VIDEO = f"{HOST}/gmi-video-assests-prod/user-assests/org-emulator/ID.mp4"


@pytest.mark.parametrize(
    "response_format, outcome",
    [
        ({}, {"media_urls": [{"id": "0", "url": VIDEO}], "thumbnail_image_url": VIDEO.replace("mp4", "jpg")}),
        ({"outcome": "media_strings", "thumbnail": "none"}, {"media_urls": [VIDEO]}),
        ({"outcome": "video_url", "thumbnail": "video"}, {"video_url": VIDEO, "thumbnail_image_url": VIDEO}),
        (
            {"outcome": "both", "thumbnail": "none"},
            {"media_urls": [{"id": "0", "url": VIDEO}], "video_url": VIDEO},
        ),
    ],
)
def test_an_outcome_is_worded_as_the_dialect_says(response_format, outcome):
    (job,) = jobs()

    assert str(told(job, **response_format)["outcome"]).replace(job.request_id, "ID") == str(outcome)


@pytest.mark.parametrize("error", ["rain refused", {"code": 7, "message": "no"}])
def test_a_failed_job_tells_its_error_as_it_is(error):
    row = told(jobs(ending="failed", error=error)[0])

    assert (row["status"], row["outcome"]) == ("failed", {"error": error})


def test_a_cancelled_job_has_nothing_to_show():
    assert told(jobs(ending="cancelled")[0])["outcome"] == {}


def test_the_payload_comes_back_or_an_empty_one():
    (job,) = jobs()

    assert told(job)["payload"] == {"prompt": "rain 0"}
    assert told(job, payload_echo=False)["payload"] == {}


@pytest.mark.parametrize(
    "ending, response_format, keys, has_outcome",
    [
        ("success", {}, MINIMAL, False),
        ("success", {"submit_reply": "full"}, FULL, False),
        ("instant", {}, FULL, True),
        ("instant", {"outcome_on_submit": False}, MINIMAL, False),
        ("instant", {"outcome_on_submit": False, "submit_reply": "full"}, FULL, False),
    ],
)
def test_a_submit_is_answered_shortly_unless_it_is_final(ending, response_format, keys, has_outcome):
    (job,) = jobs(ending=ending)
    reply = make_submit_reply(
        job, now=NOON, response_format=ResponseFormat(**response_format), storage_url=HOST
    )

    assert list(reply) == keys
    assert bool(reply.get("outcome")) == has_outcome


@pytest.mark.parametrize(
    "limit, offset, rows, has_more",
    [
        (None, 0, [4, 3, 2], True),
        (2, 0, [4, 3], True),
        (2, 3, [1, 0], False),
        (100, 0, [4, 3, 2], True),
        (0, 0, [], True),
        (2, 99, [], False),
    ],
)
def test_pages_never_exceed_the_services_own_limit(limit, offset, rows, has_more):
    answer = listed(jobs(5), limit=limit, offset=offset, list_rows=3)

    assert prompts(answer) == rows
    assert (answer["total"], answer["has_more"]) == (5, has_more)


def test_pages_may_come_without_totals():
    assert list(listed(jobs(5), list_total=False, list_has_more=False)) == ["requests"]


@pytest.mark.parametrize("order", ["newest", "oldest", "random"])
def test_pages_together_hold_each_job_once(order):
    many = jobs(20)
    rows = [prompts(listed(many, limit=7, offset=offset, list_order=order)) for offset in (0, 7, 14)]
    flat = [row for part in rows for row in part]

    assert sorted(flat) == list(range(20))
    assert (flat == list(range(20))) == (order == "oldest")
    assert (flat == list(range(19, -1, -1))) == (order == "newest")


def test_a_new_job_may_show_up_late():
    many = jobs(3)

    assert prompts(listed(many, now=NOON + 5, delay=4.0)) == [1, 0]


def test_jobs_that_are_not_listed_are_not_counted_either():
    many = jobs(40, response_format=ResponseFormat(unlisted_rate=0.5))
    answer = listed(many, unlisted_rate=0.5)

    assert answer["total"] == len(answer["requests"]) == sum(job.is_listed for job in many) < 40


def test_a_video_lies_under_its_organisation():
    (job,) = jobs()

    assert video_path(job) == f"/gmi-video-assests-prod/user-assests/org-emulator/{job.request_id}.mp4"
