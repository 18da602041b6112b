"""Decides when a batch stops submitting, or a client almost stops: every further POST would end like the last one."""

from __future__ import annotations

import attrs

from kling_async._policy.submission import stops_the_batch
from kling_async.errors import InvalidRequestError, KlingError

_MAX_EQUAL_FAILURES = 10
"""Equal failures in a row after which the batch stops, and lost submits in a row after which a client submits one at a time."""
_SPACING = 30.0
"""Seconds between two submits then: as long as the job of a lost one is searched for."""


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

    def record_failure(self, error: KlingError, *, is_outage: bool = False) -> None:
        """Note the error of a submit: a systemic one, or the tenth equal one in a row, stops the batch.

        A request that the client itself refuses says nothing of the service.

        Args:
            error: The error.
            is_outage: Whether the client has lost so many submits in a row that this one more stops the batch.
        """
        if isinstance(error, InvalidRequestError):
            return
        failure = (type(error), error.status_code)
        self._equal_failures = self._equal_failures + 1 if failure == self._last_failure else 1
        self._last_failure = failure
        is_last = is_outage or self._equal_failures >= _MAX_EQUAL_FAILURES
        if self.reason is None and (is_last or stops_the_batch(error)):
            self.reason = error


@attrs.define(eq=False)
class LostStreak:
    """The lost submits of a client since the service last took or refused one.

    After ten of them it is an outage of the service: each further submit can leave one more that is ambiguous, and may be charged. So one is
    sent every half minute until the service answers. Every wait ends by the clock, and by nothing else.
    """

    next_at: float = float("-inf")
    """When the next submit may leave."""
    last_error: KlingError | None = None
    """The error of the last lost submit."""
    _count: int = 0

    @property
    def is_outage(self) -> bool:
        """Whether ten submits in a row are lost."""
        return self._count >= _MAX_EQUAL_FAILURES

    def record_lost(self, error: KlingError) -> bool:
        """Note that the answer to a submit is lost; whether it is an outage with this one."""
        self.last_error = error
        self._count += 1
        return self._count == _MAX_EQUAL_FAILURES

    def record_answer(self) -> None:
        """Note that the service took or refused a submit, so that the outage is over."""
        self._count, self.next_at, self.last_error = 0, float("-inf"), None

    def take_turn(self, now: float) -> float | None:
        """Note that a submit leaves: in an outage the next one waits half a minute. Returns the turn; None without an outage."""
        if not self.is_outage:
            return None
        self.next_at = now + _SPACING
        return self.next_at

    def put_back_turn(self, turn: float | None) -> None:
        """Put back the turn of a submit that was not sent, unless a later submit has taken one."""
        if turn == self.next_at:
            self.next_at = float("-inf")
