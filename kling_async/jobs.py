"""Jobs: the records of the service's queue, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs


class JobStatus(StrEnum):
    """Where a job stands, in the service's own words.

    Source: the vendor's video API reference and the official SDK's enum; `UNKNOWN` is ours, for a word not
    known yet. It is not final, and the word itself stays in `Job.raw["status"]`.
    """

    CREATED = "created"
    QUEUED = "queued"
    DISPATCHED = "dispatched"
    PROCESSING = "processing"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Whether the job will never change again."""
        return self in _FINAL


# Tuples, for the hash of an Enum is computed in Python, and every record passes here.
_UNHAPPY = (JobStatus.FAILED, JobStatus.CANCELLED)
_FINAL = (JobStatus.SUCCESS, *_UNHAPPY)


@attrs.frozen
class Media:
    """One finished file at the service."""

    url: str
    """Where it can be fetched, without credentials."""
    id: str | None = None
    """The service's name for it within the job."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What a job left behind."""

    media: tuple[Media, ...] = ()
    """The finished files, the video first; empty for a job that failed."""
    thumbnail_url: str | None = None
    """A picture of the video; some models answer the video's own URL here."""
    error: str | None = None
    """The service's reason, where the job failed, in one line."""
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The outcome as it was answered."""


@attrs.frozen(kw_only=True)
class Job:
    """One record of the service's queue, as it was when it was asked for."""

    request_id: str
    """The service's id of the job."""
    status: JobStatus
    """Where it stands."""
    model: str | None = None
    """The model's id as the service echoes it; not always the one that was sent."""
    payload: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The parameters as the service echoes them; it may be empty."""
    outcome: Outcome | None = None
    """None until the job is final."""
    created_at: datetime | None = None
    """When the service took the job, aware, in UTC."""
    queued_at: datetime | None = None
    """When the job entered the queue, aware, in UTC."""
    updated_at: datetime | None = None
    """When the record last changed, aware, in UTC; for a final job, its end."""
    organization_id: str | None = attrs.field(default=None, repr=False)
    """The organization that is charged."""
    user_id: str | None = attrs.field(default=None, repr=False)
    """Who submitted it."""
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The whole record as it was answered, unknown keys included."""

    @property
    def is_final(self) -> bool:
        """Whether the job will never change again."""
        return self.status.is_final

    @property
    def is_success(self) -> bool:
        """Whether the video is finished."""
        return self.status is JobStatus.SUCCESS

    @property
    def video_url(self) -> str | None:
        """Where the finished video can be fetched, without credentials; None until there is one."""
        return self.outcome.media[0].url if self.outcome and self.outcome.media else None

    @property
    def thumbnail_url(self) -> str | None:
        """Where the picture of the video can be fetched; None until there is one."""
        return self.outcome.thumbnail_url if self.outcome else None

    @property
    def failure_reason(self) -> str | None:
        """The service's own words for a job that failed or was cancelled; None where it gave none, or did neither."""
        return self.outcome.error if self.outcome and self.status in _UNHAPPY else None

    def to_dict(self) -> dict[str, Any]:
        """The record as flat plain JSON values: text, or None for what is not known.

        The keys are `request_id`, `model`, `status`, `prompt`, `video_url`, `thumbnail_url`, `failure_reason`, and the
        ISO 8601 times `created_at`, `queued_at` and `updated_at`. The whole answer of the service is in `raw`.
        """
        prompt = self.payload.get("prompt")
        return {
            "request_id": self.request_id,
            "model": self.model,
            "status": self.status.value,
            "prompt": prompt if isinstance(prompt, str) else None,
            "video_url": self.video_url,
            "thumbnail_url": self.thumbnail_url,
            "failure_reason": self.failure_reason,
            "created_at": _iso(self.created_at),
            "queued_at": _iso(self.queued_at),
            "updated_at": _iso(self.updated_at),
        }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
