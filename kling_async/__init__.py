"""Asyncio-first client for Kling video generation behind GMI Cloud's request queue.

Everything a user needs is imported from here; besides it only `kling_async.errors`, `.events`, `.types`,
`.journal`, `.notebook`, `.distributed` and `.emulator` are public.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - pip refuses such a Python, but a copied folder does not
    raise ImportError(f"kling_async needs Python 3.11 or newer; this is Python {sys.version.split()[0]}.")

from importlib import import_module
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
    BatchInterruptedError,
    BudgetExceededError,
    CertificateError,
    ClientClosedError,
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
    ProxyError,
    RateLimitError,
    WaitTimeoutError,
)
from kling_async.jobs import Job, JobStatus, Media, Outcome
from kling_async.requests import VideoOptions, VideoRequest
from kling_async.results import Result, ResultState

if TYPE_CHECKING:
    from kling_async.estimates import Estimate, ItemEstimate, estimate
    from kling_async.history import BatchHistory, HistoryRecorder, ItemTimes, TimeSpan
    from kling_async.journal import Journal
    from kling_async.progress import ProgressCounts, show_progress

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AmbiguousSubmitError",
    "AuthenticationError",
    "BadRequestError",
    "BatchHistory",
    "BatchInterruptedError",
    "BatchResult",
    "BudgetExceededError",
    "CertificateError",
    "ClientClosedError",
    "ConfigurationError",
    "DownloadError",
    "Estimate",
    "HistoryRecorder",
    "InsufficientCreditsError",
    "InternalServerError",
    "InvalidRequestError",
    "ItemEstimate",
    "ItemTimes",
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
    "ProgressCounts",
    "ProxyError",
    "RateLimitError",
    "Result",
    "ResultState",
    "RetryPolicy",
    "TimeSpan",
    "VideoOptions",
    "VideoRequest",
    "WaitTimeoutError",
    "__version__",
    "estimate",
    "show_progress",
]


_PUBLIC_MODULES = ("emulator", "errors", "events", "journal", "notebook", "types")
_IMPORTED_LATER = {
    "Estimate": "kling_async.estimates",
    "ItemEstimate": "kling_async.estimates",
    "estimate": "kling_async.estimates",
    "BatchHistory": "kling_async.history",
    "HistoryRecorder": "kling_async.history",
    "ItemTimes": "kling_async.history",
    "Journal": "kling_async.journal",
    "ProgressCounts": "kling_async.progress",
    "TimeSpan": "kling_async.history",
    "show_progress": "kling_async.progress",
}
"""Names whose modules import slowly, and their modules; a name is imported when a program first uses it."""


def __getattr__(name: str) -> object:
    if name in _PUBLIC_MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _IMPORTED_LATER:
        return getattr(import_module(_IMPORTED_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*__all__, *_PUBLIC_MODULES))


if "IPython" in sys.modules:  # other programs do not wait for the import of the pages
    from kling_async.notebook import register_formatters

    register_formatters()
