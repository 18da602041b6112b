"""Make many videos with a journal: after a crash, run the program again, and it continues."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from kling_async import KlingClient, ResultState

PROMPTS = [f"A village square at {hour:02d}:00, time lapse" for hour in range(0, 24, 4)]
PRICES = {"kling-v2-6": Decimal("0.35")}
"""US dollars for one video. Take the prices of your own contract."""


async def main() -> None:
    """Make the videos that are missing, for at most five dollars in all runs together."""
    async with KlingClient() as client:
        batch = await client.generate_many(
            PROMPTS,
            duration=5,
            output="night/",
            journal="night.db",
            prices=PRICES,
            max_cost_usd=Decimal(5),
        )
    for result in batch.failed:
        if result.state is ResultState.AMBIGUOUS:
            print(
                f"item {result.index} may have been accepted: check the list before you use on_ambiguous='resend'"
            )
        else:
            print(f"item {result.index} {result.state}: {result.error}")
    print(f"{len(batch.succeeded)} of {len(batch)} videos, ${batch.cost_usd} in all")


if __name__ == "__main__":
    asyncio.run(main())
