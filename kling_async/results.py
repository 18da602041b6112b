"""Results: how each item of a batch ended, as frozen values."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

import attrs

from kling_async._field_docs import describe_fields
from kling_async.errors import DownloadError, KlingError
from kling_async.jobs import Job
from kling_async.lines import one_line, quote_line
from kling_async.paths import ObjectUrl
from kling_async.requests import VideoRequest


class ResultState(StrEnum):
    """How one item of a batch ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    """The wait ended before the job, by its deadline or by an error; the job can still be running."""
    AMBIGUOUS = "ambiguous"
    """The request was sent, and whether the service accepted it is unknown. The job can be running and charged."""
    NOT_SUBMITTED = "not_submitted"
    """The service never accepted the request, so nothing was charged."""

    @property
    def label(self) -> str:
        """The state in words, such as `timed out`."""
        return self.replace("_", " ")


@attrs.frozen(kw_only=True, repr=False)
class Result:
    """How one item of a batch ended."""

    index: int
    """The item's place in the input, from 0. File names, reports, `status` and the journal show the same number.

    An entry of a journal that is an item again keeps its index; of entries that are out of order or of two batches, a
    later one gets the next free index.
    """
    request: VideoRequest | None
    """The request, filled with the options of the call.

    None for an item that is no valid request, and for a job of `wait_many`.
    """
    state: ResultState
    job: Job | None = None
    """The last known record of the job; None if there is none."""
    error: KlingError | None = None
    """The reason of a result that is not a success. For a success, the reason why its file could not be saved."""
    path: Path | ObjectUrl | None = None
    """The file of the video, or its URL in an object store; None if the video was not saved.

    Both have a `name`, and `str()` of both is the whole place.
    """
    cost_usd: Decimal | None = None
    """US dollars for the item, if its price is known. None is unknown, not free."""

    def __repr__(self) -> str:
        words = [f"{self.index}", self.label, *([] if self.prompt is None else [quote_line(self.prompt)])]
        words += [repr(str(self.path))] if self.path is not None else []
        return f"<Result {' '.join(words)}{f': {self.error.message}' if self.error else ''}>"

    @property
    def prompt(self) -> str | None:
        """The prompt of the request, or else of the job; None if neither is known."""
        if self.request is not None:
            return self.request.prompt
        return self.job.prompt if self.job is not None else None

    @property
    def ok(self) -> bool:
        """Whether there is a video. If its file could not be saved, `error` says why."""
        return self.state is ResultState.SUCCEEDED

    @property
    def is_unsaved(self) -> bool:
        """Whether the video was made and could not be saved."""
        return self.ok and self.error is not None

    @property
    def label(self) -> str:
        """The state in words, such as `timed out`; `made, not saved` for a video that could not be saved."""
        return "made, not saved" if self.is_unsaved else self.state.label

    @property
    def failure_reason(self) -> str | None:
        """Why there is no video, or no file; None if nothing failed or no reason is known.

        The id of the job and the name of its file are left out, so that equal reasons are equal.
        """
        if self.job is not None and self.job.failure_reason:
            return self.job.failure_reason
        error = self.error
        if error is None:
            return None
        if isinstance(error, DownloadError) and isinstance(error.__cause__, KlingError | OSError):
            cause = error.__cause__
            return cause.message if isinstance(cause, KlingError) else cause.strerror or type(cause).__name__
        if not error.request_id:
            return error.message
        return re.sub(rf"(?<!\w){re.escape(one_line(error.request_id))}(?!\w)", "…", error.message)

    def job_or_raise(self) -> Job:
        """The finished job.

        Raises:
            KlingError: The result is not `ok`; the error is the one that the result holds.
        """
        if self.ok and self.job is not None:
            return self.job
        raise self.error or KlingError(f"Item {self.index} has no job: {self.state}.")

    def to_dict(self) -> dict[str, Any]:
        """The result as flat plain JSON values, such as a row of a table; None for what is not known.

        The keys are `index`, `key`, `prompt`, `model`, `duration` (seconds), `sound`, `state`, `request_id`,
        `video_url`, `thumbnail_url`, the ISO 8601 times `created_at` and `updated_at` of the job, `path`, `cost_usd`
        (a number; None is unknown, not free), `error` (its message), `error_type` (its class), and
        `label_` with the name of each label of the request.
        """
        request, error = self.request, self.error
        job = {} if self.job is None else self.job.to_dict()
        return {
            "index": self.index,
            "key": request.key if request else None,
            "prompt": self.prompt,
            "model": request.model if request else None,
            "duration": request.duration if request else None,
            "sound": request.sound if request else None,
            "state": self.state.value,
            "request_id": job.get("request_id", error.request_id if error else None),
            "video_url": job.get("video_url"),
            "thumbnail_url": job.get("thumbnail_url"),
            "created_at": job.get("created_at"),
            "updated_at": job.get("updated_at"),
            "path": None if self.path is None else str(self.path),
            "cost_usd": None if self.cost_usd is None else float(self.cost_usd),
            "error": None if error is None else error.message,
            "error_type": None if error is None else type(error).__name__,
            **{f"label_{name}": value for name, value in (request.labels if request else {}).items()},
        }


describe_fields(__name__)
