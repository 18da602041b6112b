"""Jobs: the records of the service's queue, as frozen values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs

from kling_async._field_docs import describe_fields
from kling_async.lines import quote_line


class JobStatus(StrEnum):
    """The status of a job, in the service's own words.

    `UNKNOWN` stands for a word that this release does not know. It is not final, and the word is in
    `Job.raw["status"]`.

    Source: the vendor's video API reference and the official SDK's enum.
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
        """Whether the job can no longer change."""
        return self in _FINAL


NO_ACCOUNT_ID = "?"
"""Stands for the id of a user or of an organization that is neither a text nor a whole number."""
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SPELLED_UUID = re.compile(
    r"\s*(?:urn:uuid:)?\{?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?\s*",
    re.IGNORECASE,
)
# Tuples, for the hash of an Enum is computed in Python, and every record passes here.
_UNHAPPY = (JobStatus.FAILED, JobStatus.CANCELLED)
_FINAL = (JobStatus.SUCCESS, *_UNHAPPY)


@attrs.frozen
class Media:
    """One finished file at the service."""

    url: str
    """The address of the file; no credentials are needed."""
    id: str | None = None
    """The service's name for the file within the job."""


@attrs.frozen(kw_only=True)
class Outcome:
    """The outcome of a final job."""

    media: tuple[Media, ...] = ()
    """The finished files, the video first. Empty for a job that failed."""
    thumbnail_url: str | None = None
    """The address of a picture of the video. Some models put the address of the video itself here."""
    error: str | None = None
    """The service's reason for a failure, in one line."""
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The outcome as the service answered it."""


@attrs.frozen(kw_only=True, repr=False)
class Job:
    """One record of the service's queue, as it was at the time of the call."""

    request_id: str
    """The service's id of the job."""
    status: JobStatus
    """The job's status."""
    model: str | None = None
    """The model's id as the service echoes it. It is not always the id that was sent."""
    payload: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The parameters as the service echoes them, or else as this client sent them; empty if neither is known."""
    outcome: Outcome | None = None
    """None until the job is final."""
    created_at: datetime | None = None
    """When the service accepted the job, in UTC, with a time zone."""
    queued_at: datetime | None = None
    """When the job entered the queue, in UTC, with a time zone."""
    updated_at: datetime | None = None
    """When the record last changed, in UTC, with a time zone. For a final job, its end."""
    organization_id: str | None = attrs.field(default=None, repr=False)
    """The organization that pays."""
    user_id: str | None = attrs.field(default=None, repr=False)
    """The user who submitted the job."""
    raw: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """The whole record as the service answered it, unknown keys included."""

    def __repr__(self) -> str:
        request_id = self.request_id if self.request_id.isprintable() else repr(self.request_id)
        prompt = f" {quote_line(self.prompt)}" if self.prompt is not None else ""
        return f"<Job {request_id} {self.status.value}{prompt}>"

    @property
    def prompt(self) -> str | None:
        """The prompt of the job's parameters; None if they have none."""
        prompt = self.payload.get("prompt")
        return prompt if isinstance(prompt, str) else None

    @property
    def is_final(self) -> bool:
        """Whether the job can no longer change."""
        return self.status.is_final

    @property
    def is_success(self) -> bool:
        """Whether the video is finished."""
        return self.status is JobStatus.SUCCESS

    @property
    def video_url(self) -> str | None:
        """The address of the finished video; no credentials are needed. None until there is a video."""
        return self.outcome.media[0].url if self.outcome and self.outcome.media else None

    @property
    def thumbnail_url(self) -> str | None:
        """The address of the picture of the video. None until there is a picture."""
        return self.outcome.thumbnail_url if self.outcome else None

    @property
    def failure_reason(self) -> str | None:
        """The service's reason for a failed or cancelled job. None for other jobs, and if the service gave no reason."""
        return self.outcome.error if self.outcome and self.status in _UNHAPPY else None

    def to_dict(self) -> dict[str, Any]:
        """The record as flat plain JSON values: text, or None for what is not known.

        The keys are `request_id`, `model`, `status`, `prompt`, `video_url`, `thumbnail_url`, `failure_reason`, and the
        ISO 8601 times `created_at`, `queued_at` and `updated_at`. The whole answer of the service is in `raw`.
        """
        return {
            "request_id": self.request_id,
            "model": self.model,
            "status": self.status.value,
            "prompt": self.prompt,
            "video_url": self.video_url,
            "thumbnail_url": self.thumbnail_url,
            "failure_reason": self.failure_reason,
            "created_at": _iso(self.created_at),
            "queued_at": _iso(self.queued_at),
            "updated_at": _iso(self.updated_at),
        }


def canonical_id(id_: str) -> str:
    """The form in which ids are compared: two ids that are equal so are one id.

    A UUID is one id in upper and in lower case, without dashes, in braces, as a URN, and with white space around it. Of any
    other id each character counts.

    Source: RFC 9562, section 4, and the spellings that `uuid.UUID` reads.
    """
    if _UUID.fullmatch(id_):  # as the service writes its ids
        return id_
    spelled = _SPELLED_UUID.fullmatch(id_)
    return "-".join(spelled.groups()).lower() if spelled else id_


def spellings(id_: str) -> set[str]:
    """The usual spellings of one id: those of a UUID have dashes, none, or braces, in lower and in upper case."""
    canonical = canonical_id(id_)
    if not _UUID.fullmatch(canonical):
        return {id_}
    lowered = {canonical, canonical.replace("-", ""), f"{{{canonical}}}"}
    return {id_, *lowered, *(one.upper() for one in lowered)}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


describe_fields(__name__)
