"""Counts of calls, and `Stats`: a copy of all counts at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from kling_async.emulator.faults import Operation
from kling_async.emulator.service_queue import Job


@attrs.frozen(kw_only=True)
class Stats:
    """The counts of an emulator at one moment."""

    requests: Counter[Operation]
    """Calls by operation, including refused calls and calls that a fault hit."""
    max_concurrent_calls: Counter[Operation]
    """By operation, the most calls that were open at the same time."""
    accepted: tuple[Job, ...]
    """Every accepted, and so paid, submit, in order."""
    jobs_in_flight: int
    """Jobs that are accepted and not final."""
    max_jobs_in_flight: int
    """The most jobs that were in flight at the same time."""
    credentials_at_storage: int
    """Calls to media and upload URLs with an Authorization header. A correct client makes none."""


class CallCounter:
    """Counts calls by operation."""

    def __init__(self) -> None:
        self.requests: Counter[Operation] = Counter()
        self.max_concurrent_calls: Counter[Operation] = Counter()
        self.credentials_at_storage: int = 0
        self._in_flight: Counter[Operation] = Counter()

    @contextmanager
    def track_call(self, operation: Operation, *, has_credentials: bool) -> Iterator[None]:
        """Count one call, as open until the block ends."""
        self.requests[operation] += 1
        self._in_flight[operation] += 1
        self.max_concurrent_calls[operation] = max(
            self.max_concurrent_calls[operation], self._in_flight[operation]
        )
        self.credentials_at_storage += has_credentials and operation in {"media", "store"}
        try:
            yield
        finally:
            self._in_flight[operation] -= 1
