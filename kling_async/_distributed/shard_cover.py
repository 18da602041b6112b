"""Which queued shards cover the items of a call: puts shards into the queue, again if they are missing, and takes them back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import attrs
import psycopg
from procrastinate import App

from kling_async._distributed.awaited_item import AwaitedItem
from kling_async._distributed.database import WorkersDatabase
from kling_async._distributed.shard_queue import QUEUE, TASK, list_unfinished_shards, translate_queue_errors
from kling_async._distributed.shards import ShardItem, collect_items, dump_shard, split_into_shards
from kling_async.errors import JournalError, KlingError

_ENDED_FOR_ANOTHER = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
_WITHDRAWALS = 3
"""Tries to withdraw the shards of a call: a worker that ends meanwhile can lock the same rows in another order."""
_MAX_SHARDS_OF_AN_ITEM = 5
"""How often an item is given out again whose shard has gone without an outcome."""
_WITHDRAWN = frozenset({"cancelled", "aborted"})
_ENQUEUE_LOCK = "kling_async enqueue"


@attrs.frozen(eq=False, kw_only=True)
class ShardCover:
    """The queued shards that have the items of one call."""

    app: App
    database: WorkersDatabase
    batch: int
    """The number of the batch: that of all calls with the same options."""
    awaited: Mapping[int, AwaitedItem]
    """By the number of its entry, each item that a worker has to end."""
    shard_size: int

    async def enqueue(self, numbers: Collection[int]) -> None:
        """Give out the items that no shard covers, in one transaction; two calls that begin together do it once."""
        async with self.database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (_ENQUEUE_LOCK,))
            cover = await self.read_cover()
            left = [number for number in numbers if number not in cover]
            await connection.execute(
                "DELETE FROM kling_async_outcomes WHERE batch = %s AND number = ANY(%s)", (self.batch, left)
            )
            items = [self.awaited[number].item for number in left]
            shards, queued = split_into_shards(items, size=self.shard_size), []
            if shards:
                deferrer = self.app.configure_task(TASK, queue=QUEUE, connection=connection)
                with translate_queue_errors(self.database):
                    queued = await deferrer.batch_defer_async(
                        *(dump_shard(self.batch, shard) for shard in shards)
                    )
        for queued_shard, shard in zip(queued, shards, strict=True):
            for item in shard:
                self.awaited[item.number].queued_shard = queued_shard

    async def read_cover(self) -> dict[int, int]:
        """By number, the queued shard that covers each item of this call; each item remembers it."""
        cover = {}
        for shard, items in await self._find_shards():
            for number in items.keys() & self.awaited.keys():
                if self.awaited[number].item.is_met_by(items[number].retry):
                    cover[number] = self.awaited[number].queued_shard = shard
        return cover

    async def record_lost(self, numbers: Collection[int]) -> dict[int, KlingError]:
        """Record that the shards of these items ended without their outcomes; by number, why an item is given up for that.

        A shard that another call with the same options has withdrawn does not count. A shard counts once, also if its items could
        not be given out again and the next look finds them without a shard.
        """
        shards = {self.awaited[number].queued_shard for number in numbers}
        withdrawn = {shard for shard in shards if shard is not None and await self._is_withdrawn(shard)}
        given_up = {}
        for number in numbers:
            awaited = self.awaited[number]
            awaited.shards_without_outcome += awaited.queued_shard not in {None, *withdrawn}
            awaited.queued_shard = None
            if awaited.shards_without_outcome >= _MAX_SHARDS_OF_AN_ITEM:
                given_up[number] = KlingError(
                    f"{_MAX_SHARDS_OF_AN_ITEM} shards with this item ended without its outcome; the log of the workers says why."
                )
        return given_up

    async def withdraw(self) -> bool:
        """Take back what is not submitted yet, as `withdraw_or_raise` does.

        Returns:
            False if the database cannot be reached or refuses: then nothing is taken back.
        """
        try:
            await self.withdraw_or_raise()
        except JournalError:
            return False
        return True

    async def withdraw_or_raise(self) -> None:
        """Take back what is not submitted yet: shards that no worker has begun, and the rest of those that run.

        All in one transaction and one exchange with the server; again if the server ended that for another transaction.

        Raises:
            JournalError: The database cannot be reached, or refuses: nothing is taken back.
        """
        left = _WITHDRAWALS
        while True:
            left -= 1
            try:
                with translate_queue_errors(self.database):
                    await self._withdraw_at_once()
            except JournalError as error:
                if left == 0 or not isinstance(error.__cause__, _ENDED_FOR_ANOTHER):
                    raise
            else:
                return

    async def _withdraw_at_once(self) -> None:
        shards = await self._find_shards()
        # In one order, so that two calls that withdraw the same shards do not wait for each other.
        mine = sorted(shard for shard, items in shards if items.keys() & self.awaited.keys())
        cancel = self.app.job_manager.cancel_job_by_id_async
        async with self.database.transaction() as connection, connection.pipeline():
            await asyncio.gather(*(cancel(shard, abort=True, connection=connection) for shard in mine))

    async def _is_withdrawn(self, shard: int) -> bool:
        """Whether a call took a shard back. Procrastinate calls one `failed` that its worker gave back at the same time."""
        with translate_queue_errors(self.database):
            jobs = await self.app.job_manager.list_jobs_async(id=shard)
        return any(job.abort_requested or job.status in _WITHDRAWN for job in jobs)

    async def _find_shards(self) -> list[tuple[int, dict[int, ShardItem]]]:
        """Each queued shard of the batch that waits or runs: its number, and its items by number."""
        with translate_queue_errors(self.database):
            shards = await list_unfinished_shards(self.app)
        return [
            (shard.id, collect_items([shard.task_kwargs], self.batch))
            for shard in shards
            if shard.id is not None
        ]
