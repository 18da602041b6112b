"""The entries of a journal as `--json` prints them: flat, with null for what is not known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kling_async.journal import Entry


def entry_record(entry: Entry) -> dict[str, Any]:
    """What a journal knows of one item."""
    job = entry.job
    return {
        "index": entry.index,
        "key": entry.identity.key,
        "prompt": entry.payload.get("prompt"),
        "model": entry.model,
        "state": entry.state,
        "request_id": entry.request_id,
        "video_url": job.video_url if job else None,
        "path": entry.path,
        "cost_usd": float(entry.cost_usd) if entry.cost_usd is not None else None,
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
