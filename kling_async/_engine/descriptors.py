"""Waits for a free file descriptor, instead of failing with "Too many open files"."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TypeVar

from kling_async._callbacks import SafeLogger
from kling_async._engine.clock import Clock
from kling_async._policy.descriptors import descriptor_pause, fit_limits, lacks_descriptors
from kling_async._policy.rate_limit import Limits

T = TypeVar("T")

_log = SafeLogger("kling_async")


async def retry_for_descriptor(work: Callable[[], Awaitable[T]]) -> T:
    """The result of work that can be repeated; the work runs again while the process has no free file descriptor."""
    attempt = 0
    while True:
        try:
            return await work()
        except Exception as error:
            if not lacks_descriptors(error):
                raise
        warn_of_descriptors()
        jitter = random.random()  # noqa: S311 - spreads retries, keeps no secret
        await Clock().sleep(descriptor_pause(attempt=attempt, jitter=jitter))
        attempt += 1


@cache
def warn_of_descriptors() -> None:
    """Log, once in a process, that the client waits for free file descriptors."""
    _log.warning(
        "This process has no free file descriptor (too many open files). The client waits until files or connections "
        "are closed; `ulimit -n` shows the limit, and `ulimit -n 4096` before the program raises it."
    )


def fit_to_process(limits: Limits) -> Limits:
    """The limits, lowered to the file descriptors that this process can have open; a lower limit is logged."""
    max_open_files = _max_open_files()
    fitted = fit_limits(limits, max_open_files)
    if fitted != limits:
        _log.warning(
            "This process can have %d files open, so at most %d submits and %d downloads run at once; `ulimit -n 4096` "
            "before the program raises the limit.",
            max_open_files,
            fitted.max_concurrent_submits,
            fitted.max_concurrent_downloads,
        )
    return fitted


def _max_open_files() -> int | None:
    """The soft limit of open files; None if there is none, as on Windows."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
