"""Reads the list of a model's jobs, page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import attrs

from kling_async._engine.api import ApiCaller
from kling_async._engine.emitter import Emitter
from kling_async._policy.job_end import hide_in_reason
from kling_async._policy.list_evidence import MAX_EMPTY_PAGES, ListReading, RecentReading
from kling_async._policy.rate_limit import TokenBucket
from kling_async._secrets import Secret
from kling_async._wire.codec import JobPage, RowPage, structure_page, structure_rows
from kling_async._wire.endpoints import LIST, list_query
from kling_async.errors import KlingError
from kling_async.jobs import Job, canonical_id

_PAGE_ROWS = 100
_ROWS_IN_SLICE = 200
"""Rows that are read before other tasks run."""
MAX_PAGES = 1000
"""Pages after which a list is too long to search it for one job."""


async def list_pages(
    api: ApiCaller, model: str, *, page_size: int, emit: Emitter
) -> AsyncGenerator[list[Job], None]:
    """The jobs of a model, page by page, each job once.

    The order, the number of rows of a page and `has_more` are not relied on: reading ends when the service says so, or
    with a page that has no new job.

    Source: none of the three is documented.
    """
    seen: set[str] = set()
    offset = empty_pages = 0
    while empty_pages < MAX_EMPTY_PAGES:
        query = list_query(model, limit=page_size, offset=offset)
        page = await _structure_in_slices(
            api, await api.send_with_retries(LIST, structure_rows, query=query, emit=emit)
        )
        by_id = {canonical_id(job.request_id): job for job in page.jobs}
        fresh = [job for id_, job in by_id.items() if id_ not in seen]
        seen.update(by_id)
        offset += page.rows
        empty_pages = 0 if fresh else empty_pages + 1
        if fresh:
            yield fresh
        if page.has_more is False or page.rows == 0 or (page.jobs and not fresh):
            return


async def read_since(
    api: ApiCaller, model: str, *, since: float, polls: TokenBucket
) -> AsyncGenerator[tuple[Job, ...], None]:
    """The pages of a model's list with all jobs created since a time, and perhaps older jobs.

    `RecentReading` says which pages these are.

    Args:
        api: Sends the calls, each once.
        model: The model's id.
        since: Unix seconds.
        polls: The rate limit of the calls.

    Raises:
        KlingError: A page cannot be read, or the list has too many pages; the pages before were returned.
    """
    reading = RecentReading(since=since, page_rows=_PAGE_ROWS)
    for _ in range(MAX_PAGES):
        page = await _read_page(api, model, offset=reading.next_offset, polls=polls)
        yield page.jobs
        reading.add(page.jobs, rows=page.rows, total=page.total, has_more=page.has_more)
        if reading.is_over:
            return
    raise KlingError(  # not transient: the list is no shorter at the next try
        f"the list of the jobs of {model} has more than {MAX_PAGES:,} pages, too many to search for one job."
    )


async def read_whole(
    api: ApiCaller, model: str, *, since: float, polls: TokenBucket, max_pages: int
) -> ListReading:
    """A reading of a model's list to its end, whatever its order; `ListReading.is_whole` says whether that succeeded.

    Args:
        api: Sends the calls, each once.
        model: The model's id.
        since: Unix seconds; older rows are counted and not kept.
        polls: The rate limit of the calls.
        max_pages: The pages after which reading ends; a longer list is then not whole.

    Raises:
        KlingError: A page cannot be read.
    """
    began = api.instant()
    reading = ListReading(None if began.offset is None else began.time, since=since)
    offset = pages = 0
    while not reading.is_over and pages < max_pages:
        page = await _read_page(api, model, offset=offset, polls=polls)
        reading.add(page.jobs, rows=page.rows, total=page.total)
        offset, pages = offset + page.rows, pages + 1
    return reading


async def _read_page(api: ApiCaller, model: str, *, offset: int, polls: TokenBucket) -> JobPage:
    """One page, in its turn of the polls."""
    await api.wait_turn(polls)
    query = list_query(model, limit=_PAGE_ROWS, offset=offset)
    return await _structure_in_slices(api, await api.send(LIST, structure_rows, query=query))


async def _structure_in_slices(api: ApiCaller, page: RowPage) -> JobPage:
    """The jobs of a page; a long one, of a service that ignores `limit`, does not block the event loop."""
    jobs: list[Job] = []
    for start in range(0, len(page.rows), _ROWS_IN_SLICE):
        if start:
            await api.clock.sleep(0)
        some = structure_page(page.rows[start : start + _ROWS_IN_SLICE]).jobs
        jobs += (_hide_key(job, api.secret) for job in some)
    return JobPage(jobs=tuple(jobs), rows=len(page.rows), has_more=page.has_more, total=page.total)


def _hide_key(job: Job, secret: Secret) -> Job:
    """The job without the key in its failure reason and in its payload, also where JSON writes the key with escapes.

    A lost submit is compared with rows in which the key is hidden; see `Secret.hide_in_value`.
    """
    job, payload = hide_in_reason(job, secret=secret), secret.hide_in_value(job.payload)
    return job if payload == job.payload else attrs.evolve(job, payload=payload)
