"""Stream prompts in and results out, with the memory of a few jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from kling_async import KlingClient


def prompts() -> Iterator[str]:
    """The client reads the next prompt when it can submit it."""
    for hour in range(8):
        yield f"A village square at {hour * 3:02d}:00, time lapse"


async def main() -> None:
    """Print each result as soon as it arrives."""
    async with KlingClient() as client, client.stream_many(prompts(), max_concurrency=4) as results:
        async for result in results:
            print(result.index, result.state, result.job and result.job.video_url)


if __name__ == "__main__":
    asyncio.run(main())
