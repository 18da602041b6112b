"""Decides when a batch stops submitting, because every further POST would end like the last one."""

from __future__ import annotations

import attrs

from kling_async._policy.submission import stops_the_batch
from kling_async.errors import KlingError

_MAX_EQUAL_FAILURES = 10
"""Equal failures in a row after which the batch stops."""


@attrs.define
class CircuitBreaker:
    """Counts how submits end, and keeps the reason to send no more."""

    reason: KlingError | None = None
    """The error that stopped the batch; None while the batch submits."""
    _equal_failures: int = 0
    _last_failure: tuple[type[KlingError], int | None] | None = None

    def record_accepted(self) -> None:
        """Note that a submit was accepted: the failures before it were not systemic."""
        self._equal_failures, self._last_failure = 0, None

    def record_failure(self, error: KlingError) -> None:
        """Note the error of a submit: a systemic one, or the tenth equal one in a row, stops the batch."""
        failure = (type(error), error.status_code)
        self._equal_failures = self._equal_failures + 1 if failure == self._last_failure else 1
        self._last_failure = failure
        if self.reason is None and (stops_the_batch(error) or self._equal_failures >= _MAX_EQUAL_FAILURES):
            self.reason = error
