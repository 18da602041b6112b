"""Decides how a process with few file descriptors works: with lower limits, and with pauses instead of failures."""

from __future__ import annotations

import errno

import attrs

from kling_async._policy.rate_limit import Limits
from kling_async._policy.retry import RetryPolicy, backoff

_RESERVED = 128
"""Descriptors for status calls and list calls, of which 64 can run at once, for the journal, and for the program itself."""
_PER_DOWNLOAD = 11
"""A connection, a partial file and its note; and four partial files that are flushed, each with its folder."""
_PAUSES = RetryPolicy(initial_delay=0.1, max_delay=2.0)
"""A download or a call of this client that ends gives descriptors back, so a pause is short."""
_ERRORS = frozenset({errno.EMFILE, errno.ENFILE})


def fit_limits(limits: Limits, max_open_files: int | None) -> Limits:
    """The limits, lowered to the descriptors that the process can have open.

    Args:
        limits: As the caller set them.
        max_open_files: The soft limit of the process, `RLIMIT_NOFILE`; None is no limit.
    """
    if max_open_files is None:
        return limits
    free = max(0, max_open_files - _RESERVED)
    submits = min(limits.max_concurrent_submits, max(1, free // 2))
    downloads = min(limits.max_concurrent_downloads, max(1, (free - submits) // _PER_DOWNLOAD))
    return attrs.evolve(limits, max_concurrent_submits=submits, max_concurrent_downloads=downloads)


def lacks_descriptors(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that the process or the system has no free file descriptor."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ERRORS:
            return True
        error = error.__cause__
    return False


def descriptor_pause(*, attempt: int, jitter: float) -> float:
    """Seconds to wait for a free descriptor.

    Args:
        attempt: How many such pauses the call has made.
        jitter: A random number from 0 to 1.
    """
    return backoff(_PAUSES, attempt=attempt, jitter=jitter)
