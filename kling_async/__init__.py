"""Asyncio-first client for Kling video generation behind GMI Cloud's request queue.

Everything a user needs is imported from here; besides it only `kling_async.errors`, `.events`,
`.notebook` and `.emulator` are public.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import Limits
from kling_async._policy.retry import RetryPolicy
from kling_async.batch_result import BatchResult
from kling_async.catalog import ModelInfo
from kling_async.client import KlingClient
from kling_async.config import __version__
from kling_async.errors import (
    AmbiguousSubmitError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ConfigurationError,
    DownloadError,
    InsufficientCreditsError,
    InternalServerError,
    InvalidRequestError,
    JobCancelledError,
    JobError,
    JobFailedError,
    JournalError,
    KlingError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    WaitTimeoutError,
)
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.requests import VideoOptions, VideoRequest
from kling_async.results import Result, ResultState

if TYPE_CHECKING:
    from kling_async._journal.journal import Journal

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AmbiguousSubmitError",
    "AuthenticationError",
    "BadRequestError",
    "BatchResult",
    "BudgetExceededError",
    "ConfigurationError",
    "DownloadError",
    "InsufficientCreditsError",
    "InternalServerError",
    "InvalidRequestError",
    "Job",
    "JobCancelledError",
    "JobError",
    "JobFailedError",
    "JobStatus",
    "Journal",
    "JournalError",
    "KlingClient",
    "KlingError",
    "Limits",
    "Media",
    "ModelInfo",
    "NotFoundError",
    "Outcome",
    "PermissionDeniedError",
    "PollingPolicy",
    "RateLimitError",
    "Result",
    "ResultState",
    "RetryPolicy",
    "VideoOptions",
    "VideoRequest",
    "WaitTimeoutError",
    "__version__",
]


def __getattr__(name: str) -> object:
    """`Journal` is imported when it is first asked for: with what it reads, it takes longer than all the rest."""
    if name == "Journal":
        from kling_async._journal.journal import Journal

        return Journal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
