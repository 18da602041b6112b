"""The row of a batch in the database: its options, the outage in which it is not submitted, and which workers cannot run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import attrs

from kling_async._distributed.database import WorkersDatabase
from kling_async._distributed.outage import Contact, Outage, next_outage
from kling_async._distributed.outcomes import dump_error
from kling_async._distributed.shards import VERSION, check_version
from kling_async.errors import KlingError


async def find_batch(database: WorkersDatabase, options: Mapping[str, Any]) -> int:
    """The number of the batch with these options, which is made if it is missing.

    Its outage, if it has one, ends with that: a new call wants the batch tried again.
    """
    text = json.dumps(options, sort_keys=True)
    digest = sha256(text.encode()).hexdigest()
    await database.query(
        "INSERT INTO kling_async_batches (digest, options, version) VALUES (%s, %s, %s)"
        " ON CONFLICT (digest) DO UPDATE SET outage_began_at = NULL, outage_seen_at = NULL",
        digest,
        text,
        VERSION,
    )
    ((number,),) = await database.query("SELECT id FROM kling_async_batches WHERE digest = %s", digest)
    return int(number)


@attrs.frozen(eq=False)
class BatchRecord:
    """What the database holds of one batch, for all its callers and workers."""

    database: WorkersDatabase
    number: int

    async def read_options(self) -> dict[str, Any]:
        """The batch options that the workers obey.

        Raises:
            ConfigurationError: A newer release made the batch.
            JournalError: The database cannot be reached, or refuses.
        """
        ((version, options),) = await self.database.query(
            "SELECT version, options FROM kling_async_batches WHERE id = %s", self.number
        )
        check_version(version)
        read: dict[str, Any] = json.loads(options)
        return read

    async def read_outage(self) -> tuple[Outage | None, float]:
        """The outage of the batch, or None; and the time by the clock of its times.

        Raises:
            JournalError: The database cannot be reached, or refuses.
        """
        ((began_at, seen_at, now),) = await self.database.query(
            "SELECT outage_began_at, outage_seen_at, extract(epoch FROM clock_timestamp())::double precision"
            " FROM kling_async_batches WHERE id = %s",
            self.number,
        )
        return None if began_at is None else Outage(began_at, seen_at), now

    async def record_contact(self, contact: Contact) -> Outage | None:
        """Write down what a run has seen of the service; the outage after it.

        Raises:
            JournalError: The database cannot be reached, or refuses.
        """
        before, now = await self.read_outage()
        outage = next_outage(before, contact, now=now)
        if outage != before:
            await self.database.query(
                "UPDATE kling_async_batches SET outage_began_at = %s, outage_seen_at = %s WHERE id = %s",
                outage and outage.began_at,
                outage and outage.seen_at,
                self.number,
            )
        return outage

    async def record_refusal(self, worker: str, error: KlingError, *, is_end: bool) -> None:
        """Tell the callers that a worker cannot run the batch; it replaces what the worker has said before.

        Args:
            worker: The name of the worker.
            error: Why it cannot.
            is_end: Whether the worker ends: then the callers of all batches hear of it.
        """
        await self.database.query(
            "WITH former AS (DELETE FROM kling_async_refusals WHERE batch = %s AND session = pg_backend_pid())"
            " INSERT INTO kling_async_refusals (batch, worker, error, is_end) VALUES (%s, %s, %s, %s)",
            self.number,
            self.number,
            worker,
            json.dumps(dump_error(error)),
            is_end,
        )
