"""A batch into an object store, in a process of its own that can be killed: `store_batch.py URL-OF-SERVICE OUTPUT JOURNAL`."""

from __future__ import annotations

import asyncio
import json
import sys

from kling_async import KlingClient, Limits

PROMPTS = [f"a comet over hill {number}" for number in range(4)]


async def main(service: str, output: str, journal: str) -> None:
    async with KlingClient("any-key", base_url=service, limits=Limits(max_polls_per_second=200)) as client:
        batch = await client.generate_many(PROMPTS, output=output, journal=journal, progress=False)
    sys.stdout.write(json.dumps(batch.to_records()))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
