"""Make videos from a picture."""

from __future__ import annotations

import asyncio

from kling_async import JobFailedError, KlingClient

PICTURE = "https://example.com/harbour.jpg"
"""A URL that the service can read and that ends in .jpg, .jpeg or .png. The client uploads a local path first."""


async def main() -> None:
    """Make two videos from one picture, and save them."""
    async with KlingClient() as client:
        for take, motion in enumerate(["The boats begin to rock", "Fog rolls in from the sea"], start=1):
            try:
                job = await client.generate(motion, image=PICTURE, duration=5)
            except JobFailedError as error:
                print(f"take {take}: {error.job.failure_reason if error.job else error}")
            else:
                print("saved", await client.download(job, f"harbour-{take}.mp4"))


if __name__ == "__main__":
    asyncio.run(main())
