"""A still picture that begins to move."""

from __future__ import annotations

import asyncio

from kling_async import JobFailedError, KlingClient

PICTURE = "https://example.com/harbour.jpg"
"""An address that the service can read, ending in .jpg, .jpeg or .png; a path on this machine is uploaded first."""


async def main() -> None:
    """Make two takes of one picture, and save what comes of them."""
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
