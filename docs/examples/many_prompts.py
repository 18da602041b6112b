"""Make a video for each prompt of a list, and print the failures."""

from __future__ import annotations

import asyncio

from kling_async import KlingClient, VideoRequest
from kling_async.types import RequestLike

PROMPTS: list[RequestLike] = [
    "A paper boat on a rain-swept street",
    VideoRequest("A lighthouse in a storm, seen from the sea", sound=True),
    {"prompt": "A kettle begins to sing", "duration": 10},
]


async def main() -> None:
    """Make all videos, and save each as soon as it is finished."""
    async with KlingClient() as client:
        batch = await client.generate_many(PROMPTS, duration=5, max_concurrency=50, output="videos/")
    for result in batch.failed:
        print(f"item {result.index} {result.state}: {result.error}")
    print(f"{len(batch.succeeded)} of {len(batch)} videos were made")


if __name__ == "__main__":
    asyncio.run(main())
