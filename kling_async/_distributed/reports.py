"""What a worker sends to the callers: the outcomes of items as rows, and events as notices that can get lost."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable

import anyio
import attrs
import psycopg
from psycopg.sql import SQL, Identifier

from kling_async._callbacks import SafeLogger
from kling_async._distributed.database import WorkersDatabase, connect
from kling_async._distributed.outcomes import dump_outcome
from kling_async._distributed.relay import dump_event, pack_events, unpack_events
from kling_async._distributed.shards import ShardItem
from kling_async._distributed.trouble import is_end
from kling_async._engine.clock import Clock
from kling_async.errors import JournalError
from kling_async.events import Event, Finished, NotSubmitted
from kling_async.results import Result

_INTERVAL = 0.25
"""Seconds between two writes: many outcomes and events share one statement."""
_MAX_EVENTS = 20_000
"""Events that are kept while the database cannot be reached; older ones are dropped."""
_RECONNECT_DELAY = 2.0
"""Seconds before a connection for notices is made again."""
_log = SafeLogger("kling_async")


def channel_of(batch: int) -> str:
    """The channel of the notices of a batch."""
    return f"kling_async_batch_{batch}"


@attrs.define(eq=False)
class Reporter:
    """Writes down how the items of one shard end, and relays events."""

    database: WorkersDatabase
    batch: int
    clock: Clock
    ended: int = attrs.field(init=False, default=0)
    """How many items have an outcome."""
    _outcomes: dict[int, str] = attrs.field(init=False, factory=dict)
    """By number, outcomes that are not written yet."""
    _flushing: anyio.Lock = attrs.field(init=False, factory=anyio.Lock)
    _events: deque[str] = attrs.field(init=False, factory=lambda: deque(maxlen=_MAX_EVENTS))

    def relay(self, number: int, event: Event) -> None:
        """Send an event about the entry of this number with the next notice.

        Each end that another run of the shard can still change is left to the outcome: the item may be given back, and its call
        hears of one end alone.
        """
        if isinstance(event, NotSubmitted) or (isinstance(event, Finished) and not is_end(event)):
            return
        self._events.append(dump_event(number, event))

    def add_outcome(self, item: ShardItem, result: Result) -> None:
        """Write the outcome of an item with the next statement."""
        self.ended += 1
        self._outcomes[item.number] = json.dumps({**dump_outcome(result), "retry": item.retry})

    async def run(self) -> None:
        """Write outcomes and send events until cancelled; what cannot be written now is written later."""
        while True:
            await self.clock.sleep(_INTERVAL)
            try:
                await self.flush()
            except JournalError as error:
                self.database.report_trouble(error, now=self.clock.now())

    async def flush(self) -> None:
        """Send all events, and return when all outcomes are written.

        Raises:
            JournalError: The database cannot be reached; a later call writes the same outcomes.
        """
        async with self._flushing:  # an outcome that another call writes now is not written yet
            await self._flush()

    async def _flush(self) -> None:
        # First the events: a caller that reads the last outcome has heard them.
        events = list(self._events)
        self._events.clear()
        if packs := list(pack_events(events)):
            await self.database.query(
                "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload",
                channel_of(self.batch),
                packs,
            )
        outcomes, self._outcomes = self._outcomes, {}
        if not outcomes:
            return
        try:
            await self.database.query(
                "INSERT INTO kling_async_outcomes (batch, number, outcome) "
                "SELECT %s, * FROM unnest(%s::bigint[], %s::text[]) ON CONFLICT (batch, number) DO UPDATE "
                "SET outcome = excluded.outcome, sequence = excluded.sequence",
                self.batch,
                list(outcomes),
                list(outcomes.values()),
            )
        except BaseException:  # also a cancellation: to write an outcome twice does no harm
            self._outcomes = {**outcomes, **self._outcomes}
            raise


async def listen(
    database: WorkersDatabase, batch: int, hear: Callable[[int, Event], object], *, is_ready: anyio.Event
) -> None:
    """Pass on the events of a batch until cancelled; without a connection none come, and outcomes tell the ends.

    Args:
        database: The database.
        batch: The number of the batch.
        hear: Called with the number of an entry and an event about it.
        is_ready: Set when the first connection listens.
    """
    while True:
        try:
            async with await connect(database.url) as connection:
                await connection.execute(SQL("LISTEN {}").format(Identifier(channel_of(batch))))
                is_ready.set()
                async for notice in connection.notifies():
                    for number, event in unpack_events(notice.payload):
                        hear(number, event)
        except psycopg.Error as error:
            _log.debug("No events of batch %s: %s", batch, error)
        await anyio.sleep(_RECONNECT_DELAY)
