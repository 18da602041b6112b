"""Forks writers of one journal, kills each at some instant, and counts what they had been promised and is missing.

Called with the journal's path and the number of kills; prints kills, promises and what is missing.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time

from kling_async._journal.entry import EntryState, Identity
from kling_async._journal.open_journal import open_journal


async def write(path: str, life: int, pipe: int) -> None:
    """Record intents and acceptances until killed; write each durable number and its state to the pipe."""
    with open_journal(path) as journal:
        committer = asyncio.ensure_future(journal.run())
        turn = iter(range(sys.maxsize))

        async def worker() -> None:
            for item in turn:
                identity = Identity(f"{life}", "f", item)
                number = journal.record_intent(
                    identity, model="m", payload={"prompt": "x" * 500}, at=1.0, cost_usd=None
                )
                await journal.wait_durable()
                os.write(pipe, f"{number} intended\n".encode())
                journal.record_job(number, request_id=f"r-{number}", record={"status": "queued"})
                await journal.wait_durable()
                os.write(pipe, f"{number} submitted\n".encode())

        await asyncio.gather(committer, *(worker() for _ in range(4)))


def one_life(path: str, life: int) -> dict[int, str]:
    """The last promise for each number that a writer got before it was killed."""
    reading, writing = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(reading)
        asyncio.run(write(path, life, writing))
        os._exit(1)
    os.close(writing)
    rng = random.Random(life)  # noqa: S311 - when to kill is no secret
    with os.fdopen(reading) as reader:
        lines = [reader.readline() for _ in range(rng.randrange(12))]
        time.sleep(rng.uniform(0.0, 0.01))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        promises = [line.split() for line in (*lines, *reader)]
    return {int(number): state for number, state in promises}


def main() -> None:
    """Live and die, look after each life, and print the sums."""
    path, kills = sys.argv[1], int(sys.argv[2])
    promised: dict[int, str] = {}
    missing = 0
    for life in range(kills):
        promised |= one_life(path, life)
        with open_journal(path) as journal:
            states = {entry.number: entry.state for entry in journal.entries()}
            missing += sum(
                number not in states
                or (state == "submitted" and states[number] is not EntryState.SUBMITTED)
                or (state == "submitted" and not journal.has_job(f"r-{number}"))
                for number, state in promised.items()
            )
    print(kills, len(promised), missing)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
