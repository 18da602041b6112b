"""Submit now, wait in another event loop: an id is all that has to be kept."""

from __future__ import annotations

import asyncio

from kling_async import KlingClient

client = KlingClient()


async def submit() -> str:
    """Give the id of a job that was just submitted."""
    job = await client.submit("A tide coming in over black sand")
    return job.request_id


async def wait(request_id: str) -> str:
    """Wait for a job of which only the id is known."""
    job = await client.wait(request_id)
    return job.request_id


if __name__ == "__main__":
    kept = asyncio.run(submit())
    print("submitted", kept)
    print("finished", asyncio.run(wait(kept)))
