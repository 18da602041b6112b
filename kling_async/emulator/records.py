"""Jobs as the JSON that the service answers: single records and pages of the list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from kling_async.emulator.behaviour import FINAL, Job, Status
from kling_async.emulator.settings import Dialect

_MINIMAL = ("request_id", "model", "status", "created_at", "updated_at", "queued_at")

BUCKET = "gmi-video-assests-prod"
"""First part of every media path; the spelling is the service's own."""

_SPELLED = {"lower": str.lower, "upper": str.upper, "title": str.title}


def record(job: Job, *, now: float, dialect: Dialect, storage_url: str) -> dict[str, Any]:
    """A job as `GET /requests/{id}` tells it, keys in the order seen on production."""
    status, since = job.stage(now=now)
    created, updated = int(job.accepted_at + dialect.clock_ahead), int(since + dialect.clock_ahead)
    told: dict[str, Any] = {"request_id": job.request_id, "org_id": job.organization_id}
    if dialect.user_id:
        told["user_id"] = "user-emulator"
    told |= {
        "model": job.model,
        "status": _SPELLED[dialect.status_case](status.value),
        "is_public": False,
        "payload": job.payload if dialect.payload_echo else {},
        "outcome": _outcome(job, status, dialect=dialect, storage_url=storage_url)
        if status in FINAL
        else None,
        "created_at": created,
        "updated_at": updated,
        "queued_at": created,
    }
    if dialect.qworker_id and status is not Status.QUEUED:
        told["qworker_id"] = f"qworker-{job.number % 7}"
    return told


def submit_reply(job: Job, *, now: float, dialect: Dialect, storage_url: str) -> dict[str, Any]:
    """A job as the POST that made it tells it: six keys, or the whole record when it is final already."""
    told = record(job, now=now, dialect=dialect, storage_url=storage_url)
    if not dialect.outcome_on_submit:
        told["outcome"] = None
    if dialect.submit_reply == "full" or told["outcome"] is not None:
        return told
    return {key: told[key] for key in _MINIMAL}


def page(
    jobs: Sequence[Job],
    *,
    now: float,
    limit: int | None,
    offset: int,
    delay: float,
    dialect: Dialect,
    storage_url: str,
) -> dict[str, Any]:
    """One answer of the list.

    Args:
        jobs: in the order of their submits.
        now: Unix seconds.
        limit: rows asked for; None for as many as the service gives.
        offset: rows to leave out first.
        delay: real seconds before a new job shows up.
        dialect: how it is worded.
        storage_url: what media URLs start with.
    """
    shown = _in_order(jobs, now=now, delay=delay, dialect=dialect)
    rows = dialect.list_rows if limit is None else min(limit, dialect.list_rows)
    chosen = shown[offset : offset + rows]
    answer: dict[str, Any] = {
        "requests": [record(job, now=now, dialect=dialect, storage_url=storage_url) for job in chosen]
    }
    if dialect.list_total:
        answer["total"] = len(shown)
    if dialect.list_has_more:
        answer["has_more"] = offset + len(chosen) < len(shown)
    return answer


def video_path(job: Job) -> str:
    """Where a job's video lies, from the root of the storage host."""
    return f"/{BUCKET}/user-assests/{job.organization_id}/{quote(job.request_id, safe='')}.mp4"


def _in_order(jobs: Sequence[Job], *, now: float, delay: float, dialect: Dialect) -> Sequence[Job]:
    if delay:
        jobs = [job for job in jobs if job.accepted_at + delay <= now]
    if dialect.list_omits:
        jobs = [job for job in jobs if job.is_listed]
    if dialect.list_order == "random":
        return sorted(jobs, key=lambda job: job.request_id)
    return jobs[::-1] if dialect.list_order == "newest" else jobs


def _outcome(job: Job, status: Status, *, dialect: Dialect, storage_url: str) -> dict[str, Any]:
    if status is Status.FAILED:
        return {"error": job.error}
    if status is Status.CANCELLED:
        return {}
    video = storage_url + video_path(job)
    outcome: dict[str, Any] = {}
    if dialect.outcome in {"media_urls", "both"}:
        outcome["media_urls"] = [{"id": "0", "url": video}]
    if dialect.outcome == "media_strings":
        outcome["media_urls"] = [video]
    if dialect.outcome in {"video_url", "both"}:
        outcome["video_url"] = video
    if dialect.thumbnail != "none":
        outcome["thumbnail_image_url"] = (
            video if dialect.thumbnail == "video" else f"{video.removesuffix('.mp4')}.jpg"
        )
    return outcome
