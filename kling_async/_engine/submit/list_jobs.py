"""The list of requests, page after page."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence

from kling_async._engine.api import ApiCaller
from kling_async._wire.codec import JobPage, structure_page
from kling_async._wire.endpoints import LIST
from kling_async.errors import APIResponseError
from kling_async.events import Notifier
from kling_async.jobs import Job

_LOOKUP_ROWS = 100
_MAX_EMPTY_PAGES = 10
"""Pages in a row of which no row can be read, after which the list is believed to hold nothing else."""
_MOST_PAGES = 1000
"""Pages after which a list is too long to be looked through for one job."""


async def pages(
    caller: ApiCaller, model: str, *, page_size: int, notify: Notifier
) -> AsyncGenerator[list[Job], None]:
    """The jobs of a model that earlier pages did not show, one list a page.

    Nothing is assumed of the order, of the rows a page really has, or of `has_more`: the pages end when the
    service says so, or when one brings nothing new. Source: none of the three is documented.
    """
    seen: set[str] = set()
    offset = empty_pages = 0
    while empty_pages < _MAX_EMPTY_PAGES:
        query = {"model_id": model, "limit": page_size, "offset": offset}
        page = await caller.repeat(LIST, structure_page, query=query, notify=notify)
        fresh = [job for job in page.jobs if job.request_id not in seen]
        seen.update(job.request_id for job in fresh)
        offset += page.rows
        empty_pages = 0 if fresh else empty_pages + 1
        if fresh:
            yield fresh
        if page.has_more is False or page.rows == 0 or (page.jobs and not fresh):
            return


async def read_since(
    caller: ApiCaller,
    model: str,
    *,
    since: float,
    turn: Callable[[], Awaitable[None]],
    show: Callable[[Sequence[Job]], None],
) -> None:
    """Go through all jobs of a model that were created since then, in Unix seconds, and perhaps older ones.

    The whole list is read, unless what was read shows it sorted by age: then reading ends where the rest is older.
    Of a long list that is sorted the other way round, the end is read first.

    Args:
        caller: For the calls, each made once.
        model: The model's id.
        since: Unix seconds.
        turn: Waits until the rate allows one more call.
        show: Given the rows of each page as it comes, also where a later one cannot be had.

    Raises:
        KlingError: A page could not be had, or there are too many.
    """

    async def read(offset: int) -> JobPage:
        await turn()
        query = {"model_id": model, "limit": _LOOKUP_ROWS, "offset": offset}
        page = await caller.once(LIST, structure_page, query=query)
        show(page.jobs)
        return page

    offset, page = 0, await read(0)
    ages = _created_times(page.jobs)
    if (
        ages
        and ages == sorted(ages)
        and ages[0] < ages[-1] < since
        and page.total is not None
        and page.total > page.rows
    ):
        offset, page = await _last_pages(page.total, since, read)
    seen: set[str] = set()
    newest, oldest, empty_pages = -math.inf, math.inf, 0
    for _ in range(_MOST_PAGES):
        known = len(seen)
        seen.update(job.request_id for job in page.jobs)
        offset += page.rows
        ages = _created_times(page.jobs)
        if ages and ages[0] <= oldest and ages == sorted(ages, reverse=True):
            newest, oldest = max(newest, ages[0]), ages[-1]
        elif ages:
            oldest = -math.inf  # not sorted that way: read on to the end
        empty_pages = 0 if page.jobs else empty_pages + 1
        is_over = page.has_more is False or page.rows == 0 or (page.jobs and len(seen) == known)
        if is_over or empty_pages == _MAX_EMPTY_PAGES or -math.inf < oldest < min(since, newest):
            return
        page = await read(offset)
    raise APIResponseError(
        f"list {model}: it has more than {_MOST_PAGES:,} pages, too many to look for one job in them."
    )


async def _last_pages(
    total: int, since: float, read: Callable[[int], Awaitable[JobPage]]
) -> tuple[int, JobPage]:
    """Where to begin in a list whose oldest rows come first: at a page of the end that begins before `since`."""
    back = _LOOKUP_ROWS
    while True:
        offset = max(0, total - back)
        page = await read(offset)
        ages = _created_times(page.jobs)
        if offset == 0 or (ages and ages[0] < since):
            return offset, page
        back *= 2


def _created_times(jobs: Iterable[Job]) -> list[float]:
    """When the jobs were created, in the order of the list."""
    return [job.created_at.timestamp() for job in jobs if job.created_at is not None]
