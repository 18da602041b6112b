from __future__ import annotations

import math

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


def jobs(count=1, *, model="kling-v2-6", ending="success", error=None, scripts=(), **settings):
    times = {name: LogNormal(10.0) for name in ("queue_time", "run_time")}
    chosen = EmulatorSettings(
        time_scale=1.0,
        script=lambda number, _payload: JobScript(
            ending=ending, error=error, **dict(scripts).get(number - 1, {})
        ),
        **(times | settings),
    )
    queue = ServiceQueue(chosen)
    for number in range(count):
        queue.submit(model, {"prompt": f"rain {number}"}, now=NOON + number)
    return queue.jobs


def record_of(job, *, now=NOON + 1000, **response_format):
    return make_record(job, now=now, response_format=ResponseFormat(**response_format), storage_url=HOST)


def page_of(jobs, *, now=NOON + 1000, limit=None, offset=0, **response_format):
    return make_page(
        jobs,
        now=now,
        limit=limit,
        offset=offset,
        response_format=ResponseFormat(**response_format),
        storage_url=HOST,
    )


def prompts(page):
    return [int(row["payload"]["prompt"].removeprefix("rain ")) for row in page["requests"]]


def test_a_record_has_the_keys_of_production_in_their_order():
    assert list(record_of(jobs()[0])) == FULL


@pytest.mark.parametrize("case, spelled", [("lower", "success"), ("upper", "SUCCESS"), ("title", "Success")])
def test_a_response_format_sets_the_case_of_statuses(case, spelled):
    assert record_of(jobs()[0], status_case=case)["status"] == spelled


@pytest.mark.parametrize("ahead", [0.0, 3600.0, -3600.0])
def test_the_clock_of_records_can_be_ahead_or_behind(ahead):
    make_record = record_of(jobs()[0], clock_ahead=ahead)

    assert make_record["created_at"] == make_record["queued_at"] == NOON + ahead
    assert make_record["updated_at"] > make_record["created_at"]


def test_a_record_can_be_without_user_id():
    assert list(record_of(jobs()[0], user_id=False)) == [key for key in FULL if key != "user_id"]


def test_a_record_has_its_worker_once_the_job_is_dispatched():
    (job,) = jobs()

    assert "qworker_id" not in record_of(job, now=NOON, qworker_id=True)
    assert record_of(job, now=NOON + 10, qworker_id=True)["qworker_id"].startswith("qworker-")


def test_times_are_integer_unix_seconds_and_updated_at_follows_the_status():
    (job,) = jobs()
    rows = [record_of(job, now=NOON + age) for age in (0, 5, 10.5, 1000)]

    assert [row["updated_at"] - int(NOON) for row in rows] == [0, 0, 10, 21]
    assert {(row["created_at"], row["queued_at"]) for row in rows} == {(int(NOON), int(NOON))}
    assert all(type(row[key]) is int for row in rows for key in ("created_at", "updated_at", "queued_at"))


@pytest.mark.parametrize("now", [NOON, NOON + 15])
def test_a_record_has_no_outcome_before_the_job_is_final(now):
    assert record_of(jobs()[0], now=now)["outcome"] is None


VIDEO = f"{HOST}/gmi-video-assests-prod/user-assests/org-emulator/ID.mp4"


@pytest.mark.parametrize(
    "response_format, outcome",
    [
        (
            {},
            {
                "media_urls": [{"id": "0", "url": VIDEO}],
                "video_url": VIDEO,
                "thumbnail_image_url": VIDEO.replace("mp4", "jpg"),
            },
        ),
        ({"outcome": "media_urls", "thumbnail": "none"}, {"media_urls": [{"id": "0", "url": VIDEO}]}),
        ({"outcome": "media_strings", "thumbnail": "none"}, {"media_urls": [VIDEO]}),
        ({"outcome": "video_url", "thumbnail": "video"}, {"video_url": VIDEO, "thumbnail_image_url": VIDEO}),
        (
            {"outcome": "both", "thumbnail": "none"},
            {"media_urls": [{"id": "0", "url": VIDEO}], "video_url": VIDEO},
        ),
    ],
)
def test_an_outcome_follows_the_response_format(response_format, outcome):
    (job,) = jobs()

    assert str(record_of(job, **response_format)["outcome"]).replace(job.request_id, "ID") == str(outcome)


