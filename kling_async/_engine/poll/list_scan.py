"""The pages of a model's list, and what their rows tell of the jobs in flight."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.poll.tracked_job import TrackedJob
from kling_async._policy.list_state import ListState, PageFacts, Scan, page_cost
from kling_async._wire.codec import RowPage, ShapeError, parse_status, structure_job, structure_rows
from kling_async._wire.endpoints import LIST
from kling_async.errors import APIStatusError, KlingError, RateLimitError
from kling_async.jobs import Job, JobStatus

_SERVER_ERROR = 500


@attrs.define(eq=False)
class ListScanner:
    """One model's list: read by scans, and left alone where it is of no use."""

    caller: ApiCaller
    model: str | None
    state: ListState = attrs.field(factory=ListState)
    next_at: float = -math.inf
    """When the next scan is due, by the engine's clock."""
    considered_at: float = -math.inf
    """When it was last considered whether scans would pay."""

    async def read_page(self, scan: Scan, *, status_seconds: float) -> tuple[RowPage, float]:
        """The next page of a scan, and its cost in status calls.

        Raises:
            KlingError: The page cannot be read.
        """
        began = self.caller.clock.now()
        query = {"model_id": self.model, "limit": self.state.limit, "offset": scan.next_offset}
        reply = await self.caller.fetch(LIST, query=query)
        page = self.caller.read(reply, LIST, structure_rows)
        seconds = self.caller.clock.now() - began
        cost = page_cost(
            rows=len(page.rows), size_bytes=len(reply.body), seconds=seconds, status_seconds=status_seconds
        )
        return page, cost

    def find_jobs(
        self, page: RowPage, scan: Scan, jobs: Mapping[str, TrackedJob]
    ) -> Iterator[tuple[int, TrackedJob, Job | None]]:
        """The rows of a page that are news of jobs in flight: how many rows up to it, the job, its record.

        The record is None for a job that is shown in the status that it had.
        """
        for place, row in enumerate(page.rows, start=1):
            request_id = row.get("request_id") if isinstance(row, dict) else None
            if not isinstance(request_id, str) or request_id in scan.seen:
                continue
            scan.seen.add(request_id)
            tracked = jobs.get(request_id)
            if tracked is not None:
                if tracked.asked_for_media or row.get("status") == tracked.status.value:
                    yield place, tracked, None
                elif (job := self._fresh_record(row, tracked)) is not None:
                    yield place, tracked, job
            elif request_id == self.state.suspect and not _is_final(row):
                self.state.report_stale(self.caller.clock.now(), is_proof=True)

    def _fresh_record(self, row: Mapping[str, Any], tracked: TrackedJob) -> Job | None:
        """The record of a row; None for a row that cannot be read, or shows the job as it was before."""
        try:
            job = structure_job(row)
        except ShapeError:
            return None
        if tracked.status is JobStatus.PROCESSING and not job.is_final:
            self.state.report_stale(self.caller.clock.now())
            return None
        return job

    def handle_failure(self, error: KlingError) -> None:
        """A list that cannot be read is left alone; the jobs are polled one by one meanwhile."""
        now = self.caller.clock.now()
        is_refusal = isinstance(error, APIStatusError) and (error.status_code or 0) < _SERVER_ERROR
        if is_refusal and not isinstance(error, RateLimitError):
            self.state.record_refusal(now)
        else:
            self.state.back_off(now)


def page_facts(
    page: RowPage, cost: float, *, known_before: int, scan: Scan, hits: int, last_hit: int
) -> PageFacts:
    """What a page tells the scan once its rows are taken in."""
    new_rows = len(scan.seen) - known_before
    readable = sum(1 for row in page.rows if isinstance(row, dict) and isinstance(row.get("request_id"), str))
    return PageFacts(
        rows=len(page.rows),
        new_rows=new_rows,
        repeated_rows=readable - new_rows,
        hits=hits,
        last_hit=last_hit,
        has_more=page.has_more,
        total=page.total,
        cost=cost,
    )


def _is_final(row: Mapping[str, Any]) -> bool:
    word = row.get("status")
    return isinstance(word, str) and parse_status(word).is_final
