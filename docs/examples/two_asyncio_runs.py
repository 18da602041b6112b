"""Submit in one event loop, and wait in another: keep only the id of the job."""

from __future__ import annotations

import asyncio

from kling_async import KlingClient

client = KlingClient()


async def submit() -> str:
    """Submit a job, and return its id."""
    job = await client.submit("A tide coming in over black sand")
    return job.request_id


async def wait(request_id: str) -> str:
    """Wait for a job by its id."""
    job = await client.wait(request_id)
    return job.request_id


if __name__ == "__main__":
    kept = asyncio.run(submit())
    print("submitted", kept)
    print("finished", asyncio.run(wait(kept)))
