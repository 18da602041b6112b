"""Decides whether a worker may be left that can run a batch, from what workers refuse and which of them live."""

from __future__ import annotations

from collections.abc import Collection

import attrs

from kling_async.errors import KlingError

_RETURNS_WITHIN = 10.0
"""Seconds in which a worker holds its lock again whose connection with the database broke."""


@attrs.frozen
class Refusal:
    """That one worker cannot run a batch, as the worker wrote it down."""

    worker: str
    """The name of the worker, for messages."""
    error: KlingError
    """Why the worker cannot."""
    is_end: bool
    """Whether the worker ends. If not, it continues with other batches."""


@attrs.define
class Refusals:
    """The refusals that one call has heard of, by the session of the worker with the database."""

    _by_session: dict[int, Refusal] = attrs.field(factory=dict)
    _able_at: float | None = None
    """The last time at which a worker lived that has refused nothing; None if there was no such worker."""

    def __len__(self) -> int:
        return len(self._by_session)

    def add(self, session: int, refusal: Refusal) -> None:
        """Remember what the worker of a session refuses."""
        self._by_session[session] = refusal

    def reason(self, living: Collection[int], *, now: float) -> KlingError | None:
        """Why no worker is left that can run the batch; None if one may be left, or none has refused.

        A worker that ends counts until it is gone: it waits for its jobs in flight. A refusal of a worker that is gone is
        forgotten while another one works: after that one has stopped, the call waits for its successor.

        Args:
            living: The sessions of the workers that live.
            now: The time, by any clock that does not go back.
        """
        if any(session not in self._by_session for session in living):
            self._able_at = now
            self._by_session = {
                session: refusal for session, refusal in self._by_session.items() if session in living
            }
            return None
        if any(self._by_session[session].is_end for session in living):
            return None
        if self._able_at is not None and now - self._able_at <= _RETURNS_WITHIN:
            return None
        return next((refusal.error for refusal in self._by_session.values()), None)

    def pause(self, *, now: float) -> None:
        """Note that the database cannot be reached: the workers, too, have to come back to it."""
        if self._able_at is not None:
            self._able_at = now