@pytest.mark.parametrize(
    "model, keys",
    [
        ("kling-v2-6", ["media_urls", "video_url"]),
        ("Kling-Image2Video-V1.6-Pro", ["media_urls", "video_url"]),
        ("kling-v9", ["media_urls", "video_url"]),
        ("kling-v3-text-to-video", ["media_urls"]),
        ("kling-3.0-turbo-i2v", ["media_urls"]),
    ],
)
def test_an_outcome_has_the_keys_that_are_known_of_the_model(model, keys):
    (job,) = jobs(model=model)

    assert list(record_of(job, thumbnail="none")["outcome"]) == keys
    assert list(record_of(job, thumbnail="none", outcome="video_url")["outcome"]) == ["video_url"]


@pytest.mark.parametrize("response_format", [{}, {"outcome": "video_url"}])
def test_the_outcome_of_an_element_is_its_id_alone(response_format):
    first, second = (record_of(job, **response_format) for job in jobs(2, model="kling-create-element"))

    assert list(first["outcome"]) == ["element_id"]
    assert first["outcome"]["element_id"].isdecimal()
    assert first["outcome"] != second["outcome"]


@pytest.mark.parametrize("error", ["rain refused", {"code": 7, "message": "no"}])
def test_the_outcome_of_a_failed_job_is_its_error(error):
    row = record_of(jobs(ending="failed", error=error)[0])

    assert (row["status"], row["outcome"]) == ("failed", {"error": error})


def test_the_outcome_of_a_cancelled_job_is_empty():
    assert record_of(jobs(ending="cancelled")[0])["outcome"] == {}


def test_a_record_has_the_payload_or_an_empty_one():
    (job,) = jobs()

    assert record_of(job)["payload"] == {"prompt": "rain 0"}
    assert record_of(job, payload_echo=False)["payload"] == {}
    assert record_of(jobs(scripts={0: {"payload_echo": False}})[0])["payload"] == {}


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
def test_a_submit_reply_is_minimal_unless_the_job_is_final(ending, response_format, keys, has_outcome):
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
def test_a_page_never_exceeds_the_limit_of_the_service(limit, offset, rows, has_more):
    page = page_of(jobs(5), limit=limit, offset=offset, list_rows=3)

    assert prompts(page) == rows
    assert (page["total"], page["has_more"]) == (5, has_more)


def test_a_page_can_be_without_totals():
    assert list(page_of(jobs(5), list_total=False, list_has_more=False)) == ["requests"]


@pytest.mark.parametrize("order", ["newest", "oldest", "random"])
def test_pages_together_have_each_job_once(order):
    many = jobs(20)
    rows = [prompts(page_of(many, limit=7, offset=offset, list_order=order)) for offset in (0, 7, 14)]
    flat = [row for part in rows for row in part]

    assert sorted(flat) == list(range(20))
    assert (flat == list(range(20))) == (order == "oldest")
    assert (flat == list(range(19, -1, -1))) == (order == "newest")


def test_the_list_has_a_job_from_when_it_shows_until_it_vanishes():
    times = {0: {"list_delay": 4.0, "lifetime": 10.0}, 1: {"list_delay": 4.0}, 2: {"list_delay": math.inf}}
    many = jobs(3, scripts=times)

    assert prompts(page_of(many, now=NOON + 3.9)) == []
    assert prompts(page_of(many, now=NOON + 4.0)) == [0]
    assert prompts(page_of(many, now=NOON + 9.9)) == [1, 0]
    assert prompts(page_of(many, now=NOON + 10.0)) == [1]


def test_total_does_not_count_unlisted_jobs():
    page = page_of(jobs(4, scripts={2: {"list_delay": math.inf}}))

    assert (page["total"], prompts(page)) == (3, [3, 1, 0])


def test_a_video_path_has_the_organization():
    (job,) = jobs()

    assert video_path(job) == f"/gmi-video-assests-prod/user-assests/org-emulator/{job.request_id}.mp4"
