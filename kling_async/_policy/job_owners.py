"""Remembers which jobs have an owner, so that no lost submit takes the job of another item."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import attrs

from kling_async._policy.recent_job_ids import RecentJobIds


@attrs.frozen
class JournalRun:
    """The owner of jobs: one run of a journal, or all submits without a journal together."""

    location: str | None = None
    """The journal's location, the same in each of its runs; None without a journal."""
    run: Hashable = None
    """Distinguishes the runs of a journal."""


@attrs.define
class JobOwners:
    """The jobs that have an owner; event loops in several threads can use it at the same time.

    A job of an earlier run counts as owned, but not for the present run of the same journal: that journal knows its own
    jobs. If an earlier run could not write an id, as on a full disk, the item is still a lost submit there, and its job
    has to be found again.
    """

    span: float = 0.0
    """Seconds for which a job is remembered, at least."""
    _ids: dict[JournalRun, RecentJobIds] = attrs.field(init=False, factory=dict)

    def add(self, request_id: str, owner: JournalRun, *, now: float, keep: bool) -> bool:
        """Remember the owner of a job.

        Args:
            request_id: The job's id.
            owner: Its owner.
            now: Seconds of a monotonic clock.
            keep: Whether to keep all ids; else the ids older than `span` are forgotten.

        Returns:
            False if the job had an owner before, this one or another.
        """
        ids = self._ids.get(owner)
        if ids is None:
            if not keep:
                self._forget_expired(now)
            ids = self._ids.setdefault(owner, RecentJobIds(self.span))
        ids.span = self.span
        is_new = ids.add(request_id, now=now, keep=keep)
        return is_new and not any(
            request_id in others for others in tuple(self._ids.values()) if others is not ids
        )

    def _forget_expired(self, now: float) -> None:
        for expired in [owner for owner, ids in tuple(self._ids.items()) if ids.is_expired(now)]:
            self._ids.pop(expired, None)

    def has_owner(self, request_id: str, present: Mapping[str | None, JournalRun]) -> bool:
        """Whether a job has an owner; that of an earlier run of these journals does not count.

        Args:
            request_id: The job's id.
            present: By journal, its present run.
        """
        return any(
            request_id in ids and present.get(owner.location, owner) == owner
            for owner, ids in tuple(self._ids.items())
        )
