"""What a service has seen, counted as it goes and given out as a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from kling_async.emulator.faults import Operation
from kling_async.emulator.service_queue import Job


@attrs.frozen(kw_only=True)
class Stats:
    """What a service has seen until one moment."""

    requests: Counter[Operation]
    """Calls by operation, also those that were refused or hit by a fault."""
    max_concurrent_calls: Counter[Operation]
    """Most calls of each operation that were being answered at the same time."""
    accepted: tuple[Job, ...]
    """Every submit that was taken, and so paid for, in order."""
    jobs_in_flight: int
    """Jobs accepted and not final."""
    max_jobs_in_flight: int
    """Most jobs that were alive at the same time."""
    credentials_at_storage: int
    """Calls to media and upload addresses that carried an Authorization header; a good client makes none."""


class CallCounter:
    """Counts calls by operation."""

    def __init__(self) -> None:
        self.requests: Counter[Operation] = Counter()
        self.max_concurrent_calls: Counter[Operation] = Counter()
        self.credentials_at_storage: int = 0
        self._in_flight: Counter[Operation] = Counter()

    @contextmanager
    def track_call(self, operation: Operation, *, has_credentials: bool) -> Iterator[None]:
        """Count one call, and have it in flight until the block ends."""
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
