"""Jobs and results as `--json` prints them: flat, one key for each thing, null where there is nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kling_async.jobs import Job
from kling_async.journal import Entry
from kling_async.results import Result


def job_record(job: Job) -> dict[str, Any]:
    """What is known of a job."""
    return {
        "request_id": job.request_id,
        "model": job.model,
        "status": job.status,
        "prompt": job.payload.get("prompt"),
        "video_url": job.video_url,
        "thumbnail_url": job.thumbnail_url,
        "failure_reason": job.failure_reason,
        "created_at": _moment(job.created_at),
        "queued_at": _moment(job.queued_at),
        "updated_at": _moment(job.updated_at),
    }


def result_record(result: Result) -> dict[str, Any]:
    """How one item of a batch ended."""
    request, job, error = result.request, result.job, result.error
    return {
        "index": result.index,
        "key": request.key if request else None,
        "prompt": request.prompt if request else None,
        "model": request.model if request else None,
        "state": result.state,
        "request_id": job.request_id if job else error.request_id if error else None,
        "video_url": job.video_url if job else None,
        "thumbnail_url": job.thumbnail_url if job else None,
        "path": str(result.path) if result.path else None,
        "cost_usd": str(result.cost_usd) if result.cost_usd is not None else None,
        "error": str(error) if error else None,
        "error_type": type(error).__name__ if error else None,
    }


def entry_record(entry: Entry) -> dict[str, Any]:
    """What a journal knows of one item."""
    job = entry.job
    return {
        "number": entry.number,
        "key": entry.identity.key,
        "prompt": entry.payload.get("prompt"),
        "model": entry.model,
        "state": entry.state,
        "request_id": entry.request_id,
        "video_url": job.video_url if job else None,
        "path": entry.path,
        "cost_usd": str(entry.cost_usd) if entry.cost_usd is not None else None,
        "attempts": entry.attempts,
        "sent_at": _moment(sent_at(entry)),
        "error": entry.error or None,
    }


def sent_at(entry: Entry) -> datetime | None:
    """When its last submit left, in UTC; None where none did, or was provably not accepted."""
    if entry.sent_at is None or not entry.attempts:
        return None
    return datetime.fromtimestamp(entry.sent_at, UTC)


def _moment(at: datetime | None) -> str | None:
    return at.isoformat() if at else None
