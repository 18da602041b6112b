from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from kling_async.cli.json_records import job_record, result_record
from kling_async.errors import AmbiguousSubmitError, DownloadError
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.requests import VideoRequest
from kling_async.results import Result, ResultState

DONE = Job(
    request_id="r1",
    model="kling-v2-6",
    status=JobStatus.SUCCESS,
    payload={"prompt": "a cat"},
    outcome=Outcome(media=(Media("https://example.com/v.mp4"),), thumbnail_url="https://example.com/t.jpg"),
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


def test_a_job_is_a_flat_object_with_null_where_there_is_nothing():
    assert job_record(DONE) == {
        "request_id": "r1",
        "model": "kling-v2-6",
        "status": "success",
        "prompt": "a cat",
        "video_url": "https://example.com/v.mp4",
        "thumbnail_url": "https://example.com/t.jpg",
        "failure_reason": None,
        "created_at": "2026-01-02T03:04:05+00:00",
        "queued_at": None,
        "updated_at": None,
    }


def test_a_result_is_a_flat_object_with_its_request_job_and_error():
    result = Result(
        index=3,
        request=VideoRequest("a cat", model="kling-v2-6", key="mine"),
        state=ResultState.SUCCEEDED,
        job=DONE,
        error=DownloadError("disk full"),
        path=Path("videos/a.mp4"),
        cost_usd=Decimal("0.35"),
    )
    assert result_record(result) == {
        "index": 3,
        "key": "mine",
        "prompt": "a cat",
        "model": "kling-v2-6",
        "state": "succeeded",
        "request_id": "r1",
        "video_url": "https://example.com/v.mp4",
        "thumbnail_url": "https://example.com/t.jpg",
        "path": "videos/a.mp4",
        "cost_usd": "0.35",
        "error": "disk full",
        "error_type": "DownloadError",
    }


def test_a_result_without_a_job_has_the_id_that_its_error_knows():
    error = AmbiguousSubmitError("who knows", request_id="r9")
    lost = result_record(Result(index=0, request=None, state=ResultState.AMBIGUOUS, error=error))
    assert (lost["request_id"], lost["prompt"], lost["error_type"]) == ("r9", None, "AmbiguousSubmitError")
    bare = result_record(Result(index=0, request=None, state=ResultState.NOT_SUBMITTED))
    assert (bare["request_id"], bare["error"]) == (None, None)
