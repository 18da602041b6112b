"""When a batch stops submitting: every further POST would end like the last."""

from __future__ import annotations

import attrs

from kling_async._policy.submission import stops_the_batch
from kling_async.errors import KlingError

_SAME_IN_A_ROW = 10


@attrs.define
class CircuitBreaker:
    """Watches how submits end, and keeps the reason to send no more."""

    reason: KlingError | None = None
    """The error that stopped the batch; None while it goes on."""
    _same: int = 0
    _last: tuple[type[KlingError], int | None] | None = None

    def record_accepted(self) -> None:
        """A submit was accepted: whatever went wrong before was not systemic."""
        self._same, self._last = 0, None

    def record_failure(self, error: KlingError) -> None:
        """A submit ended with an error: a systemic one, or the same as many before it, stops the batch."""
        error_class = (type(error), error.status_code)
        self._same = self._same + 1 if error_class == self._last else 1
        self._last = error_class
        if self.reason is None and (stops_the_batch(error) or self._same >= _SAME_IN_A_ROW):
            self.reason = error
