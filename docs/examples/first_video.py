"""Make one video from one prompt."""

from __future__ import annotations

import asyncio

from kling_async import KlingClient


async def main() -> None:
    """Make one video and save it."""
    async with KlingClient() as client:
        job = await client.generate("A majestic eagle at sunset", duration=5, sound=True)
        path = await client.download(job, "eagle.mp4")
        print("saved", path)


if __name__ == "__main__":
    asyncio.run(main())
