"""Jobs as the JSON of replies: single records and pages of the list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from kling_async.emulator.model_catalog import find_model
from kling_async.emulator.service_queue import FINAL, Job, Status
from kling_async.emulator.settings import ResponseFormat

_MINIMAL = ("request_id", "model", "status", "created_at", "updated_at", "queued_at")

BUCKET = "gmi-video-assests-prod"
"""First part of every media path, with the spelling of the service."""

_FIRST_ELEMENT_ID = 300_000_000_000

_CASES = {"lower": str.lower, "upper": str.upper, "title": str.title}


def make_record(job: Job, *, now: float, response_format: ResponseFormat, storage_url: str) -> dict[str, Any]:
    """A job as in the reply to `GET /requests/{id}`, with the keys in the order of production."""
    status, since = job.status_at(now=now)
    created, updated = (
        int(job.accepted_at + response_format.clock_ahead),
        int(since + response_format.clock_ahead),
    )
    row: dict[str, Any] = {"request_id": job.request_id, "org_id": job.organization_id}
    if response_format.user_id:
        row["user_id"] = "user-emulator"
    row |= {
        "model": job.model,
        "status": _CASES[response_format.status_case](status.value),
        "is_public": False,
        "payload": job.payload if response_format.payload_echo and job.payload_echo else {},
        "outcome": _make_outcome(job, status, response_format=response_format, storage_url=storage_url)
        if status in FINAL
        else None,
        "created_at": created,
        "updated_at": updated,
        "queued_at": created,
    }
    if response_format.qworker_id and status is not Status.QUEUED:
        row["qworker_id"] = f"qworker-{job.number % 7}"
    return row


def make_submit_reply(
    job: Job, *, now: float, response_format: ResponseFormat, storage_url: str
) -> dict[str, Any]:
    """The reply to the POST that created the job: six keys, or the full record if the job is already final."""
    row = make_record(job, now=now, response_format=response_format, storage_url=storage_url)
    if not response_format.outcome_on_submit:
        row["outcome"] = None
    if response_format.submit_reply == "full" or row["outcome"] is not None:
        return row
    return {key: row[key] for key in _MINIMAL}


def make_page(
    jobs: Sequence[Job],
    *,
    now: float,
    limit: int | None,
    offset: int,
    response_format: ResponseFormat,
    storage_url: str,
) -> dict[str, Any]:
    """One reply of the list.

    Args:
        jobs: in the order of their submits.
        now: Unix seconds.
        limit: the requested number of rows; None means as many as the service gives.
        offset: the number of rows to skip.
        response_format: how replies are written.
        storage_url: scheme and host of media URLs.
    """
    listed = _select_listed(jobs, now=now, response_format=response_format)
    rows = response_format.list_rows if limit is None else min(limit, response_format.list_rows)
    chosen = listed[offset : offset + rows]
    page: dict[str, Any] = {
        "requests": [
            make_record(job, now=now, response_format=response_format, storage_url=storage_url)
            for job in chosen
        ]
    }
    if response_format.list_total:
        page["total"] = len(listed)
    if response_format.list_has_more:
        page["has_more"] = offset + len(chosen) < len(listed)
    return page


def video_path(job: Job) -> str:
    """The path of a job's video on the storage host."""
    return f"/{BUCKET}/user-assests/{job.organization_id}/{quote(job.request_id, safe='')}.mp4"


def _select_listed(jobs: Sequence[Job], *, now: float, response_format: ResponseFormat) -> Sequence[Job]:
    jobs = [job for job in jobs if job.shows_at <= now < job.vanishes_at]
    if response_format.list_order == "random":
        return sorted(jobs, key=lambda job: job.request_id)
    return jobs[::-1] if response_format.list_order == "newest" else jobs


def _make_outcome(
    job: Job, status: Status, *, response_format: ResponseFormat, storage_url: str
) -> dict[str, Any]:
    if status is Status.FAILED:
        return {"error": job.error}
    if status is Status.CANCELLED:
        return {}
    model = find_model(job.model)
    if model.makes == "element":
        return {"element_id": str(_FIRST_ELEMENT_ID + job.number)}
    video = storage_url + video_path(job)
    outcome: dict[str, Any] = {}
    keys = response_format.outcome or model.outcome
    if keys in {"media_urls", "both"}:
        outcome["media_urls"] = [{"id": "0", "url": video}]
    if keys == "media_strings":
        outcome["media_urls"] = [video]
    if keys in {"video_url", "both"}:
        outcome["video_url"] = video
    if response_format.thumbnail != "none":
        outcome["thumbnail_image_url"] = (
            video if response_format.thumbnail == "video" else f"{video.removesuffix('.mp4')}.jpg"
        )
    return outcome
