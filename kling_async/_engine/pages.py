"""The list of requests, page after page."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from kling_async._engine.call import Caller
from kling_async._wire.codec import structure_page
from kling_async._wire.endpoints import LIST
from kling_async.events import Notifier
from kling_async.models import Job


async def pages(
    caller: Caller, model: str, *, page_size: int, notify: Notifier
) -> AsyncGenerator[list[Job], None]:
    """The jobs of a model that earlier pages did not show, one list a page.

    Nothing is assumed of the order, of the rows a page really has, or of `has_more`: the pages end when the
    service says so, or when one brings nothing new. Source: none of the three is documented.
    """
    seen: set[str] = set()
    offset = 0
    while True:
        query = {"model_id": model, "limit": page_size, "offset": offset}
        page = await caller.repeat(LIST, structure_page, query=query, notify=notify)
        fresh = [job for job in page.jobs if job.request_id not in seen]
        seen.update(job.request_id for job in fresh)
        offset += page.rows
        if fresh:
            yield fresh
        if page.has_more is False or page.rows == 0 or (page.jobs and not fresh):
            return
