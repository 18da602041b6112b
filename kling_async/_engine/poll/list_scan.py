"""The pages of a model's list, and what their rows tell of the jobs in flight."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from typing import Any

import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.poll.tracked_job import TrackedJob
from kling_async._policy.list_state import ListState, Scan, page_cost
from kling_async._policy.polling import PollingPolicy
from kling_async._policy.rate_limit import TokenBucket
from kling_async._wire.codec import RowPage, parse_status, structure_job, structure_rows
from kling_async._wire.endpoints import LIST, list_query
from kling_async._wire.json_reader import ShapeError
from kling_async.errors import APIStatusError, ClientClosedError, KlingError, RateLimitError
from kling_async.jobs import Job, JobStatus, canonical_id


@attrs.define(eq=False)
class ModelList:
    """One model's list: read by scans, and left alone where it is of no use."""

    model: str | None
    policy: PollingPolicy = attrs.field(factory=PollingPolicy)
    """What the caller set for the job that began the scans."""
    state: ListState = attrs.field(factory=ListState)
    in_flight: int = 0
    """How many jobs of the model are in flight."""
    queue_entry: int = 0
    """The number of its entry in the queue; 0 while it has none."""
    has_scan_in_flight: bool = False
    """Whether a scan is under way."""

    @property
    def is_worth_scanning(self) -> bool:
        """Whether scans of the list are worth their cost now."""
        is_always_used = self.policy.use_lists == "always"
        return self.in_flight > 0 and (is_always_used or self.state.pays(self.in_flight))

    @property
    def wants_plan(self) -> bool:
        """Whether to plan the next scan when a job is added: if none is planned, and when the jobs have doubled."""
        has_doubled = self.in_flight & (self.in_flight - 1) == 0
        return not self.has_scan_in_flight and (has_doubled or not self.queue_entry)

    async def scan(
        self, api: ApiCaller, rate: TokenBucket, jobs: Mapping[str, TrackedJob]
    ) -> AsyncGenerator[tuple[TrackedJob, Job | None], None]:
        """One scan of the list: each job in flight that its pages tell news of, with the job's record.

        The record is None for a job that is shown in the status that it had. A list that cannot be read is left alone.
        """
        scan = self.state.begin_scan(self.in_flight)
        while scan.next_offset is not None:
            page, cost = await self._read_page(api, rate, offset=scan.next_offset)
            if page is None:
                return
            known, hits, ends = len(scan.ids), 0, 0
            for row in page.rows:
                tracked, job = self._find_news(scan, row, jobs)
                if tracked is not None:
                    hits += 1
                    ends += job is not None and job.is_final
                    yield tracked, job
            self.state.add_page(
                scan,
                rows=len(page.rows),
                new_rows=len(scan.ids) - known,
                hits=hits,
                ends=ends,
                has_more=page.has_more,
                total=page.total,
                cost=cost,
            )
        self.state.end_scan(scan, api.clock.now())

    async def _read_page(
        self, api: ApiCaller, rate: TokenBucket, *, offset: int
    ) -> tuple[RowPage | None, float]:
        """One page and its cost; None if it cannot be read, which the state of the list then knows."""
        clock, state = api.clock, self.state
        state.page_at = sent_at = clock.now() + rate.take(clock.now())
        await clock.sleep(sent_at - clock.now())
        try:
            reply = await api.fetch(LIST, query=list_query(self.model, limit=state.rows, offset=offset))
            page = api.read(reply, LIST, structure_rows)
        except ClientClosedError:
            raise
        except KlingError as error:
            state.record_failure(clock.now(), is_refusal=_is_refusal(error))
            return None, 0.0
        return page, page_cost(size_bytes=len(reply.body), seconds=clock.now() - sent_at)

    def _find_news(
        self, scan: Scan, row: Any, jobs: Mapping[str, TrackedJob]
    ) -> tuple[TrackedJob | None, Job | None]:
        """The job in flight that a row tells news of, and its record; None for a row that tells none."""
        request_id = row.get("request_id") if isinstance(row, dict) else None
        if not isinstance(request_id, str) or (id_ := canonical_id(request_id)) in scan.ids:
            return None, None
        tracked, job = jobs.get(id_), None
        # The id of a job in flight is kept already; with a copy of each, a scan of many jobs would take a fiftieth more.
        scan.ids.add(id_ if tracked is None else canonical_id(tracked.request_id))
        if tracked is None:
            if id_ == scan.suspect:
                scan.check_suspect(is_final=_is_final(row))
            return None, None
        if not tracked.awaits_video and row.get("status") != tracked.status.value:
            try:
                job = structure_job(row)
            except ShapeError:
                return None, None
            if tracked.status is JobStatus.PROCESSING and not job.is_final:
                return None, None  # the row shows the job as it was before
        tracked.scan_number = scan.number
        return tracked, job


def _is_final(row: Mapping[str, Any]) -> bool:
    word = row.get("status")
    return isinstance(word, str) and parse_status(word).is_final


def _is_refusal(error: KlingError) -> bool:
    """Whether the service refuses the call, and will refuse it again."""
    is_status = isinstance(error, APIStatusError) and not isinstance(error, RateLimitError)
    return is_status and (error.status_code or 0) < HTTPStatus.INTERNAL_SERVER_ERROR
