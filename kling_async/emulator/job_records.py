"""Jobs as the JSON that the service answers: single records and pages of the list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from kling_async.emulator.service_queue import FINAL, Job, Status
from kling_async.emulator.settings import ResponseFormat

_MINIMAL = ("request_id", "model", "status", "created_at", "updated_at", "queued_at")

BUCKET = "gmi-video-assests-prod"
"""First part of every media path; the spelling is the service's own."""

_CASES = {"lower": str.lower, "upper": str.upper, "title": str.title}


def make_record(job: Job, *, now: float, response_format: ResponseFormat, storage_url: str) -> dict[str, Any]:
    """A job as `GET /requests/{id}` tells it, keys in the order seen on production."""
    status, since = job.status_at(now=now)
    created, updated = (
        int(job.accepted_at + response_format.clock_ahead),
        int(since + response_format.clock_ahead),
    )
    told: dict[str, Any] = {"request_id": job.request_id, "org_id": job.organization_id}
    if response_format.user_id:
        told["user_id"] = "user-emulator"
    told |= {
        "model": job.model,
        "status": _CASES[response_format.status_case](status.value),
        "is_public": False,
        "payload": job.payload if response_format.payload_echo else {},
        "outcome": _make_outcome(job, status, response_format=response_format, storage_url=storage_url)
        if status in FINAL
        else None,
        "created_at": created,
        "updated_at": updated,
        "queued_at": created,
    }
    if response_format.qworker_id and status is not Status.QUEUED:
        told["qworker_id"] = f"qworker-{job.number % 7}"
    return told


def make_submit_reply(
    job: Job, *, now: float, response_format: ResponseFormat, storage_url: str
) -> dict[str, Any]:
    """A job as the POST that made it tells it: six keys, or the whole record when it is final already."""
    told = make_record(job, now=now, response_format=response_format, storage_url=storage_url)
    if not response_format.outcome_on_submit:
        told["outcome"] = None
    if response_format.submit_reply == "full" or told["outcome"] is not None:
        return told
    return {key: told[key] for key in _MINIMAL}


def make_page(
    jobs: Sequence[Job],
    *,
    now: float,
    limit: int | None,
    offset: int,
    delay: float,
    response_format: ResponseFormat,
    storage_url: str,
) -> dict[str, Any]:
    """One answer of the list.

    Args:
        jobs: in the order of their submits.
        now: Unix seconds.
        limit: rows asked for; None for as many as the service gives.
        offset: rows to leave out first.
        delay: real seconds before a new job shows up.
        response_format: how replies are written.
        storage_url: what media URLs start with.
    """
    shown = _select_listed(jobs, now=now, delay=delay, response_format=response_format)
    rows = response_format.list_rows if limit is None else min(limit, response_format.list_rows)
    chosen = shown[offset : offset + rows]
    answer: dict[str, Any] = {
        "requests": [
            make_record(job, now=now, response_format=response_format, storage_url=storage_url)
            for job in chosen
        ]
    }
    if response_format.list_total:
        answer["total"] = len(shown)
    if response_format.list_has_more:
        answer["has_more"] = offset + len(chosen) < len(shown)
    return answer


def video_path(job: Job) -> str:
    """Where a job's video lies, from the root of the storage host."""
    return f"/{BUCKET}/user-assests/{job.organization_id}/{quote(job.request_id, safe='')}.mp4"


def _select_listed(
    jobs: Sequence[Job], *, now: float, delay: float, response_format: ResponseFormat
) -> Sequence[Job]:
    if delay:
        jobs = [job for job in jobs if job.accepted_at + delay <= now]
    if response_format.unlisted_rate:
        jobs = [job for job in jobs if job.is_listed]
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
    video = storage_url + video_path(job)
    outcome: dict[str, Any] = {}
    if response_format.outcome in {"media_urls", "both"}:
        outcome["media_urls"] = [{"id": "0", "url": video}]
    if response_format.outcome == "media_strings":
        outcome["media_urls"] = [video]
    if response_format.outcome in {"video_url", "both"}:
        outcome["video_url"] = video
    if response_format.thumbnail != "none":
        outcome["thumbnail_image_url"] = (
            video if response_format.thumbnail == "video" else f"{video.removesuffix('.mp4')}.jpg"
        )
    return outcome
